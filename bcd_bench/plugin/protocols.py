"""The items that metrics score, what is drawn over videos, and the training clips that suites provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bcd_bench.types.clip import Clip
    from bcd_bench.types.pair import Pair

__all__ = ["Overlay", "Scored", "TrainingClips"]


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


@dataclass(frozen=True, eq=False)
class Overlay:
    """Points to draw over the frames of a clip, such as the landmarks that a metric uses.

    `points` is float[T, N, 2], x and y in pixels of the frame (the centre of the first pixel is at 0.5); NaN for points
    that a frame does not have. `lines` lists pairs of points to connect, as indices 0..N-1; it must be the same for all
    clips. Without lines, the points are drawn as dots.
    """

    points: npt.NDArray[np.floating]
    lines: tuple[tuple[int, int], ...] = ()


class TrainingClips(Protocol):
    """The training split of a suite: clips of one length and size, disjoint from the suite's pairs."""

    fps: float

    def __len__(self) -> int: ...

    def clips(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8[B, T, H, W, 3] RGB for B indices in 0..len-1."""
