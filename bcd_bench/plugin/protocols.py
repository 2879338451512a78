"""The items that metrics score, and the training clips that suites provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bcd_bench.types.clip import Clip
    from bcd_bench.types.pair import Pair

__all__ = ["Scored", "TrainingClips"]


@dataclass(frozen=True)
class Scored:
    """One output to score, with everything that a metric can use.

    `features[extractor][role]` holds arrays for the roles "output", "content", "motion" and "target"; `info` holds
    the values that the method returned in addition to the frames (`Clip.info`).
    """

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
