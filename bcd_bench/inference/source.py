"""The frames of whatever a caller passes as a clip, at a constant rate, as often as they are needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.decode import open_video
from bcd_bench.io.inputs import read_clip
from bcd_bench.io.resample import frames_at
from bcd_bench.plugin.base import LazyFrame
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError

__all__ = ["Source", "open_source"]

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Still:
    """A frame that is in memory already."""

    rgb: Frame


class Source:
    """The frames of a file or of an array; `path` is None for what came from memory."""

    def __init__(self, name: str, path: Path | None, frames: Frame | None, fps: float, *, photo: bool = False) -> None:
        self.name = name
        """What messages call it: the path, or the role."""
        self.path = path
        self.fps = fps
        """The file's own rate in frames per second; the average one if it varies."""
        self.is_photo = photo
        self._frames = frames

    @property
    def is_video(self) -> bool:
        """Whether the frames come from a video file, which has time stamps and may have sound."""
        return self._frames is None and not self.is_photo

    def frames(self, fps: float, limit: int | None = None) -> Iterator[LazyFrame]:
        """The frames shown at 0, 1/fps, 2/fps, … seconds, at most `limit`; repeated frames are one object.

        Frames from memory and photos are yielded as they are. Raises `UsageError` if the file cannot be read.
        """
        if self._frames is not None:
            yield from (_Still(frame) for frame in self._frames[:limit])
            return
        assert self.path is not None
        with _reading(self.path):
            yield from frames_at(self.path, fps, 1 if self.is_photo else (limit or sys.maxsize))

    def first(self) -> Frame:
        """The first frame, uint8[H, W, 3] upright."""
        frame = next(self.frames(self.fps, 1), None)
        if frame is None:
            raise UsageError(f"{self.name} has no frame")
        return frame.rgb

    def start(self) -> float:
        """Time stamp of a video's first frame in seconds."""
        assert self.path is not None
        with _reading(self.path), open_video(self.path) as video:
            return next((frame.seconds for frame in video.frames()), 0.0)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (UnreadableVideoError, UnsupportedVideoError) as error:
        raise type(error)(f"cannot read {path}: {error}", hint=error.hint) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def open_source(given: Any, role: str) -> Source:
    """A source from a video, a photo or a folder of frames by path, an array uint8 [T, H, W, 3] or [H, W, 3], or a
    clip.

    `role` stands for arrays in messages. Raises `UsageError` for a file that cannot be read, or an invalid array.
    """
    if not isinstance(given, str | PathLike):
        clip = read_clip(given, role)
        return Source(role, None, clip.frames, clip.fps)
    path = Path(given).expanduser()
    if path.is_dir():
        clip = read_clip(path, role)
        return Source(str(path), path, clip.frames, clip.fps)
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    with _reading(path), open_video(path) as video:
        return Source(str(path), path, None, video.fps, photo=video.is_picture)
