"""Resample videos of any frame rate, constant or variable, to a constant one, with one frame in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bcd_bench.io.decode import open_video
from bcd_bench.io.rgb import Shown

__all__ = ["frames_at", "is_variable"]

VARIES = 1.5
"""A frame rate counts as variable if the longest usual step between frames is this many times the shortest."""


def frames_at(path: Path, fps: float, limit: int, steps: list[float] | None = None) -> Iterator[Shown]:
    """The frames shown at 0, 1/fps, 2/fps, … seconds after the first, at most `limit`; repeated frames are one object.

    Each is the frame closest in time by the file's time stamps (the earlier one of two), so a video of variable frame
    rate keeps its timing. Decoding stops after the last required frame. The seconds between frames are appended to
    `steps`. Raises as `bcd_bench.io.decode.open_video` does.
    """
    with open_video(path) as video:
        yield from _nearest(video.frames(), fps, limit, steps)


def _nearest(frames: Iterator[Shown], fps: float, limit: int, steps: list[float] | None) -> Iterator[Shown]:
    count, start = 0, 0.0
    before: Shown | None = None
    for current in frames:
        if before is None:
            start = current.seconds
        else:
            if steps is not None:
                steps.append(current.seconds - before.seconds)
            # With this tolerance, time stamps in whole milliseconds give the same result as exact ones.
            while count < limit and start + count / fps <= (before.seconds + current.seconds) / 2 + 1e-6:
                yield before
                count += 1
        if count >= limit:
            return
        before = current
    while before is not None and count < limit and start + count / fps < before.seconds + 0.5 / fps - 1e-6:
        yield before
        count += 1


def is_variable(steps: list[float]) -> bool:
    """Whether the seconds between frames vary; a single irregular step, as from a dropped frame, does not count."""
    if len(steps) < 4:
        return False
    low, high = np.quantile(steps, [0.05, 0.95])
    return bool(high > VARIES * low)
