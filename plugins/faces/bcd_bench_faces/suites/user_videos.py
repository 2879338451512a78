"""The suites over any folder of talking-head videos and photos: faces are cropped and resampled once, and cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from bcd_bench_faces.preprocess.video_folder import ENDINGS, PHOTOS, TreeVideo, list_videos, safe_ids
from bcd_bench_faces.suites.pairing import CROSS_MINIMUM, SELF_MINIMUM, PreparedVideo, cross_pairs, self_pairs
from bcd_bench_faces.suites.paper_results import CLIPS_VERSION, DEFAULT_METRICS, FPS, SEED, SIZE

__all__ = ["cross_suite", "self_suite", "training_videos"]


def cross_suite(data: Mapping[str, Path]) -> Suite:
    """Every usable video drives the face of another identity, and every photo is driven by one of another identity.

    Raises `UsageError` if no pair can be formed.
    """
    videos, notes = _usable(data, CROSS_MINIMUM, photos=True)
    moving = [video for video in videos if video.frames >= CROSS_MINIMUM]
    pairs = cross_pairs(moving, seed=SEED, photos=[video for video in videos if video.frames < CROSS_MINIMUM])
    if not pairs:
        raise _no_pairs(data["clips"], "usable videos (or photos and a video) of at least two identities", notes)
    return Suite("clips-cross", CLIPS_VERSION, tuple(pairs), SIZE, FPS, DEFAULT_METRICS, SEED, notes=tuple(notes))


def self_suite(data: Mapping[str, Path]) -> Suite:
    """The second half of every clip drives the first. Raises `UsageError` if no pair can be formed."""
    videos, notes = _usable(data, SELF_MINIMUM)
    pairs = self_pairs(videos, seed=SEED)
    if not pairs:
        raise _no_pairs(data["clips"], "usable videos of two seconds", notes)
    return Suite("clips-self", CLIPS_VERSION, tuple(pairs), SIZE, FPS, DEFAULT_METRICS, SEED, notes=tuple(notes))


def training_videos(data: Mapping[str, Path]) -> TrainingVideos:
    """The first four seconds of the usable videos of a folder. Use a different folder than the one that is scored."""
    videos, notes = _usable(data, SELF_MINIMUM)
    return TrainingVideos(tuple(video.ref(0, video.frames) for video in videos), FPS, tuple(notes))


def _no_pairs(root: Path, needed: str, notes: list[str]) -> UsageError:
    why = f"; {notes[0]}" if notes else ""
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    return UsageError(printable(f"{root} contains no valid pairs; expected {needed}, as <identity>/*.mp4{why}{more}"))


def _listed(root: Path, *, photos: bool) -> tuple[list[TreeVideo], list[str]]:
    """The videos of the folder, then its photos, and notes. Photos keep their ending in their names, so that a photo
    beside a video of the same name leaves the video's id as it is."""
    listed, notes = list_videos(root, ENDINGS)
    if photos:
        pictures, more = list_videos(root, PHOTOS)
        listed += [
            replace(picture, clip=picture.clip.removesuffix(picture.path.suffix) + picture.path.suffix)
            for picture in pictures
        ]
        notes += [note for note in more if note not in notes]
    return listed, notes


def _usable(data: Mapping[str, Path], minimum: int, *, photos: bool = False) -> tuple[list[PreparedVideo], list[str]]:
    """The usable videos, prepared, and a line for each one that is not usable or has a remark.

    With `photos`, photos are among them, as clips of one frame, whatever `minimum` says.
    """
    model = data[FACE_LANDMARKER.name]
    listed, notes = _listed(data["clips"], photos=photos)
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
            elif prepared.frames < minimum and not (photos and video.is_photo and prepared.frames == 1):
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
