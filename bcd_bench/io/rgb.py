"""Conversion of decoded frames to upright RGB with square pixels, and resizing, bit-exact on every processor."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.orientation import Turn, turned
from bcd_bench.types.errors import UnreadableVideoError

__all__ = ["ENCODING", "Converter", "Shown", "resize_frame"]

BICUBIC, AREA = 1 << 2, 1 << 5
FULL_CHROMA, ACCURATE, BITEXACT = (1 << 13) | (1 << 14), 1 << 18, 1 << 19
"""libswscale flags. Without ACCURATE, results are up to 1.5 levels too dark; without BITEXACT, they depend on the
processor."""
ENCODING = BICUBIC | FULL_CHROMA | ACCURATE | BITEXACT
"""Flags of the conversions from and to YUV."""
MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""Colour matrices (ITU-T H.273) that libswscale supports: RGB, BT.709, unspecified (as BT.601), FCC, BT.601 twice,
SMPTE 240M, BT.2020. It would convert others as BT.601."""
BGR0 = "bgr0"
WIDEST = 1 << 16


class Converter:
    """Converts the frames of one video to RGB."""

    def __init__(self, aspect: Fraction, threads: int) -> None:
        """`aspect` is the pixel aspect ratio (width / height); `threads` is passed to libswscale (0: one per core)."""
        from av.video.reformatter import VideoReformatter

        self._aspect, self._threads = aspect, threads
        self._reformatter = VideoReformatter()

    def size(self, frame: Any) -> tuple[int, int]:
        """Height and width with square pixels, before rotation: the width is scaled and rounded down."""
        width = max(1, int(frame.width * self._aspect))
        if width > WIDEST:
            raise UnreadableVideoError(f"its pixels are {self._aspect} times as wide as high: {width} columns")
        return frame.height, width

    def rgb(self, frame: Any) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3] with the size returned by `size`. Raises `UnreadableVideoError` for unsupported colour
        matrices."""
        height, width = self.size(frame)
        same = (height, width) == (frame.height, frame.width)
        if same and frame.format.name == BGR0:
            plane = frame.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1, 4)
            return np.ascontiguousarray(rows[:, : plane.width, 2::-1])
        if not (same and frame.format.name == "rgb24"):
            matrix = int(frame.colorspace)
            if matrix not in MATRICES:
                raise UnreadableVideoError(f"its colour matrix (number {matrix} of ITU-T H.273) is not supported")
            frame = self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format="rgb24",
                interpolation=ENCODING,
                threads=self._threads,
            )
        return np.asarray(frame.to_ndarray(), np.uint8)


@dataclass(frozen=True)
class Shown:
    """A decoded frame that is converted on first access."""

    frame: Any
    seconds: float
    """Timestamp."""
    converter: Converter
    turn: Turn

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of `rgb`, without conversion."""
        height, width = self.converter.size(self.frame)
        return (width, height) if self.turn.transpose else (height, width)

    @cached_property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3] as displayed by a player: upright, with square pixels."""
        return np.ascontiguousarray(turned(self.converter.rgb(self.frame), self.turn))


def resize_frame(rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize uint8[H, W, 3] to `size` (height, width): area averaging when shrinking, bicubic when enlarging.

    The three channels are scaled independently, so a constant colour is preserved exactly.
    """
    import av

    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    smaller = height * width < rgb.shape[0] * rgb.shape[1]
    kernel = AREA if smaller else BICUBIC
    # libswscale would convert RGB to YUV and back. Three planes of equal size are scaled without conversion.
    planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb.transpose(2, 0, 1)), format="yuv444p")
    resized = planes.reformat(width=width, height=height, interpolation=kernel | ACCURATE | BITEXACT, threads=1)
    return np.ascontiguousarray(np.asarray(resized.to_ndarray(), np.uint8).transpose(1, 2, 0))
