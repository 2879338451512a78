"""Videos of any kind as a stream of frames at 25 per second, one frame in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Shown", "UnreadableVideoError", "frames_at", "is_variable"]

VARIES = 1.5
"""A frame rate is called variable where the longest usual step between frames is this many times the shortest."""


class UnreadableVideoError(ValueError):
    """The file is no video, or cannot be decoded as far as it is wanted."""


@dataclass(frozen=True)
class Shown:
    """A decoded frame, converted only where it is looked at."""

    frame: Any
    aspect: float
    """Width over height of the file's pixels."""

    @cached_property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3] as a player shows it: upright and with square pixels."""
        width = max(1, round(self.frame.width * self.aspect))
        rgb = np.asarray(self.frame.to_ndarray(format="rgb24", width=width, height=self.frame.height), np.uint8)
        turns = round(getattr(self.frame, "rotation", 0) / 90) % 4  # older PyAV does not know of it
        return np.ascontiguousarray(np.rot90(rgb, turns))


def frames_at(path: Path, fps: float, limit: int, steps: list[float] | None = None) -> Iterator[Shown]:
    """The frames shown at 0, 1/fps, 2/fps, … seconds after the first, at most `limit`; a repeated one is one object.

    Each is the frame nearest in time by the file's time stamps, the earlier one of two, so a video of variable frame
    rate keeps its timing. Decoding stops with the last frame that is needed. The seconds between frames are added to
    `steps`. Raises `UnreadableVideoError`, and `OSError` where the file cannot be opened or read.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UnreadableVideoError("no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from _nearest(_timed(container, stream), fps, limit, steps)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):  # the disk's fault, not the file's
            raise
        raise UnreadableVideoError(f"cannot be decoded: {error.strerror}") from None


def _timed(container: Any, stream: Any) -> Iterator[tuple[float, Shown]]:
    """(seconds, frame) in growing order; frames without a time stamp, or with one of the past, follow the last."""
    usual = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    last: float | None = None
    packets = 0
    for packet in container.demux(stream):
        packets += packet.size > 0
        for frame in packet.decode():
            seconds = frame.time
            if seconds is None or (last is not None and seconds <= last):
                seconds = 0.0 if last is None else last + usual
            if packet.is_corrupt or frame.is_corrupt:
                raise UnreadableVideoError(f"damaged {seconds:.2f} seconds in")
            last = seconds
            yield seconds, Shown(frame, aspect)
    if packets < stream.frames and "mp4" in container.format.name:  # elsewhere the count is not of coded frames
        raise UnreadableVideoError(f"damaged: {packets} of {stream.frames} frames are there")


def _nearest(
    frames: Iterator[tuple[float, Shown]], fps: float, limit: int, steps: list[float] | None
) -> Iterator[Shown]:
    count, start, before = 0, 0.0, 0.0
    shown: Shown | None = None
    for seconds, frame in frames:
        if shown is None:
            start = seconds
        else:
            if steps is not None:
                steps.append(seconds - before)
            # The tolerance lets time stamps of whole milliseconds decide as exact ones would.
            while count < limit and start + count / fps <= (before + seconds) / 2 + 1e-6:
                yield shown
                count += 1
        if count >= limit:
            return
        before, shown = seconds, frame
    while shown is not None and count < limit and start + count / fps < before + 0.5 / fps - 1e-6:
        yield shown
        count += 1


def is_variable(steps: list[float]) -> bool:
    """Whether the seconds between frames vary; a single odd step, as a dropped frame leaves, does not count."""
    if len(steps) < 4:
        return False
    low, high = np.quantile(steps, [0.05, 0.95])
    return bool(high > VARIES * low)
