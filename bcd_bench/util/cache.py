"""Size of the cache folder, and deleting what was used longest ago.

Cached features and prepared clips are recomputed if they are absent, so any of them may be deleted at any time, also
while other processes read and write.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bcd_bench.types.errors import UsageError
from bcd_bench.util.locking import LockedError, locked

__all__ = [
    "KINDS",
    "LIMIT_VARIABLE",
    "CacheLimit",
    "CachedFile",
    "cached_files",
    "limit_from_environment",
    "parse_size",
    "prune",
]

KINDS = ("features", "clips", "sprites")
"""The folders in the cache folder whose files may be deleted. Assets are not among them: a user added them."""
SUFFIXES = (".npz", ".mkv", ".json", ".part")
LIMIT_VARIABLE = "BCD_BENCH_CACHE_LIMIT"
DAY = 86400.0
HEADROOM = 0.9
"""If a limit is exceeded, files are deleted until this fraction of it is left, so that it is not exceeded at once."""
STEP = 0.05
"""A process looks at the size of the cache after it has written this fraction of the limit."""


@dataclass(frozen=True)
class CachedFile:
    """A file, its size in bytes, and when it was last read or written, in seconds since 1970.

    Most systems update the time of reading once a day; if they do not record it, that of writing counts.
    """

    path: Path
    size: int
    used: float


def cached_files(home: Path, kinds: Iterable[str] = KINDS) -> Iterator[CachedFile]:
    """The files of these kinds in the cache folder, except tables of hashes (`verified.json`). Links are ignored, and
    so are files that cannot come from bcd-bench."""
    for kind in kinds:
        yield from _files_below(home / kind)


def _files_below(folder: Path) -> Iterator[CachedFile]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) and entry.name.endswith(SUFFIXES) and entry.name != "verified.json":
            with contextlib.suppress(FileNotFoundError):  # another process deleted it
                status = entry.stat(follow_symlinks=False)
                yield CachedFile(Path(entry.path), status.st_size, max(status.st_atime, status.st_mtime))


def prune(
    files: Iterable[CachedFile],
    *,
    max_size: float | None = None,
    unused_days: float | None = None,
    dry_run: bool = False,
) -> list[CachedFile]:
    """Delete files that were not used for `unused_days`, then those used longest ago until at most `max_size` bytes are
    left. Returns what was deleted, or with `dry_run` what would be.

    Unfinished files of killed processes are deleted after a day. Raises `OSError` if a file cannot be deleted.
    """
    now = time.time()
    ordered = sorted(files, key=lambda file: (file.used, file.path))
    total = sum(file.size for file in ordered)
    chosen = []
    for file in ordered:
        unused = (now - file.used) / DAY
        torn = file.path.suffix == ".part"
        if torn and unused < 1:  # another process is writing it
            continue
        too_old = unused_days is not None and unused > unused_days
        if torn or too_old or (max_size is not None and total > max_size):
            chosen.append(file)
            total -= file.size
    if not dry_run:
        for file in chosen:
            file.path.unlink(missing_ok=True)
    return chosen


def parse_size(text: str, name: str) -> int:
    """Bytes of a size such as `500MB`, `20 GB`, `1.5TiB` or `0`. Raises `UsageError`, which calls it `name`."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except (ValidationError, OverflowError):
        size = -1
    if size < 0:
        raise UsageError(f"{name}: {text!r} is not a size", hint="for example 500MB or 20GB")
    return size


def limit_from_environment() -> int | None:
    """The limit for cached features in bytes, or None without one. Raises `UsageError` if it is not a size."""
    text = os.environ.get("BCD_BENCH_CACHE_LIMIT", "").strip()
    return parse_size(text, LIMIT_VARIABLE) if text else None


class CacheLimit:
    """Keeps a folder of cached features below the limit of the environment. Several processes may have one each: those
    that find another one deleting leave it to it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._limit = folder, limit_from_environment()
        self._written = float("inf")  # look at the size at the first file

    def wrote(self, path: Path) -> None:
        """A file was written. Errors of the file system are ignored: it is only a cache."""
        if self._limit is None:
            return
        with contextlib.suppress(OSError):
            self._written += path.stat().st_size
        if self._written < STEP * self._limit:
            return
        self._written = 0.0
        with contextlib.suppress(OSError, LockedError), locked(self._folder):
            files = list(_files_below(self._folder))
            if sum(file.size for file in files) > self._limit:
                prune(files, max_size=HEADROOM * self._limit)
