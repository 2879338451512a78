"""Clips from whatever a caller has: paths of videos and photos, arrays, or clips."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench.io.image_sequence import PICTURES, read_frames, read_picture
from bcd_bench.io.video import read_video, resize_frame
from bcd_bench.types.clip import Clip
from bcd_bench.types.crop import Crop
from bcd_bench.types.errors import UsageError

__all__ = ["DEFAULT_FPS", "InMemory", "NotGiven", "central_crop", "fitted", "read_clip"]

DEFAULT_FPS = 25.0
"""Frame rate of arrays, photos and folders of frames, which state none."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """A clip that is in memory, as a `ClipSource`."""

    clip: Clip

    def load(self) -> Clip:
        return self.clip

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory", "sha256": self.clip.sha256, "fps": self.clip.fps}


@dataclass(frozen=True)
class NotGiven:
    """A clip that the caller has not given: a metric that asks for it fails with a clear reason."""

    role: str

    def load(self) -> Clip:
        raise UsageError(f"the metric needs the clips of the role {self.role!r}", hint=f"pass {self.role}s=…")

    def describe(self) -> dict[str, Any]:
        return {"kind": "not given"}


def read_clip(source: Any, name: str) -> Clip:
    """A clip from a video, a photo or a folder of frames by path, an array uint8 [T, H, W, 3] or [H, W, 3], or a clip.

    `name` stands for it in messages. Arrays and pictures have `DEFAULT_FPS`. Raises `UsageError` if it cannot be read.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, str | PathLike):
        return _read_path(Path(source).expanduser())
    if hasattr(source, "__array__"):
        frames = np.asarray(source)
        if frames.ndim == 3:
            frames = frames[None]
        try:
            return Clip(frames, DEFAULT_FPS, name)
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
    raise UsageError(f"{name} is {type(source).__name__}, not a path, an array or a Clip")


def _read_path(path: Path) -> Clip:
    if path.is_dir():
        return Clip(read_frames(path), DEFAULT_FPS, path.name)
    if path.suffix.lower() in PICTURES:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        return Clip(read_picture(path)[None], DEFAULT_FPS, path.stem)
    return read_video(path)


def central_crop(rows: int, columns: int, size: tuple[int, int]) -> Crop:
    """The largest central part of a frame with the proportions of `size` (height, width)."""
    height, width = size
    tall, wide = min(rows, round(columns * height / width)), min(columns, round(rows * width / height))
    tall, wide = max(tall, 1), max(wide, 1)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    return Crop(left, top, left + wide, top + tall)


def fitted(clip: Clip, size: tuple[int, int]) -> Clip:
    """The clip cropped around its centre to the proportions of `size` (height, width), and resized to it."""
    rows, columns = clip.frames.shape[1:3]
    if (rows, columns) == tuple(size):
        return clip
    crop = central_crop(rows, columns, size)
    frames = clip.frames[:, crop.top : crop.bottom, crop.left : crop.right]
    return Clip(np.stack([resize_frame(np.ascontiguousarray(f), size) for f in frames]), clip.fps, clip.id, clip.info)
