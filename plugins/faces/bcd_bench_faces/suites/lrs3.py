"""The suites over LRS3 (Afouras et al. 2018), for users who have a copy: face crops of 224 x 224 at 25 fps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from bcd_bench.assets.store import FileHashes, cache_folder
from bcd_bench.io.decode import open_video
from bcd_bench.io.video import VideoFile
from bcd_bench.plugin.specs import TrainingVideos
from bcd_bench.types.clip import ClipRef, ClipSource
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError, printable
from bcd_bench.types.suite import Suite
from bcd_bench_faces.preprocess.video_folder import TreeVideo, list_videos, safe_ids
from bcd_bench_faces.suites.pairing import CROSS_MINIMUM, SELF_MINIMUM, PreparedVideo, cross_pairs, self_pairs
from bcd_bench_faces.suites.paper_results import DEFAULT_METRICS, FPS, LRS3_VERSION, SEED, SIZE

__all__ = [
    "cross_content1",
    "cross_content5",
    "cross_content15",
    "cross_content20",
    "cross_suite",
    "self_suite",
    "training_videos",
]

LONGEST = 250
"""Maximum number of frames used of a clip: ten seconds, longer than any LRS3 test clip, to bound the memory."""
LONGEST_TRAINING = 1500
"""As `LONGEST`, for training clips: a minute."""
SPLITS = ("test", "trainval", "pretrain")


def cross_suite(data: Mapping[str, Path], *, content_frames: int | None = None) -> Suite:
    """Every clip of the tree drives the face of another speaker. Raises `UsageError` if no pair can be formed."""
    videos, notes = _videos(data["lrs3"], CROSS_MINIMUM)
    pairs = cross_pairs(videos, seed=SEED, content_frames=content_frames)
    if not pairs:
        raise _no_pairs(data["lrs3"], "clips of at least two speakers", notes)
    name = "lrs3-cross" if content_frames is None else f"lrs3-cross-content{content_frames}"
    return Suite(name, LRS3_VERSION, tuple(pairs), SIZE, FPS, DEFAULT_METRICS, SEED, notes=tuple(notes))


cross_content1 = partial(cross_suite, content_frames=1)
cross_content5 = partial(cross_suite, content_frames=5)
cross_content15 = partial(cross_suite, content_frames=15)
cross_content20 = partial(cross_suite, content_frames=20)


def self_suite(data: Mapping[str, Path]) -> Suite:
    """The second half of every clip drives the first. Raises `UsageError` if no pair can be formed."""
    videos, notes = _videos(data["lrs3"], SELF_MINIMUM)
    pairs = self_pairs(videos, seed=SEED)
    if not pairs:
        raise _no_pairs(data["lrs3"], f"a clip of at least {SELF_MINIMUM} frames", notes)
    return Suite("lrs3-self", LRS3_VERSION, tuple(pairs), SIZE, FPS, DEFAULT_METRICS, SEED, notes=tuple(notes))


def _no_pairs(root: Path, needed: str, notes: list[str]) -> UsageError:
    why = f"; {notes[0]}" if notes else ""
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    return UsageError(
        printable(f"{root} contains no valid pairs; expected {needed}, as test/<speaker>/<clip>.mp4{why}{more}")
    )


def _videos(root: Path, minimum: int) -> tuple[list[PreparedVideo], list[str]]:
    """The usable clips of `test/<speaker>/<clip>.mp4`, or of `<speaker>/<clip>.mp4`, and a line for each skipped
    one."""
    splits = [split for split in SPLITS if (root / split).is_dir()]
    if splits and "test" not in splits:
        raise UsageError(f"{root} has {' and '.join(splits)} but no test folder; the suite uses LRS3's test clips")
    return _usable_in(root / "test" if splits else root, minimum, LONGEST)


def training_videos(data: Mapping[str, Path]) -> TrainingVideos:
    """The clips of `trainval` and `pretrain`, never those of `test`. Raises `UsageError` if neither folder exists."""
    root = data["lrs3"]
    splits = [split for split in SPLITS[1:] if (root / split).is_dir()]
    if not splits:
        raise UsageError(f"{root} has no training data: neither a trainval nor a pretrain folder")
    refs, notes = list[ClipRef](), list[str]()
    for split in splits:
        videos, left_out = _usable_in(root / split, SELF_MINIMUM, LONGEST_TRAINING)
        for video in videos:
            ref = video.ref(0, video.frames)
            refs.append(replace(ref, id=f"{split}-{ref.id}"))
        notes += [f"{split}/{note}" for note in left_out]
    return TrainingVideos(tuple(refs), FPS, tuple(notes))


def _usable_in(folder: Path, minimum: int, longest: int) -> tuple[list[PreparedVideo], list[str]]:
    listed, notes = list_videos(folder, (".mp4",))
    hashes = FileHashes(cache_folder() / "clips")
    usable = []
    try:
        for video, clip_id in zip(listed, safe_ids(listed), strict=True):
            try:
                usable.append(_usable(video, clip_id, minimum, longest, hashes))
            except (OSError, ValueError, UnreadableVideoError, UnsupportedVideoError) as error:
                reason = getattr(error, "strerror", None) or error
                notes.append(f"{video.name}: left out: {reason}")
    finally:
        hashes.save()
    return usable, notes


def _usable(video: TreeVideo, clip_id: str, minimum: int, longest: int, hashes: FileHashes) -> PreparedVideo:
    """Check a clip. Raises `ValueError` or an error of `open_video` with the reason if it cannot be used."""
    frames = min(_frames(video.path), longest)
    if frames < minimum:
        raise ValueError(f"too short ({frames} of {minimum} frames)")
    sha256 = hashes.of(video.path)

    def part(start: int, stop: int) -> ClipSource:
        return VideoFile(video.path, sha256, start, stop, size=SIZE)

    return PreparedVideo(clip_id, video.identity, video.name, frames, part)


def _frames(path: Path) -> int:
    """Number of coded frames in the file; only the first is decoded. Raises `UnreadableVideoError` if the content is
    not a video, `ValueError` for anything but a face crop of LRS3, and `OSError`.
    """
    with open_video(path) as video:
        if abs(video.fps - FPS) > 0.01:
            raise ValueError(f"{video.fps:.5g} frames per second, not 25; clips-cross accepts videos of any rate")
        first = next(video.frames(), None)
        if first is None:
            raise ValueError("no frame can be decoded")
        height, width = first.size
        if width != height:
            raise ValueError(f"{width} x {height} pixels is not a face crop; clips-cross crops faces itself")
    with open_video(path) as video:
        return video.coded_frames()
