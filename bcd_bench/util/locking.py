"""One process at a time in a folder, where the file system can tell; a warning where it cannot."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bcd_bench.types.errors import UsageError

__all__ = ["LOCK_NAME", "locked"]

LOCK_NAME = ".lock"
"""The file in a folder that is locked. It stays, empty, and means nothing by itself."""
BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""What the system says if another process has the lock; anything else says that there are no locks."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes to `folder`; freed by the system even after kill -9.

    On a file system without locks (some Lustre, NFS and FUSE mounts) the work goes on with a warning on stderr: then
    nothing but the user keeps a second process away. Raises `UsageError` if another process is at it, and `OSError` if
    the lock file cannot be written.
    """
    handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    lock = _flock()
    taken = False
    try:
        try:
            if lock is None:
                raise OSError(errno.ENOSYS, "not on this system")
            lock.flock(handle, lock.LOCK_EX | lock.LOCK_NB)
            taken = True
        except OSError as error:
            if error.errno in BUSY:
                raise UsageError(f"{folder} is being written by another process", hint="wait for it to end") from None
            print(
                f"warning: {folder}: the file system has no locks ({error.strerror}); start no second command there",
                file=sys.stderr,
            )
        yield
    finally:
        if taken and lock is not None:
            with suppress(OSError):  # closing frees it too, unless a child process still holds the file
                lock.flock(handle, lock.LOCK_UN)
        os.close(handle)


def _flock() -> Any:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return None
    return fcntl
