"""Decoded frames as RGB: colours, square pixels, upright, and resizing, with the same bits on every processor."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.orientation import Turn, turned
from bcd_bench.types.errors import UnreadableVideoError

__all__ = ["Converter", "Shown", "resize_frame"]

BICUBIC, AREA = 1 << 2, 1 << 5
FULL_CHROMA, ACCURATE, BITEXACT = (1 << 13) | (1 << 14), 1 << 18, 1 << 19
"""libswscale's flags. Without ACCURATE results are up to 1.5 levels dark; without BITEXACT they depend on the
processor."""
MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""Colour matrices (ITU-T H.273) that libswscale converts: RGB, BT.709, unspecified (as BT.601), FCC, BT.601 twice,
SMPTE 240M, BT.2020. It would convert others as BT.601."""
BGR0 = "bgr0"
WIDEST = 1 << 16


class Converter:
    """Frames of one video to RGB."""

    def __init__(self, aspect: Fraction, threads: int) -> None:
        """`aspect` is the width over the height of a pixel; `threads` as libswscale takes it (0: as many as cores)."""
        from av.video.reformatter import VideoReformatter

        self._aspect, self._threads = aspect, threads
        self._reformatter = VideoReformatter()

    def size(self, frame: Any) -> tuple[int, int]:
        """Height and width with square pixels, before turning: the width is stretched and rounded down."""
        width = max(1, int(frame.width * self._aspect))
        if width > WIDEST:
            raise UnreadableVideoError(f"its pixels are {self._aspect} times as wide as high: {width} columns")
        return frame.height, width

    def rgb(self, frame: Any) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3] of the size that `size` tells. Raises `UnreadableVideoError` for colours of another kind."""
        height, width = self.size(frame)
        same = (height, width) == (frame.height, frame.width)
        if same and frame.format.name == BGR0:
            plane = frame.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1, 4)
            return np.ascontiguousarray(rows[:, : plane.width, 2::-1])
        if not (same and frame.format.name == "rgb24"):
            matrix = int(frame.colorspace)
            if matrix not in MATRICES:
                raise UnreadableVideoError(f"its colour matrix (number {matrix} of ITU-T H.273) is not converted")
            frame = self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format="rgb24",
                interpolation=BICUBIC | FULL_CHROMA | ACCURATE | BITEXACT,
                threads=self._threads,
            )
        return np.asarray(frame.to_ndarray(), np.uint8)


@dataclass(frozen=True)
class Shown:
    """A decoded frame, converted only where it is looked at."""

    frame: Any
    seconds: float
    """Its time stamp."""
    converter: Converter
    turn: Turn

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of `rgb`, without converting."""
        height, width = self.converter.size(self.frame)
        return (width, height) if self.turn.transpose else (height, width)

    @cached_property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3] as a player shows it: upright and with square pixels."""
        return np.ascontiguousarray(turned(self.converter.rgb(self.frame), self.turn))


def resize_frame(rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3] at `size` (height, width): area averaging where smaller, bicubic where larger.

    The three channels are scaled each for itself, so a flat colour stays exactly as it is.
    """
    import av

    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    smaller = height * width < rgb.shape[0] * rgb.shape[1]
    kernel = AREA if smaller else BICUBIC
    # Of RGB, libswscale would make YUV and back. Three planes of one size are scaled as they are, whatever they hold.
    planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb.transpose(2, 0, 1)), format="yuv444p")
    resized = planes.reformat(width=width, height=height, interpolation=kernel | ACCURATE | BITEXACT, threads=1)
    return np.ascontiguousarray(np.asarray(resized.to_ndarray(), np.uint8).transpose(1, 2, 0))
