"""Synthetic test clips: small moving coloured shapes with ground-truth targets, for plugins without a suite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bcd_bench.types.clip import Clip, ClipRef, ClipSource, Generated
from bcd_bench.types.pair import Pair

__all__ = ["Cut", "blank", "cut_ref", "draw", "half_blank", "practice_pairs", "still_pair"]

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = ((214, 69, 65), (63, 140, 90), (70, 98, 200), (222, 180, 60))
"""One RGB colour per subject."""
FPS = 8.0


@dataclass(frozen=True)
class Cut:
    """The first `frames` frames of another source."""

    source: ClipSource
    frames: int

    def load(self) -> Clip:
        clip = self.source.load()
        return Clip(clip.frames[: self.frames], clip.fps, clip.id)

    def describe(self) -> dict[str, Any]:
        return {"kind": "cut", "source": self.source.describe(), "frames": self.frames}


def cut_ref(ref: ClipRef, frames: int) -> ClipRef:
    """The first `frames` frames of a clip, with a separate id."""
    return ClipRef(f"{ref.id}-first{frames}", Cut(ref.source, frames), ref.labels, frames=frames)


def draw(subject: int, motion: int, frames: int, height: int, width: int) -> Clip:
    """uint8 [frames, height, width, 3]: a circling disc in the subject's colour; the motion sets its starting point."""
    import numpy as np

    rows, columns = np.mgrid[0:height, 0:width]
    angles = 2 * np.pi * (np.arange(frames) / 8 + motion / 4)
    top = height * (0.5 + 0.22 * np.sin(angles))[:, None, None]
    left = width * (0.5 + 0.22 * np.cos(angles))[:, None, None]
    inside = (rows - top) ** 2 + (columns - left) ** 2 < (0.2 * min(height, width)) ** 2
    pixels = np.full((frames, height, width, 3), 40, np.uint8)
    pixels[inside] = COLOURS[subject % len(COLOURS)]
    return Clip(pixels, FPS)


def blank(clip: Clip) -> Clip:
    """A black clip of the same shape, in which a detector finds nothing."""
    import numpy as np

    return Clip(np.zeros_like(clip.frames), clip.fps, f"{clip.id}-blank")


class StillRef(ClipRef):
    """A clip frozen at its first frame. It keeps the source of the moving clip, since metrics of a suite may query the
    source for the expected content."""

    def load(self) -> Clip:
        clip = super().load()
        return Clip(clip.frames[:1].repeat(len(clip), axis=0), clip.fps, clip.id)


def still_pair(pair: Pair) -> Pair:
    """The pair with a frozen driving clip and target."""

    def still(ref: ClipRef) -> ClipRef:
        return StillRef(ref.id, ref.source, ref.labels, ref.sha256, ref.frames)

    return replace(pair, motion=still(pair.motion), target=None if pair.target is None else still(pair.target))


def half_blank(clip: Clip) -> Clip:
    """The clip with every second frame black, starting with the second: a detector fails on half of the frames."""
    frames = clip.frames.copy()
    frames[1::2] = 0
    return Clip(frames, clip.fps, f"{clip.id}-half-blank")


def practice_pairs(count: int = 4, *, size: tuple[int, int] = (64, 64), frames: int = 8) -> Sequence[Pair]:
    """`count` pairs of `frames` frames and `size` (height, width) with ground-truth targets; ids are unique."""

    def ref(subject: int, motion: int) -> ClipRef:
        arguments = {"subject": subject, "motion": motion, "frames": frames, "height": size[0], "width": size[1]}
        source = Generated("bcd_bench.testing.synthetic:draw", arguments)
        labels: dict[str, str | int] = {"subject": f"s{subject}", "motion": motion}
        return ClipRef(f"s{subject}m{motion}-{frames}", source, labels, frames=frames)

    return [
        Pair(f"practice-{index}", ref(index, index + 1), ref(index + 1, index), ref(index, index))
        for index in range(count)
    ]
