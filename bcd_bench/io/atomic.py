"""Writes that are there whole or not at all: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bcd_bench.plugin.isolation import harness_umask

__all__ = [
    "TEMPORARY_SUFFIX",
    "append_jsonl",
    "atomic_path",
    "fsync_path",
    "read_jsonl",
    "temporary_name",
    "usual_mode",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]

TEMPORARY_SUFFIX = ".part"
"""What unfinished files are called; anything with this suffix may be deleted while no process runs."""


NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EISDIR}
"""What file systems (CIFS, some FUSE and network mounts) say of a folder that cannot be opened or synced."""


def temporary_name(path: Path) -> Path:
    """The name under which `path` is written before it is renamed, one per process."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or the renames and new names in a folder, survive a power cut.

    Some file systems cannot sync folders (`NO_SYNC`): what is in them is as durable as they make it.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NO_SYNC or not path.is_dir():
            raise


def usual_mode(path: Path) -> None:
    """Give a file the mode that any new file gets, by the umask of the harness, whatever a plugin has set meanwhile."""
    mode = 0o666 & ~harness_umask()
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with contextlib.suppress(OSError):  # a file system without modes
            path.chmod(mode)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, for code that wants a path; at the end of the block it becomes `path`, synced.

    The name ends in `.part`, so a writer that guesses a format from it has to be told (`image.save(…, format="png")`).
    The file gets the mode that the umask gives, also if its writer made it private (safetensors does).
    Where the block raises, or wrote no file (`OSError`), the old file stays as it was and nothing is left behind.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        usual_mode(temporary)
        fsync_path(temporary)
        temporary.replace(path)
        fsync_path(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink()
        raise


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises `OSError` and leaves the old file as it was."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write `obj` as indented JSON (key order kept, no NaN) to `path`, whole or not at all."""
    write_text_atomic(path, json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def append_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON line per record in a single write, then fsync. A torn line of a crash is ended first."""
    text = "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    with path.open("ab+") as stream:
        if stream.tell() > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                text = "\n" + text
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole records of a JSON-lines file, in order; lines torn by a crash are left out, no file is no records."""
    records = []
    if path.exists():
        with path.open("rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError):  # torn by a crash: its work is done again
                    record = json.loads(line)
                    if isinstance(record, dict):
                        records.append(record)
    return records
