"""Atomic writes: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from bcd_bench.plugin.isolation import harness_umask

__all__ = [
    "TEMPORARY_SUFFIX",
    "append_jsonl",
    "atomic_path",
    "fsync_path",
    "iterate_jsonl",
    "read_jsonl",
    "temporary_name",
    "usual_mode",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
    "written_as",
]

TEMPORARY_SUFFIX = ".part"
"""Suffix of unfinished files; files with this suffix may be deleted while no process is running."""


LINES_AT_ONCE = 256
"""Lines of a JSON-lines file that are parsed together."""
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EISDIR}
"""Error codes that file systems (CIFS, some FUSE and network mounts) return for folders that cannot be synced."""


_machine = secrets.token_hex(3)
"""Distinguishes processes with the same id on different machines or in different containers, which share a folder."""


def temporary_name(path: Path) -> Path:
    """Temporary name, unique per process, under which `path` is written before it is renamed."""
    return path.with_name(f".{path.name}.{_machine}-{os.getpid()}{TEMPORARY_SUFFIX}")


def written_as(temporary: Path) -> str:
    """The final name of the file that is written under a `temporary_name`."""
    return temporary.name.removeprefix(".").removesuffix(TEMPORARY_SUFFIX).rpartition(".")[0]


def fsync_path(path: Path) -> None:
    """Flush a file's bytes, or the renames and new names in a folder, so that they survive a power failure.

    Folders that the file system cannot sync (`NO_SYNC`) are skipped; their durability depends on the file system.
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
    """Set the default mode of new files (umask of the harness), even if a plugin has changed the umask meanwhile."""
    mode = 0o666 & ~harness_umask()
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with contextlib.suppress(OSError):  # the file system does not support modes
            path.chmod(mode)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on leaving the block it is synced and renamed to `path`.

    The name ends in `.part`, so writers that infer the format from the name need it explicitly (`image.save(…,
    format="png")`). The file gets the mode given by the umask, even if its writer made it private (as safetensors
    does). If the block raises or writes no file (`OSError`), the old file is unchanged and nothing is left behind.
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
    """Write `data` to `path` atomically. Raises `OSError` on failure and leaves the old file unchanged."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text to `path` atomically."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write `obj` as indented JSON (key order kept, no NaN) to `path` atomically."""
    write_text_atomic(path, json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def append_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON line per record in a single write, then fsync. An incomplete last line is terminated first."""
    text = "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    with path.open("ab+") as stream:
        if stream.tell() > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                text = "\n" + text
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def iterate_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The complete records of a JSON-lines file, in order. Lines torn by a crash are skipped; a missing file is
    empty."""
    if path.exists():
        with path.open("rb") as stream:
            while lines := list(islice(stream, LINES_AT_ONCE)):
                yield from _records(lines)


def _records(lines: list[bytes]) -> list[dict[str, Any]]:
    """The records on these lines. They are parsed together, which is faster, unless one of them is damaged."""
    if all(line.startswith(b"{") and line.endswith(b"}\n") for line in lines):
        with contextlib.suppress(ValueError, RecursionError):
            records: list[dict[str, Any]] = json.loads(f"[{b','.join(lines).decode()}]")
            if len(records) == len(lines):
                return records
    records = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):  # torn by a crash: its work is repeated
            record = json.loads(line.decode())
            if isinstance(record, dict):
                records.append(record)
    return records


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """As `iterate_jsonl`, all at once."""
    return list(iterate_jsonl(path))
