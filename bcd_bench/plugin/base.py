"""Base classes of methods, metrics and extractors.

Subclass them and override what you need; the other methods have defaults. A class that has the same methods without
inheriting works as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bcd_bench.plugin.protocols import Scored
    from bcd_bench.plugin.specs import Column
    from bcd_bench.types.clip import Clip
    from bcd_bench.types.crop import Crop
    from bcd_bench.types.failed import Failed
    from bcd_bench.types.pair import Pair

__all__ = ["Extractor", "LazyFrame", "Method", "Metric", "PairMetric", "Preprocessor", "SetMetric"]


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

        Derive the random numbers of a pair from `bcd_bench.run.fingerprint.pair_seed(seed, pair.id)` alone, so that
        results do not depend on the other pairs of the batch or on their order. Return `Failed` for a pair that fails.

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

        None means that the column does not apply to this pair, which does not lower coverage; a missing or non-finite
        value counts as failed. A value computed on only some of a clip's frames needs `Column.frames`.
        """

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """Compute the "derived" columns over these rows. Must be fast: the bootstrap calls it on every resample.

        Columns that cannot be computed from these rows may be left out; they are empty in the record.
        """
        del rows
        return {}


class SetMetric(_Metric):
    """Scores a whole set of outputs (`MetricSpec.level="set"`), through a state that can be merged."""

    jackknife_groups: int = 0
    """If this is 2 or more, the harness keeps one state per group of subjects and computes a jackknife interval by
    leaving out one group at a time."""

    def refuse(self, item: Scored) -> Failed | None:
        """Return `Failed` with the reason if an item cannot enter the set (missing features, say), else None."""
        del item
        return None

    @abstractmethod
    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        """Return the state (None at the start) with the items added. JSON or NumPy must be able to store it."""

    @abstractmethod
    def merge(self, states: Sequence[Any]) -> Any:
        """Merge several states into one that covers all their items."""

    @abstractmethod
    def compute(self, state: Any) -> Mapping[str, Any]:
        """Column -> value, or column -> (value, ci_low, ci_high)."""


class Extractor(ABC):
    """Computes named arrays from a clip, for metrics and methods to share."""

    identity: Mapping[str, Any]
    """The cache key: everything that the features depend on (version, hash of weights, preprocessing)."""

    def load(self, device: str) -> None:  # noqa: B027
        """Load networks onto a device; called once before the first clip. The default does nothing."""

    @abstractmethod
    def extract(self, clips: Sequence[Clip], /) -> Sequence[Mapping[str, Any] | Failed]:
        """Name -> array for each clip, or `Failed`.

        An extractor whose spec names `extractors` is called as `extract(clips, features)`, with `features[name]`
        aligned with `clips`; clips for which one of these extractors failed are not passed.
        """


class LazyFrame(Protocol):
    """A frame whose pixels are converted on first access, so that frames which nobody looks at cost little."""

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3] RGB, upright."""


class Preprocessor(ABC):
    """Finds the part of a clip that methods of a domain expect, such as the face. Built as `Class()`."""

    def load(self, assets: Mapping[str, Path]) -> None:  # noqa: B027
        """Load models; called once before the first clip. `assets` has the paths of the spec's assets. The default does
        nothing."""

    @abstractmethod
    def find(self, frames: Iterable[LazyFrame]) -> Crop:
        """The crop for all frames of one clip, or one photo; all frames have the same size.

        Raises `UsageError` with the reason, such as "no face was found", if there is none.
        """


Metric: TypeAlias = Any
"""A `PairMetric` or a `SetMetric`, or an object with the same methods."""
