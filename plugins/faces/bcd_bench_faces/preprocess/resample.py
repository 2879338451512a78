"""Videos of any frame rate as a stream of frames at 25 per second, one frame in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bcd_bench.io.decode import open_video
from bcd_bench.io.rgb import Shown
from bcd_bench.types.errors import UnreadableVideoError

__all__ = ["UnreadableVideoError", "frames_at", "is_variable"]

VARIES = 1.5
"""A frame rate is called variable where the longest usual step between frames is this many times the shortest."""


def frames_at(path: Path, fps: float, limit: int, steps: list[float] | None = None) -> Iterator[Shown]:
    """The frames shown at 0, 1/fps, 2/fps, … seconds after the first, at most `limit`; a repeated one is one object.

    Each is the frame nearest in time by the file's time stamps, the earlier one of two, so a video of variable frame
    rate keeps its timing. Decoding stops with the last frame that is needed. The seconds between frames are added to
    `steps`. Raises as `bcd_bench.io.decode.open_video` does.
    """
    with open_video(path) as video:
        yield from _nearest(video.frames(), fps, limit, steps)


def _nearest(frames: Iterator[Shown], fps: float, limit: int, steps: list[float] | None) -> Iterator[Shown]:
    count, start = 0, 0.0
    before: Shown | None = None
    for shown in frames:
        if before is None:
            start = shown.seconds
        else:
            if steps is not None:
                steps.append(shown.seconds - before.seconds)
            # The tolerance lets time stamps of whole milliseconds decide as exact ones would.
            while count < limit and start + count / fps <= (before.seconds + shown.seconds) / 2 + 1e-6:
                yield before
                count += 1
        if count >= limit:
            return
        before = shown
    while before is not None and count < limit and start + count / fps < before.seconds + 0.5 / fps - 1e-6:
        yield before
        count += 1


def is_variable(steps: list[float]) -> bool:
    """Whether the seconds between frames vary; a single odd step, as a dropped frame leaves, does not count."""
    if len(steps) < 4:
        return False
    low, high = np.quantile(steps, [0.05, 0.95])
    return bool(high > VARIES * low)
