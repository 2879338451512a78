"""One process at a time in a folder, if the file system has locks; a warning if it has none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bcd_bench.types.errors import UsageError

__all__ = ["LOCK_NAME", "LockedError", "locked"]

LOCK_NAME = ".lock"
"""The file in a folder that is locked. It stays behind, empty, and means nothing by itself."""

_warned: set[Path] = set()
"""Folders without locks for which this process has printed the warning."""


class LockedError(UsageError):
    """Another process is writing to the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes to `folder`; the system releases the lock even after kill -9.

    On a file system without locks (some Lustre, NFS and FUSE mounts) the work continues with a warning on stderr.
    Raises `LockedError` if another process has the lock, and `OSError` if the lock file cannot be written.
    """
    path = folder / LOCK_NAME
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))  # by the umask, and an error if it cannot be written
    lock = FileLock(path, blocking=False, mode=0o666, fallback_to_soft=False, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"{folder} is being written by another process", hint="wait until it has finished") from None
    except (NotImplementedError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if folder not in _warned:  # a cache with a limit is locked again and again
            _warned.add(folder)
            warning = f"{folder}: the file system has no locks ({reason}); do not run a second command there"
            print(f"warning: {warning}", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()
