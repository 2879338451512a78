"""Which file in a folder is the video of which pair, by name alone."""

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
"""File names of videos end so, in capitals or not."""
SHOWN = 3
"""Names that are shown in messages."""


@dataclass
class Listing:
    """What lies in a folder of videos: name -> its videos, and name -> links to videos that lead out of the folder."""

    videos: dict[str, list[Path]] = field(default_factory=dict)
    outside: dict[str, list[Path]] = field(default_factory=dict)


def list_videos(folder: Path) -> Listing:
    """The videos `<name>.<a suffix of VIDEOS>` and folders of frames `<name>` right in `folder`.

    Hidden entries are left out. A link that leads out of the folder (or a folder of frames that holds one) is in
    `outside`, unless the user allows such links (`links.follows_links`), so that nothing else is ever read.
    Pipes and devices, which could be waited for without end, are left out too. Raises `UsageError` if the folder cannot
    be read.
    """
    found = Listing()
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
            closed = not follow and any(leads_outside(one, root) for one in (path, *frames))
            (found.outside if closed else found.videos).setdefault(name, []).append(path)
    except OSError as error:
        raise UsageError(f"folder of videos {folder}: {error.strerror}", hint="--set path=FOLDER") from None
    return found


def match_videos(folder: Path, pair_ids: Sequence[str]) -> dict[str, Path]:
    """Pair id -> its video, for the pairs that have one.

    Raises `UsageError` where the folder cannot be read, where two videos are of one pair, and where none is of any.
    """
    listing = list_videos(folder)
    videos = listing.videos
    found = {pair_id: videos[pair_id] for pair_id in pair_ids if pair_id in videos}
    for pair_id, paths in found.items():
        if len(paths) > 1:
            raise UsageError(f"{folder} has {len(paths)} videos of pair {pair_id}: {_names(paths)}")
    closed = [path for pair_id in pair_ids for path in listing.outside.get(pair_id, [])]
    if not found and closed:
        links = "1 link leads" if len(closed) == 1 else f"{len(closed)} links lead"
        raise UsageError(
            printable(f"{folder}: {links} out of the folder and would have to be followed: {_names(closed)}"),
            hint=FOLLOW_HINT,
        )
    if not found:
        others = [path for paths in videos.values() for path in paths]
        has = f"{len(others)} of other names, such as {_names(others)}" if others else "none at all"
        first = pair_ids[0]
        raise UsageError(
            printable(f"no video in {folder} is named after a pair: {first}.mp4 or {first}/000000.png is expected for "
                      f"the first of {len(pair_ids)}, and there are {has}"),
            hint="bcd-bench export --suite S --out DIR writes a suite's clips and the names of its outputs",
        )  # fmt: skip
    return {pair_id: paths[0] for pair_id, paths in found.items()}


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:SHOWN])


def content_sha256(videos: Mapping[str, Path]) -> str:
    """One hash over the bytes of all these videos, by pair id; where they lie does not matter."""
    hashes = FileHashes(cache_folder() / "clips")
    try:
        return hash_json({pair_id: _sha256(path, hashes) for pair_id, path in videos.items()})
    finally:
        hashes.save()


def _sha256(path: Path, hashes: FileHashes) -> str | dict[str, str]:
    """Of a file, or by name of the frames in a folder; "" for what cannot be read, which fails its pair later."""
    try:
        if path.is_dir():
            return {frame.name: hashes.of(frame) for frame in list_frames(path)}
        return hashes.of(path)
    except OSError:
        return ""
