"""Convert uncropped videos to clips of a face, 256 x 256 at 25 fps, cached by the content of their source."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bcd_bench.assets.hashing import hash_json, sha256_file
from bcd_bench.assets.store import cache_folder
from bcd_bench.io.atomic import write_bytes_atomic, write_json_atomic
from bcd_bench.io.decode import open_video
from bcd_bench.io.resample import frames_at, is_variable
from bcd_bench.io.rgb import resize_frame
from bcd_bench.io.video import encode_lossless, read_video
from bcd_bench.run.environment import package_versions
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError, one_line
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.preprocess.crop import CROWDED, FaceFollower, NoCropError, square_crop
from bcd_bench_faces.suites.pairing import CROSS_MINIMUM
from bcd_bench_faces.suites.paper_results import FPS, SIZE

if TYPE_CHECKING:
    from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker

__all__ = ["FRAMES", "PREPARATION", "FaceClip", "Preparation", "is_prepared", "prepare"]

PREPARATION = "2"
"""Bump when the output of this module, `crop`, `resample` or the harness's reader changes; part of the cache key."""
FRAMES = 100
"""Frames to keep, from the start: four seconds, so that a video of any length takes the same memory."""


@dataclass(frozen=True)
class Preparation:
    """Result for one video: a clip of `frames` frames, or the reason why it is unusable."""

    frames: int
    sha256: str = ""
    """Content hash of the clip's pixels."""
    crop: tuple[int, ...] = ()
    """Left, top, right, bottom in pixels of the upright source."""
    remarks: tuple[str, ...] = ()
    """Notes for the user about a clip that is used nevertheless."""
    unusable: str = ""


@dataclass(frozen=True)
class FaceClip:
    """Some frames of a prepared video. If the cached clip is missing or damaged, it is recomputed from its source.

    The manifest identifies the source by its hash and the preparation by its version: pixels may differ by rounding
    between processors, the pairs do not.
    """

    path: Path
    content_sha256: str
    start: int
    stop: int
    model: Path | None = field(default=None, compare=False)
    """Path of the landmarker; None: look up the asset."""

    def load(self) -> Clip:
        """Raises `UsageError` if the source has changed since the suite was built, or can no longer be prepared."""
        clip = _kept_clip(self.content_sha256)
        if clip is None:
            clip = self._made_anew()
        return Clip(np.ascontiguousarray(clip.frames[self.start : self.stop]), FPS, self.path.stem)

    def _made_anew(self) -> Clip:
        from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker

        if sha256_file(self.path) != self.content_sha256:
            raise UsageError(f"{self.path.name} has changed since the suite was built", hint="rerun the command")
        preparation, clip = _made(self.path, FaceLandmarker(self.model))
        if clip is None or len(clip) < self.stop:
            reason = preparation.unusable or "the file is now too short"
            raise UsageError(f"{self.path.name} can no longer be preprocessed: {reason}")
        with contextlib.suppress(OSError):  # only a cache: without it the clip is recomputed next time
            _keep(self.content_sha256, preparation, clip)
        return clip

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "face",
            "sha256": self.content_sha256,
            "preparation": PREPARATION,
            "landmarker": FACE_LANDMARKER.sha256,
            "start": self.start,
            "stop": self.stop,
        }


def is_prepared(content_sha256: str) -> bool:
    """Whether `prepare` has a cached result."""
    return _kept(content_sha256) is not None


def prepare(path: Path, content_sha256: str, landmarker: Callable[[], FaceLandmarker]) -> Preparation:
    """Find the face, crop, resample and cache a video, or return the cached result; `landmarker` is called only if
    needed. Raises `OSError` if the source cannot be read, `UsageError` if the cache cannot be written.
    """
    cached = _kept(content_sha256)
    if cached is not None:
        return cached
    finder = landmarker()
    try:
        result, clip = _made(path, finder)
    except UnsupportedVideoError as error:  # another PyAV version may read it, so it is not cached
        return Preparation(0, unusable=str(error))
    except (ValueError, RuntimeError) as error:  # from a library, possibly not due to the file, so not cached
        return Preparation(0, unusable=f"cannot be preprocessed: {one_line(error, place=False)}")
    try:
        _keep(content_sha256, result, clip)
    except OSError as error:
        text = f"cannot write {_place(content_sha256).parent}: {error.strerror or error}"
        raise UsageError(text, hint="set another folder with export BCD_BENCH_HOME=FOLDER") from error
    return result


def _place(content_sha256: str) -> Path:
    """Path of a cached clip and its metadata, without suffix."""
    key = hash_json([content_sha256, PREPARATION, FACE_LANDMARKER.sha256])
    return cache_folder() / "clips" / key[:2] / key


def _keep(content_sha256: str, made: Preparation, clip: Clip | None) -> None:
    base = _place(content_sha256)
    base.parent.mkdir(parents=True, exist_ok=True)
    if clip is not None:
        write_bytes_atomic(base.with_suffix(".mkv"), encode_lossless(clip))
    record = asdict(made) | {"av": package_versions().get("av", "")}
    write_json_atomic(base.with_suffix(".json"), record)  # last: marks the clip as complete


def _kept(content_sha256: str) -> Preparation | None:
    """The cached result for a video, if complete; the clip's pixels are checked when they are loaded."""
    base = _place(content_sha256)
    try:
        record = json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
        result = Preparation(
            int(record["frames"]),
            str(record["sha256"]),
            tuple(int(edge) for edge in record["crop"]),
            tuple(str(remark) for remark in record["remarks"]),
            str(record["unusable"]),
        )
        current = result.unusable == "" or record["av"] == package_versions().get("av", "")
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: recompute
    if not current:  # another PyAV version may be able to read it
        return None
    return result if result.unusable or base.with_suffix(".mkv").is_file() else None


def _kept_clip(content_sha256: str) -> Clip | None:
    cached = _kept(content_sha256)
    if cached is None or cached.unusable:
        return None
    try:
        clip = read_video(_place(content_sha256).with_suffix(".mkv"))
    except UsageError:
        return None  # damaged: recompute
    return clip if clip.sha256 == cached.sha256 else None


def _made(path: Path, landmarker: FaceLandmarker) -> tuple[Preparation, Clip | None]:
    """Two passes over the first seconds, so that only small frames are in memory. A photo is a clip of one frame."""
    follower, steps = FaceFollower(landmarker), list[float]()
    try:
        with open_video(path) as video:
            photo = video.is_picture
        count = 1 if photo else FRAMES
        length, (height, width) = follower.follow(frames_at(path, FPS, count, steps))
        if length < CROSS_MINIMUM and not photo:
            return Preparation(
                length, unusable=f"too short ({length} of {CROSS_MINIMUM} frames at 25 per second)"
            ), None
        left, top, right, bottom = square_crop(follower, height, width)
        small: list[Any] = []
        last = None
        for image in frames_at(path, FPS, count):
            if image is not last:
                face = resize_frame(image.rgb[top:bottom, left:right], SIZE)
            small.append(face)
            last = image
    except (UnreadableVideoError, NoCropError) as error:  # determined by the content, independent of the reader
        return Preparation(0, unusable=str(error)), None
    clip = Clip(np.stack(small), FPS, path.stem)
    remarks = []
    if follower.crowded:
        remarks.append(CROWDED)
    if is_variable(steps):
        remarks.append("variable frame rate; resampled by its time stamps")
    return Preparation(len(clip), clip.sha256, (left, top, right, bottom), tuple(remarks)), clip
