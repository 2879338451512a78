"""The suites over any folder of talking-head videos: faces are found, cropped and resampled once, and cached."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from bcd_bench.assets.store import FileHashes, cache_folder
from bcd_bench.plugin.specs import TrainingVideos
from bcd_bench.types.clip import ClipSource
from bcd_bench.types.errors import UsageError, printable
from bcd_bench.types.suite import Suite
from bcd_bench.util.progress import NoProgress, open_progress
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker
from bcd_bench_faces.preprocess.pipeline import FaceClip, is_prepared, prepare
from bcd_bench_faces.preprocess.video_folder import TreeVideo, list_videos, safe_ids
from bcd_bench_faces.suites.pairing import CROSS_MINIMUM, SELF_MINIMUM, PreparedVideo, cross_pairs, self_pairs
from bcd_bench_faces.suites.paper_results import CLIPS_VERSION, DEFAULT_METRICS, FPS, SEED, SIZE

__all__ = ["cross_suite", "self_suite", "training_videos"]


def cross_suite(data: Mapping[str, Path]) -> Suite:
    """Every usable video drives the face of another identity. Raises `UsageError` if no pair can be formed."""
    videos, notes = _videos(data, CROSS_MINIMUM)
    pairs = cross_pairs(videos, seed=SEED)
    if not pairs:
        raise _no_pairs(data["clips"], "usable videos of at least two identities", notes)
    return Suite("clips-cross", CLIPS_VERSION, tuple(pairs), SIZE, FPS, DEFAULT_METRICS, SEED, notes=tuple(notes))


def self_suite(data: Mapping[str, Path]) -> Suite:
    """The second half of every clip drives the first. Raises `UsageError` if no pair can be formed."""
    videos, notes = _videos(data, SELF_MINIMUM)
    pairs = self_pairs(videos, seed=SEED)
    if not pairs:
        raise _no_pairs(data["clips"], "usable videos of two seconds", notes)
    return Suite("clips-self", CLIPS_VERSION, tuple(pairs), SIZE, FPS, DEFAULT_METRICS, SEED, notes=tuple(notes))


def training_videos(data: Mapping[str, Path]) -> TrainingVideos:
    """The first four seconds of the usable videos of a folder. Use a different folder than the one that is scored."""
    videos, notes = _videos(data, SELF_MINIMUM)
    return TrainingVideos(tuple(video.ref(0, video.frames) for video in videos), FPS, tuple(notes))


def _no_pairs(root: Path, needed: str, notes: list[str]) -> UsageError:
    why = f"; {notes[0]}" if notes else ""
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    return UsageError(printable(f"{root} contains no valid pairs; expected {needed}, as <identity>/*.mp4{why}{more}"))


def _videos(data: Mapping[str, Path], minimum: int) -> tuple[list[PreparedVideo], list[str]]:
    """The usable videos, prepared, and a line for each one that is not usable or has a remark."""
    model = data[FACE_LANDMARKER.name]
    listed, notes = list_videos(data["clips"])
    hashed = _hashed(listed, notes)
    landmarker = lru_cache(maxsize=1)(lambda: FaceLandmarker(model))
    work = sum(not is_prepared(sha256) for _, _, sha256 in hashed)
    usable = []
    progress = open_progress() if work else NoProgress()
    with progress.task("prepare", total=work, unit="videos") as task:
        for video, clip_id, sha256 in hashed:
            new = not is_prepared(sha256)
            try:
                prepared = prepare(video.path, sha256, landmarker)
            except OSError as error:
                notes.append(f"{video.name}: left out: cannot be read ({error.strerror or error})")
                continue
            finally:
                task.advance(new)
            if prepared.unusable:
                notes.append(f"{video.name}: left out: {prepared.unusable}")
            elif prepared.frames < minimum:
                notes.append(
                    f"{video.name}: left out: too short ({prepared.frames} of {minimum} frames at 25 per second)"
                )
            else:
                notes += [f"{video.name}: {remark}" for remark in prepared.remarks]
                usable.append(_prepared(video, clip_id, sha256, prepared.frames, model))
    return usable, notes


def _hashed(listed: list[TreeVideo], notes: list[str]) -> list[tuple[TreeVideo, str, str]]:
    """(video, id, content hash) of every readable file; hashes of unchanged files come from the hash cache."""
    hashes, hashed = FileHashes(cache_folder() / "clips"), []
    try:
        for video, clip_id in zip(listed, safe_ids(listed), strict=True):
            try:
                hashed.append((video, clip_id, hashes.of(video.path)))
            except OSError as error:
                notes.append(f"{video.name}: left out: cannot be read ({error.strerror or error})")
    finally:
        hashes.save()
    return hashed


def _prepared(video: TreeVideo, clip_id: str, sha256: str, frames: int, model: Path) -> PreparedVideo:
    def part(start: int, stop: int) -> ClipSource:
        return FaceClip(video.path, sha256, start, stop, model)

    return PreparedVideo(clip_id, video.identity, video.name, frames, part)
