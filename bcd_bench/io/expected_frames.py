"""Reading of videos with a known length and size, without decoding more than necessary."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bcd_bench.io.decode import open_video
from bcd_bench.io.image_sequence import list_frames, read_picture
from bcd_bench.io.rgb import resize_frame
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError

__all__ = ["WrongLengthError", "WrongSizeError", "read_expected"]


class WrongLengthError(UsageError):
    """The length is wrong; the message is the actual length, such as "more than 8 frames"."""


class WrongSizeError(UsageError):
    """The size is wrong; the message is the actual size, such as "1080x1920" (height first)."""


def read_expected(path: Path, frames: int, size: tuple[int, int], *, resize: bool = False) -> npt.NDArray[np.uint8]:
    """uint8[frames, *size, 3] of a video file or a folder of images; `resize` resizes frames of other sizes.

    A video that is too long is rejected after one extra frame, a wrong size after the first frame. Raises
    `WrongLengthError`, `WrongSizeError`, and `UsageError` or `OSError` if the video cannot be read.
    """
    decoded: list[npt.NDArray[np.uint8]] = []
    if path.is_dir():
        pictures = list_frames(path)
        if len(pictures) != frames:
            raise WrongLengthError(_frames(len(pictures)))
        native: tuple[int, ...] | None = None
        for picture in pictures:
            rgb = read_picture(picture)
            if native not in (None, rgb.shape):
                raise UsageError(f"{picture.name} differs in size from the first frame of {path.name}")
            native = rgb.shape
            decoded.append(_sized(rgb, size, resize=resize))
        return np.stack(decoded)
    try:
        with open_video(path) as video:
            for frame in itertools.islice(video.frames(), frames + 1):
                if len(decoded) == frames:
                    raise WrongLengthError(f"more than {_frames(frames)}")
                if not resize and frame.size != size:
                    raise WrongSizeError(f"{frame.size[0]}x{frame.size[1]}")
                decoded.append(_sized(frame.rgb, size, resize=resize))
    except (UnreadableVideoError, UnsupportedVideoError) as error:
        raise type(error)(f"cannot read video {path.name}: {error}", hint=error.hint) from None
    if len(decoded) < frames:
        raise WrongLengthError(_frames(len(decoded)))
    return np.stack(decoded)


def _frames(count: int) -> str:
    return f"{count} frame{'s' * (count != 1)}"


def _sized(rgb: npt.NDArray[np.uint8], size: tuple[int, int], *, resize: bool) -> npt.NDArray[np.uint8]:
    if not resize and rgb.shape[:2] != size:
        raise WrongSizeError(f"{rgb.shape[0]}x{rgb.shape[1]}")
    return resize_frame(rgb, size)
