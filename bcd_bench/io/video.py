"""Writing clips as lossless FFV1 whose bytes depend only on the frames, and reading clips from video files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.atomic import atomic_path, write_bytes_atomic
from bcd_bench.io.decode import open_video
from bcd_bench.io.rgb import resize_frame
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError

if TYPE_CHECKING:
    import av

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

PIXELS = "bgr0"
"""8-bit RGB layout of FFV1: blue, green, red and an unused byte. No colour conversion, hence lossless."""
SMALL = 128 * 128
"""Area in pixels up to which a frame is one slice (smallest file); larger frames have four slices, one per thread."""


def _rate(fps: float) -> Fraction:
    """Frame rate as a fraction that a container can store: 29.97 becomes 30000/1001."""
    for denominator in (1, 1001):
        rate = Fraction(round(fps * denominator), denominator)
        if abs(float(rate) - fps) < 1e-6 * fps:
            return rate
    rate = Fraction(fps).limit_denominator(100_000)
    if rate <= 0:
        raise ValueError(f"a video file cannot store {fps} frames per second")
    return rate


def _to_bgr0(rgb: npt.NDArray[np.uint8]) -> av.VideoFrame:
    import av

    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, PIXELS)
    plane = frame.planes[0]
    rows = np.zeros((height, plane.line_size // 4, 4), np.uint8)
    rows[:, :width, :3] = rgb[..., ::-1]
    plane.update(rows.tobytes())
    return frame


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
    _encode(buffer, clip.frames, clip.fps, lossless=True)
    return buffer.getvalue()


def _encode(target: Any, frames: Iterable[npt.NDArray[np.uint8]], fps: float, *, lossless: bool) -> int:
    """Encode frames uint8 [H, W, 3] of one size into `target`, a binary file: FFV1 in Matroska, or H.264 in MP4 with
    the last row and column repeated if a side is odd (4:2:0). Returns the number of frames."""
    import av

    form, options = ("matroska", {"fflags": "+bitexact"}) if lossless else ("mp4", {})
    count = 0
    with av.open(target, "w", format=form, options=options) as container:
        stream: Any = container.add_stream("ffv1" if lossless else "libx264", rate=_rate(fps))
        stream.pix_fmt = PIXELS if lossless else "yuv420p"
        for rgb in frames:
            height, width = rgb.shape[:2]
            if not lossless:
                rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if count == 0:
                stream.height, stream.width = rgb.shape[:2]
                if lossless:
                    codec = stream.codec_context
                    codec.flags |= int(av.codec.context.Flags.bitexact)
                    codec.thread_count = 1
                    codec.options = {"level": "3", "slicecrc": "1", "slices": "1" if height * width <= SMALL else "4"}
            frame = _to_bgr0(rgb) if lossless else av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            frame.pts = count
            count += 1
            container.mux(stream.encode(frame))
        if count:
            container.mux(stream.encode(None))
    return count


def write_video_lossless(path: Path, clip: Clip) -> None:
    """Write `clip` to `path` (.mkv) losslessly and atomically. Raises `OSError` if writing fails."""
    write_bytes_atomic(path, encode_lossless(clip))


def write_preview(path: Path, clip: Clip, *, scale: int = 1) -> None:
    """Write an H.264 preview (.mp4) for viewing: lossy, enlarged `scale` times by repeating pixels, atomic."""
    buffer = io.BytesIO()
    _encode(buffer, clip.frames.repeat(scale, axis=1).repeat(scale, axis=2), clip.fps, lossless=False)
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


def save_frames(path: Path | str, frames: Iterable[npt.NDArray[np.uint8]], fps: float) -> None:
    """Write frames uint8 [H, W, 3] of one size as they come, so that a video may be longer than memory: `.mkv`
    losslessly (FFV1), `.mp4` as H.264. Atomic.

    Raises `UsageError` for another ending or a folder that does not exist, `ValueError` if there are no frames.
    """
    path = Path(path)
    lossless = is_lossless(path)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if not _encode(file, frames, fps, lossless=lossless):
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
