"""Base classes of methods, metrics and extractors.

Subclass them and override what you need; the other methods have defaults. A class that has the same methods without
inheriting works as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from bcd_bench.plugin.protocols import Scored
    from bcd_bench.plugin.specs import Column
    from bcd_bench.types.clip import Clip
    from bcd_bench.types.failed import Failed
    from bcd_bench.types.pair import Pair

__all__ = ["Extractor", "Method", "Metric", "PairMetric", "SetMetric"]


class Method(ABC):
    """Turns pairs into output clips. The harness builds it as `Class(config)` with the resolved settings."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config: Mapping[str, Any] = dict(config or {})

    def load(self, weights: Path | None, device: str) -> None:  # noqa: B027 - a default, not an oversight
        """Load weights onto a device; called once before the first transfer. The default does nothing.

        `weights` is a file or folder, or None for methods without weights; `device` is "cpu", "cuda" or "cuda:1".
        """

    @abstractmethod
    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterable[Clip | Failed]:
        """One output per pair, in order, as long as the pair's driving clip and of the suite's size.

        The random numbers of a pair depend on `bcd_bench.run.fingerprint.pair_seed(seed, pair.id)` alone, so that a
        result depends neither on the other pairs of the batch nor on their order. A pair that fails is a `Failed`.

        A method whose spec names `extractors` is called as `transfer(pairs, seed=seed, features=features)`. `features`
        is aligned with `pairs`: `features[i][extractor][role]` holds the arrays of the clip in the role "content" or
        "motion", or is `Failed`.
        """

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the clips that the method accepts; None if it accepts any size."""
        return None

    def close(self) -> None:  # noqa: B027
        """Release processes and files; called once after the last pair, also after Ctrl-C. Does nothing by default."""


class _Metric(ABC):
    columns: Sequence[Column]
    """The values of the metric, each with its unit, direction and definition."""

    def load(self, device: str) -> None:  # noqa: B027
        """Load networks onto a device; called once before the first item. The default does nothing."""


class PairMetric(_Metric):
    """Scores each output by itself (`MetricSpec.level="pair"`)."""

    @abstractmethod
    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One JSON-safe row per item: a value for each "mean" or "rate" column, and whatever `derive` needs.

        None in a column means that it does not apply to this pair, which does not lower coverage; a missing or
        non-finite value counts as failed. A value over some of a clip's frames needs `Column.frames`.
        """

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """The "derived" columns over these rows. Called on resamples for the interval, so it has to be fast."""
        del rows
        return {}


class SetMetric(_Metric):
    """Scores a whole set of outputs (`MetricSpec.level="set"`), through a state that can be merged."""

    jackknife_groups: int = 0
    """With 2 or more, the harness keeps one state per group of subjects, and computes the interval by leaving out one
    group at a time."""

    def refuse(self, item: Scored) -> Failed | None:
        """The reason why an item cannot enter the set, such as missing features; None by default."""
        del item
        return None

    @abstractmethod
    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        """Add items to a state (None at the start) that JSON or NumPy can store."""

    @abstractmethod
    def merge(self, states: Sequence[Any]) -> Any:
        """One state for all items of several states."""

    @abstractmethod
    def compute(self, state: Any) -> Mapping[str, Any]:
        """Column -> value, or column -> (value, ci_low, ci_high)."""


class Extractor(ABC):
    """Computes named arrays from a clip, for metrics and methods to share."""

    identity: Mapping[str, Any]
    """What decides the features (version, hash of weights, preprocessing): the cache key."""

    def load(self, device: str) -> None:  # noqa: B027
        """Load networks onto a device; called once before the first clip. The default does nothing."""

    @abstractmethod
    def extract(self, clips: Sequence[Clip], /) -> Sequence[Mapping[str, Any] | Failed]:
        """Name -> array for each clip, or `Failed`.

        An extractor whose spec names `extractors` is called as `extract(clips, features)`, with `features[name]`
        aligned with `clips`; a clip for which one of them failed never gets here.
        """


Metric: TypeAlias = Any
"""A `PairMetric` or a `SetMetric`, or an object with the same methods."""
