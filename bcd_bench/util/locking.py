"""Exclusive access to a folder if the file system supports locks; a warning otherwise."""

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
"""Name of the lock file in a folder. The empty file remains and has no meaning by itself."""
BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""Error codes if another process holds the lock; other codes mean that locks are not supported."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Acquire exclusive write access to `folder`; released by the system even after kill -9.

    On a file system without locks (some Lustre, NFS and FUSE mounts), a warning is printed to stderr and the user has
    to ensure that no second process runs. Raises `UsageError` if another process holds the lock, and `OSError` if the
    lock file cannot be written.
    """
    handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    lock = _flock()
    acquired = False
    try:
        try:
            if lock is None:
                raise OSError(errno.ENOSYS, "not on this system")
            lock.flock(handle, lock.LOCK_EX | lock.LOCK_NB)
            acquired = True
        except OSError as error:
            if error.errno in BUSY:
                raise UsageError(f"{folder} is being written by another process", hint="wait for it to end") from None
            print(
                f"warning: {folder}: the file system has no locks ({error.strerror}); run no second command there",
                file=sys.stderr,
            )
        yield
    finally:
        if acquired and lock is not None:
            with suppress(OSError):  # closing also releases the lock, unless a child process has the file open
                lock.flock(handle, lock.LOCK_UN)
        os.close(handle)


def _flock() -> Any:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return None
    return fcntl
