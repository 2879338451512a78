"""Videos that must have a known length and size, read without ever decoding more than that."""

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
    """The message is what there is, such as "more than 8 frames"."""


class WrongSizeError(UsageError):
    """The message is the size there is, such as "1080x1920" (height first)."""


def read_expected(path: Path, frames: int, size: tuple[int, int], *, resize: bool = False) -> npt.NDArray[np.uint8]:
    """uint8[frames, *size, 3] of a video file or a folder of pictures; `resize` brings other sizes to this one.

    A video that is too long is known after one frame more, a wrong size after the first frame. Raises
    `WrongLengthError`, `WrongSizeError`, and `UsageError` or `OSError` for what cannot be read.
    """
    found: list[npt.NDArray[np.uint8]] = []
    if path.is_dir():
        pictures = list_frames(path)
        if len(pictures) != frames:
            raise WrongLengthError(_frames(len(pictures)))
        native: tuple[int, ...] | None = None
        for picture in pictures:
            rgb = read_picture(picture)
            if native not in (None, rgb.shape):
                raise UsageError(f"{picture.name} has another size than the first frame of {path.name}")
            native = rgb.shape
            found.append(_sized(rgb, size, resize=resize))
        return np.stack(found)
    try:
        with open_video(path) as video:
            for shown in itertools.islice(video.frames(), frames + 1):
                if len(found) == frames:
                    raise WrongLengthError(f"more than {_frames(frames)}")
                if not resize and shown.size != size:
                    raise WrongSizeError(f"{shown.size[0]}x{shown.size[1]}")
                found.append(_sized(shown.rgb, size, resize=resize))
    except (UnreadableVideoError, UnsupportedVideoError) as error:
        raise type(error)(f"cannot read video {path.name}: {error}", hint=error.hint) from None
    if len(found) < frames:
        raise WrongLengthError(_frames(len(found)))
    return np.stack(found)


def _frames(count: int) -> str:
    return f"{count} frame{'s' * (count != 1)}"


def _sized(rgb: npt.NDArray[np.uint8], size: tuple[int, int], *, resize: bool) -> npt.NDArray[np.uint8]:
    if not resize and rgb.shape[:2] != size:
        raise WrongSizeError(f"{rgb.shape[0]}x{rgb.shape[1]}")
    return resize_frame(rgb, size)
