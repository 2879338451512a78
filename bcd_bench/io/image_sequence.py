"""Clips as folders of numbered images, for tools that read and write frames."""

from __future__ import annotations

import re
import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.atomic import fsync_path, temporary_name
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.types.clip import Clip

__all__ = ["PICTURES", "encode_png", "list_frames", "read_frames", "read_picture", "write_frames"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""File name suffixes of frames, case-insensitive."""


def encode_png(rgb: npt.NDArray[np.uint8]) -> bytes:
    """Encode a frame, uint8[H, W, 3] RGB, as PNG bytes (lossless)."""
    import av

    codec: Any = av.CodecContext.create("png", "w")
    codec.height, codec.width = rgb.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def write_frames(folder: Path, clip: Clip) -> None:
    """Write `000000.png`, `000001.png`, … into the new folder `folder`, atomically.

    Raises `OSError` if writing fails or the folder exists and is not empty.
    """
    draft = temporary_name(folder)
    shutil.rmtree(draft, ignore_errors=True)  # left by a killed process
    draft.mkdir()
    try:
        for index, frame in enumerate(clip.frames):
            (draft / f"{index:06d}.png").write_bytes(encode_png(frame))
        fsync_path(draft)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def list_frames(folder: Path) -> list[Path]:
    """The images in `folder`, sorted by name with numbers in numeric order (2 before 10). Hidden files are ignored."""
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(images, key=lambda path: (_natural(path.name), path.name))


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as uint8[H, W, 3] RGB, rotated upright by its EXIF orientation; transparency is ignored, and only
    the first frame of an animation is read. Raises `UsageError` if it is missing, damaged or truncated.
    """
    from bcd_bench.io.video import read_video

    frame: npt.NDArray[np.uint8] = read_video(path, stop=1).frames[0]
    return frame


def read_frames(folder: Path) -> npt.NDArray[np.uint8]:
    """The images of a folder as uint8[T, H, W, 3], in the order of `list_frames`, each read by `read_picture`.

    Raises `UsageError` if the folder has no images, one cannot be read, or their sizes differ.
    """
    frames: list[npt.NDArray[np.uint8]] = []
    for path in list_frames(folder):
        frame = read_picture(path)
        if frames and frame.shape != frames[0].shape:
            raise UsageError(f"{path.name} differs in size from the first frame of {folder.name}")
        frames.append(frame)
    if not frames:
        raise UsageError(f"{folder.name} has no frames ({', '.join(PICTURES)})")
    return np.stack(frames)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders numbers within text by value."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"[0-9]+|[^0-9]+", name)]
