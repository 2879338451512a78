"""Uncropped videos made into clips of a face, 256 x 256 at 25 fps, and kept by the content of their source."""

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
from bcd_bench.io.rgb import resize_frame
from bcd_bench.io.video import encode_lossless, read_video
from bcd_bench.run.environment import package_versions
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError, one_line
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.preprocess.crop import FaceFollower, NoCropError, square_crop
from bcd_bench_faces.preprocess.resample import frames_at, is_variable
from bcd_bench_faces.suites.pairing import CROSS_MINIMUM
from bcd_bench_faces.suites.paper_results import FPS, SIZE

if TYPE_CHECKING:
    from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker

__all__ = ["FRAMES", "PREPARATION", "FaceClip", "Preparation", "is_prepared", "prepare"]

PREPARATION = "2"
"""Raised with every change of what comes out of this module, `cropping`, `decoding` or the harness's reader; part of
the cache key."""
FRAMES = 100
"""Frames that are kept, from the start: four seconds, so that a video of any length takes the same memory."""
LOOK_EVERY = 8
"""The face is looked for in every eighth frame."""


@dataclass(frozen=True)
class Preparation:
    """What came of one video: a clip of `frames` frames, or none and the reason why not."""

    frames: int
    sha256: str = ""
    """Content hash of the clip's pixels."""
    crop: tuple[int, ...] = ()
    """Left, top, right, bottom in pixels of the upright source."""
    remarks: tuple[str, ...] = ()
    """What the user should know of a clip that is used all the same."""
    unusable: str = ""


@dataclass(frozen=True)
class FaceClip:
    """Some frames of a prepared video. Should the kept clip be gone or damaged, it is made anew from its source.

    The manifest names the source by its hash and the preparation by its version: pixels may differ by rounding between
    processors, the pairs do not.
    """

    path: Path
    content_sha256: str
    start: int
    stop: int
    model: Path | None = field(default=None, compare=False)
    """The landmarker's file; None looks the asset up."""

    def load(self) -> Clip:
        """Raises `UsageError` where the source has changed since the suite was built, or can no longer be prepared."""
        clip = _kept_clip(self.content_sha256)
        if clip is None:
            clip = self._made_anew()
        return Clip(np.ascontiguousarray(clip.frames[self.start : self.stop]), FPS, self.path.stem)

    def _made_anew(self) -> Clip:
        from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker

        if sha256_file(self.path) != self.content_sha256:
            raise UsageError(f"{self.path.name} has changed since the suite was built", hint="run again")
        made, clip = _made(self.path, FaceLandmarker(self.model))
        if clip is None or len(clip) < self.stop:
            raise UsageError(f"{self.path.name} can no longer be prepared: {made.unusable or 'it is shorter now'}")
        with contextlib.suppress(OSError):  # only a cache: without it the clip is made again next time
            _keep(self.content_sha256, made, clip)
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
    """Whether `prepare` would find what it once made."""
    return _kept(content_sha256) is not None


def prepare(path: Path, content_sha256: str, landmarker: Callable[[], FaceLandmarker]) -> Preparation:
    """Find the face, crop, resample and keep a video, or find what was made of it before; `landmarker` is called only
    where there is work. Raises `OSError` where the source cannot be read, `UsageError` where the cache cannot be
    written.
    """
    kept = _kept(content_sha256)
    if kept is not None:
        return kept
    finder = landmarker()
    try:
        made, clip = _made(path, finder)
    except UnsupportedVideoError as error:  # another PyAV may read it, so it is not remembered
        return Preparation(0, unusable=str(error))
    except (ValueError, RuntimeError) as error:  # of a library: perhaps not the file's fault, so not remembered
        return Preparation(0, unusable=f"cannot be prepared: {one_line(error, place=False)}")
    try:
        _keep(content_sha256, made, clip)
    except OSError as error:
        text = f"cannot write {_place(content_sha256).parent}: {error.strerror or error}"
        raise UsageError(text, hint="export BCD_BENCH_HOME=FOLDER") from error
    return made


def _place(content_sha256: str) -> Path:
    """Where a clip and what is known of it are kept, without their endings."""
    key = hash_json([content_sha256, PREPARATION, FACE_LANDMARKER.sha256])
    return cache_folder() / "clips" / key[:2] / key


def _keep(content_sha256: str, made: Preparation, clip: Clip | None) -> None:
    place = _place(content_sha256)
    place.parent.mkdir(parents=True, exist_ok=True)
    if clip is not None:
        write_bytes_atomic(place.with_suffix(".mkv"), encode_lossless(clip))
    noted = asdict(made) | {"av": package_versions().get("av", "")}
    write_json_atomic(place.with_suffix(".json"), noted)  # last: it says that the clip is there


def _kept(content_sha256: str) -> Preparation | None:
    """What was noted of a video, if it is whole; the clip's pixels are checked when they are loaded."""
    place = _place(content_sha256)
    try:
        noted = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        made = Preparation(
            int(noted["frames"]),
            str(noted["sha256"]),
            tuple(int(edge) for edge in noted["crop"]),
            tuple(str(remark) for remark in noted["remarks"]),
            str(noted["unusable"]),
        )
        decided = made.unusable == "" or noted["av"] == package_versions().get("av", "")
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there yet, or damaged: made anew
    if not decided:  # another PyAV may be able to read it
        return None
    return made if made.unusable or place.with_suffix(".mkv").is_file() else None


def _kept_clip(content_sha256: str) -> Clip | None:
    made = _kept(content_sha256)
    if made is None or made.unusable:
        return None
    try:
        clip = read_video(_place(content_sha256).with_suffix(".mkv"))
    except UsageError:
        return None  # damaged: made anew
    return clip if clip.sha256 == made.sha256 else None


def _made(path: Path, landmarker: FaceLandmarker) -> tuple[Preparation, Clip | None]:
    """Two passes over the first seconds, so that only small frames are ever kept in memory."""
    follower, steps, length = FaceFollower(landmarker), list[float](), 0
    try:
        height = width = 0
        for shown in frames_at(path, FPS, FRAMES, steps):
            if length % LOOK_EVERY == 0:
                height, width = shown.rgb.shape[:2]
                follower.look(shown.rgb)
            length += 1
        if length < CROSS_MINIMUM:
            return Preparation(
                length, unusable=f"too short ({length} of {CROSS_MINIMUM} frames at 25 per second)"
            ), None
        left, top, right, bottom = square_crop(follower, height, width)
        small: list[Any] = []
        last = None
        for shown in frames_at(path, FPS, FRAMES):
            if shown is not last:
                face = resize_frame(shown.rgb[top:bottom, left:right], SIZE)
            small.append(face)
            last = shown
    except (UnreadableVideoError, NoCropError) as error:  # what the content proves, whoever reads it
        return Preparation(0, unusable=str(error)), None
    clip = Clip(np.stack(small), FPS, path.stem)
    remarks = []
    if follower.crowded:
        remarks.append("a second face is seen; the largest is kept")
    if is_variable(steps):
        remarks.append("variable frame rate; resampled by its time stamps")
    return Preparation(len(clip), clip.sha256, (left, top, right, bottom), tuple(remarks)), clip
