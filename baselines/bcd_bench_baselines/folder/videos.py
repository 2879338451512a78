"""Matches the files in a folder to pairs, by name alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bcd_bench.assets.hashing import hash_json
from bcd_bench.assets.store import FileHashes, cache_folder
from bcd_bench.io.image_sequence import list_frames
from bcd_bench.io.links import FOLLOW_HINT, follows_links, leads_outside
from bcd_bench.types.errors import UsageError, printable

__all__ = ["VIDEOS", "Listing", "content_sha256", "list_videos", "match_videos"]

VIDEOS = (".mkv", ".mp4", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".y4m", ".gif")
"""File name suffixes of videos, in any case."""
SHOWN = 3
"""Number of names shown in messages."""


@dataclass
class Listing:
    """The contents of a folder of videos: name -> its videos, and name -> links to videos outside the folder."""

    videos: dict[str, list[Path]] = field(default_factory=dict)
    outside: dict[str, list[Path]] = field(default_factory=dict)


def list_videos(folder: Path) -> Listing:
    """The videos `<name>.<a suffix of VIDEOS>` and folders of frames `<name>` directly in `folder`.

    Hidden entries are skipped. A link that points outside the folder (or a folder of frames that contains one) is put
    into `outside`, unless the user allows such links (`links.follows_links`), so that nothing else is ever read. Pipes
    and devices, which could block forever, are skipped too. Raises `UsageError` if the folder cannot be read.
    """
    listing = Listing()
    follow = follows_links()
    try:
        root = folder.resolve(strict=True)
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            frames = list_frames(path) if path.is_dir() and not leads_outside(path, root) else []
            name = path.name if path.is_dir() else path.stem
            if not path.is_dir() and (path.suffix.lower() not in VIDEOS or (path.exists() and not path.is_file())):
                continue
            closed = not follow and any(leads_outside(entry, root) for entry in (path, *frames))
            (listing.outside if closed else listing.videos).setdefault(name, []).append(path)
    except OSError as error:
        raise UsageError(f"folder of videos {folder}: {error.strerror}", hint="--set path=FOLDER") from None
    return listing


def match_videos(folder: Path, pair_ids: Sequence[str]) -> dict[str, Path]:
    """Pair id -> its video, for the pairs that have one.

    Raises `UsageError` if the folder cannot be read, if a pair has two videos, and if no pair has one.
    """
    listing = list_videos(folder)
    videos = listing.videos
    matches = {pair_id: videos[pair_id] for pair_id in pair_ids if pair_id in videos}
    for pair_id, paths in matches.items():
        if len(paths) > 1:
            raise UsageError(f"{folder} contains {len(paths)} videos of pair {pair_id}: {_names(paths)}")
    closed = [path for pair_id in pair_ids for path in listing.outside.get(pair_id, [])]
    if not matches and closed:
        links = "1 link points" if len(closed) == 1 else f"{len(closed)} links point"
        raise UsageError(
            printable(f"{folder}: {links} outside the folder and must be followed explicitly: {_names(closed)}"),
            hint=FOLLOW_HINT,
        )
    if not matches:
        other_videos = [path for paths in videos.values() for path in paths]
        has = f"{len(other_videos)} with other names, such as {_names(other_videos)}" if other_videos else "no videos"
        first = pair_ids[0]
        raise UsageError(
            printable(f"no video in {folder} is named after a pair: expected {first}.mp4 or {first}/000000.png for "
                      f"the first of {len(pair_ids)} pairs, found {has}"),
            hint="bcd-bench export --suite S --out DIR writes the clips of a suite and the names of its outputs",
        )  # fmt: skip
    return {pair_id: paths[0] for pair_id, paths in matches.items()}


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:SHOWN])


def content_sha256(videos: Mapping[str, Path]) -> str:
    """One hash over the bytes of all these videos, by pair id and independent of their location."""
    hashes = FileHashes(cache_folder() / "clips")
    try:
        return hash_json({pair_id: _sha256(path, hashes) for pair_id, path in videos.items()})
    finally:
        hashes.save()


def _sha256(path: Path, hashes: FileHashes) -> str | dict[str, str]:
    """Hash of a file, or hashes by name of the frames in a folder; "" for unreadable ones, whose pairs fail later."""
    try:
        if path.is_dir():
            return {frame.name: hashes.of(frame) for frame in list_frames(path)}
        return hashes.of(path)
    except OSError:
        return ""
