"""Writing clips as lossless FFV1 whose bytes depend only on the frames, and reading clips from video files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.atomic import atomic_path, write_bytes_atomic
from bcd_bench.io.decode import file_address, open_video
from bcd_bench.io.encode import encode
from bcd_bench.io.rgb import resize_frame
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError

if TYPE_CHECKING:
    from bcd_bench.io.audio import AudioTrack

__all__ = [
    "READER",
    "VideoFile",
    "encode_lossless",
    "is_lossless",
    "read_video",
    "resize_frame",
    "save_frames",
    "save_video",
    "write_preview",
    "write_video_lossless",
]

READER = "2"
"""Bump when the decoded or resized pixels change; part of the manifest of every suite made of videos."""


def encode_lossless(clip: Clip) -> bytes:
    """Encode the clip as a Matroska file with one FFV1 stream and return its bytes.

    The same frames and frame rate yield the same bytes: single thread, bit-exact flags, no dates or random ids. Raises
    `ValueError` if the encoder rejects the clip.
    """
    import av

    try:
        return _encoded(clip)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"FFV1 does not support {list(clip.frames.shape)} at {clip.fps} fps: {error.strerror}"
        ) from error


def _encoded(clip: Clip) -> bytes:
    buffer = io.BytesIO()
    encode(buffer, clip.frames, clip.fps, lossless=True)
    return buffer.getvalue()


def write_video_lossless(path: Path, clip: Clip) -> None:
    """Write `clip` to `path` (.mkv) losslessly and atomically. Raises `OSError` if writing fails."""
    write_bytes_atomic(path, encode_lossless(clip))


def write_preview(path: Path, clip: Clip, *, scale: int = 1) -> None:
    """Write an H.264 preview (.mp4) for viewing: lossy, enlarged `scale` times by repeating pixels, atomic."""
    buffer = io.BytesIO()
    encode(buffer, clip.frames.repeat(scale, axis=1).repeat(scale, axis=2), clip.fps, lossless=False)
    write_bytes_atomic(path, buffer.getvalue())


def save_video(clip: Clip, path: Path | str) -> None:
    """Write a clip: `.mkv` losslessly (FFV1), `.mp4` as H.264 that every player and browser shows. Atomic.

    Raises `UsageError` for another ending or a folder that does not exist, and `OSError` as writing does.
    """
    path = Path(path)
    if is_lossless(path):
        write_video_lossless(path, clip)
    else:
        write_preview(path, clip)


def save_frames(
    path: Path | str,
    frames: Iterable[npt.NDArray[np.uint8]],
    fps: float,
    *,
    tags: Mapping[str, str] | None = None,
    audio: AudioTrack | None = None,
    options: Mapping[str, str] | None = None,
) -> None:
    """Write frames uint8 [H, W, 3] of one size as they come, so that a video may be longer than memory: `.mkv`
    losslessly (FFV1), `.mp4` as H.264. Atomic. `tags`, `audio` and `options` are as in `encode.encode`.

    Raises `UsageError` for another ending or a folder that does not exist, `ValueError` if there are no frames.
    """
    path = Path(path)
    lossless = is_lossless(path)
    with atomic_path(path) as temporary:
        if not encode(file_address(temporary), frames, fps, lossless=lossless, tags=tags, audio=audio, options=options):
            raise ValueError("there are no frames to write")


def is_lossless(path: Path) -> bool:
    """Whether an output path ends in .mkv rather than .mp4. Raises `UsageError` for others, for missing
    folders and for a folder."""
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    if path.suffix.lower() not in (".mkv", ".mp4"):
        raise UsageError(f"cannot write {path}: the name has to end in .mp4 (H.264) or .mkv (lossless)")
    return path.suffix.lower() == ".mkv"


def read_video(
    path: Path | str,
    *,
    start: int = 0,
    stop: int | None = None,
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
) -> Clip:
    """Decode frames `start` (inclusive) to `stop` (exclusive, None for the end) as a player shows them.

    `crop` is (left, top, right, bottom) in pixels of the upright frame, `size` is (height, width) after resizing.
    Nothing beyond `stop` is decoded. The clip's id is the file's stem. Raises `UsageError` if the file is missing,
    damaged, interlaced, without video or too short; see docs/videos.md.
    """
    path = Path(path)
    frames: list[npt.NDArray[np.uint8]] = []
    try:
        with open_video(path) as video:
            fps = video.fps
            for frame in itertools.islice(video.frames(), start, stop):
                frames.append(_cropped(frame.rgb, crop, size, path))
    except (UnreadableVideoError, UnsupportedVideoError) as error:
        raise type(error)(f"cannot read video {path}: {error}", hint=error.hint) from None
    except OSError as error:
        raise UsageError(f"cannot read video {path}: {error.strerror or error}") from error
    if not frames or (stop is not None and len(frames) < stop - start):
        expected = f"frames {start} to {'the end' if stop is None else stop}"
        raise UsageError(f"{path.name} is too short: {expected} requested, {len(frames)} found")
    return Clip(np.stack(frames), fps, path.stem)


def _cropped(
    rgb: npt.NDArray[np.uint8], crop: tuple[int, int, int, int] | None, size: tuple[int, int] | None, path: Path
) -> npt.NDArray[np.uint8]:
    if crop is not None:
        left, top, right, bottom = crop
        height, width = rgb.shape[:2]
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise UsageError(f"{path.name}: crop {list(crop)} exceeds the {width}x{height} frame")
        rgb = rgb[top:bottom, left:right]
    return rgb if size is None else resize_frame(rgb, size)


@dataclass(frozen=True)
class VideoFile:
    """A range of frames of a video file, decoded with PyAV.

    `start`/`stop` are frame indices, `crop` is (left, top, right, bottom) in pixels of the upright frame, `size`
    is (height, width) after resizing. The manifest contains `content_sha256` of the file instead of its path.
    """

    path: Path
    content_sha256: str
    start: int = 0
    stop: int | None = None
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None

    def load(self) -> Clip:
        return read_video(self.path, start=self.start, stop=self.stop, crop=self.crop, size=self.size)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "video",
            "reader": READER,
            "sha256": self.content_sha256,
            "start": self.start,
            "stop": self.stop,
            "crop": None if self.crop is None else list(self.crop),
            "size": None if self.size is None else list(self.size),
        }
