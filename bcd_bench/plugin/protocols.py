"""What the classes behind a spec implement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bcd_bench.plugin.specs import Column
    from bcd_bench.types.clip import Clip
    from bcd_bench.types.failed import Failed
    from bcd_bench.types.pair import Pair

__all__ = ["Extractor", "Method", "Metric", "Scored", "TrainingClips"]


@dataclass(frozen=True)
class Scored:
    """One output to score, with everything a pair metric may look at. `features[extractor][role]` holds arrays,
    `info` what the method said of the output (`Clip.info`)."""

    pair: Pair
    output: Clip
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


class TrainingClips(Protocol):
    """The training split of a suite: clips of one length and size, disjoint from the suite's pairs."""

    fps: float

    def __len__(self) -> int: ...

    def clips(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8[B, T, H, W, 3] RGB for B indices in 0..len-1."""


class Method(Protocol):
    """Turns pairs into output clips. Built as `Class(config)` with the resolved config mapping."""

    def load(self, weights: Path | None, device: str) -> None:
        """Load weights (a file or folder, or None for methods without) onto `device` ("cpu", "cuda", "cuda:1")."""

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterable[Clip | Failed]:
        """One output per pair, in order, as long as the pair's motion clip and of the suite's size.

        The randomness of a pair comes from `bcd_bench.run.fingerprint.pair_seed(seed, pair.id)` alone, so that a result
        depends neither on its batch mates nor on order. A pair that cannot be done is a `Failed`.

        A method whose spec names `extractors` is called as `transfer(pairs, seed=seed, features=features)`: in the
        sequence `features`, aligned with `pairs`, `features[i][extractor][role]` holds the arrays of the pair's clip
        in the role "content" or "motion", or is `Failed`. They come from the cache that metrics use as well.
        """


class Metric(Protocol):
    """Scores outputs. Built as `Class()`; `load(device)` once before use. `columns` documents every number."""

    columns: Sequence[Column]

    def load(self, device: str) -> None: ...

    # level "pair" -------------------------------------------------------------------------------------------------
    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One JSON-safe row per item: a value for each "mean"/"rate" column, and whatever `derive` needs.

        None in a column says that it does not apply to this pair (it lowers no coverage); a missing or non-finite
        value could not be had (it does). A value over some of a clip's frames needs `Column.frames`.
        """

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """The "derived" columns over these rows. Called on resamples for the interval, so it must be cheap."""

    # level "set" --------------------------------------------------------------------------------------------------
    # Optional attribute `jackknife_groups: int`: with 2 or more, the harness keeps one state per group of content
    # identities and makes the interval by leaving out one group at a time.
    # Optional method `refuse(item) -> Failed | None`: an item that cannot enter the set, such as one without features,
    # counts as failed with this reason and never reaches `update`.
    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        """Fold items into a mergeable, JSON- or NumPy-serialisable state (None at the start)."""

    def merge(self, states: Sequence[Any]) -> Any: ...

    def compute(self, state: Any) -> Mapping[str, Any]:
        """Column -> value, or column -> (value, ci_low, ci_high)."""


class Extractor(Protocol):
    """Clip -> named arrays. `identity` (version, weights hash, preprocessing) keys the cache."""

    identity: Mapping[str, Any]

    def load(self, device: str) -> None: ...

    # An extractor whose spec names `extractors` is called as `extract(clips, features)`: `features[name]` is a list
    # aligned with `clips`. A clip for which one of them is `Failed` is failed with that reason and never gets here.
    def extract(self, clips: Sequence[Clip], /) -> Sequence[Mapping[str, Any] | Failed]: ...
