"""Which file in a folder is the video of which pair, by name alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bcd_bench.assets import FileHashes, cache_folder
from bcd_bench.errors import UsageError, printable
from bcd_bench.frames import list_frames
from bcd_bench.identity import hash_json

__all__ = ["VIDEOS", "content_sha256", "list_videos", "match_videos"]

VIDEOS = (".mkv", ".mp4", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".y4m", ".gif")
"""File names of videos end so, in capitals or not."""
SHOWN = 3
"""Names that are shown in messages."""


def list_videos(folder: Path) -> dict[str, list[Path]]:
    """Name -> the videos `<name>.<a suffix of VIDEOS>` and folders `<name>` right in `folder`.

    Hidden entries are left out, and so are links that lead out of the folder, so that nothing outside is ever read, and
    pipes and devices, which could be waited for without end.
    Raises `UsageError` where the folder cannot be read.
    """
    found: dict[str, list[Path]] = {}
    try:
        root = folder.resolve(strict=True)
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or (path.is_symlink() and not path.resolve().is_relative_to(root)):
                continue
            if path.is_dir():
                found.setdefault(path.name, []).append(path)
            elif path.suffix.lower() in VIDEOS and (path.is_file() or not path.exists()):
                found.setdefault(path.stem, []).append(path)
    except OSError as error:
        raise UsageError(f"folder of videos {folder}: {error.strerror}", hint="--config path=FOLDER") from None
    return found


def match_videos(folder: Path, pair_ids: Sequence[str]) -> dict[str, Path]:
    """Pair id -> its video, for the pairs that have one.

    Raises `UsageError` where the folder cannot be read, where two videos are of one pair, and where none is of any.
    """
    videos = list_videos(folder)
    found = {pair_id: videos[pair_id] for pair_id in pair_ids if pair_id in videos}
    for pair_id, paths in found.items():
        if len(paths) > 1:
            raise UsageError(f"{folder} has {len(paths)} videos of pair {pair_id}: {_names(paths)}")
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
