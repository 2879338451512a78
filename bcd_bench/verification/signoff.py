"""Sign-offs: which records somebody else has checked against outputs or a method, bound to the records by their hash.

They are kept in one file, `verified.json`, next to the records of a leaderboard. Whoever may change this file decides
what counts as verified: a record cannot say so about itself, and a changed record no longer has the hash of its entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bcd_bench.assets.hashing import hash_json, sha256_file
from bcd_bench.io.atomic import write_text_atomic
from bcd_bench.plugin.settings import first_error
from bcd_bench.results.schema import RECORD_NAME, VALUES_NAME, RunRecord
from bcd_bench.types.errors import UsageError
from bcd_bench.verification.check import Check

__all__ = ["SIGN_OFF_NAME", "SignOff", "add_sign_off", "find_sign_offs", "record_key", "sign_off"]

SIGN_OFF_NAME = "verified.json"
EXPENSIVE = ("rescored", "rerun")
"""The checks that connect a record with outputs or with a method; one of them makes it verified."""


class SignOff(BaseModel):
    """What was checked and when. `checks` maps "rescored" and "rerun" to what was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    method: str
    run_id: str
    checks: dict[str, str] = Field(min_length=1)
    device: str
    bcd_bench: str
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    records: dict[str, SignOff]


def record_key(record: Path) -> str:
    """Hash of a record file and the `values.json` next to it: any change of a value, hash or interval changes it."""
    values = record.parent / VALUES_NAME
    return hash_json({"record": sha256_file(record), "values": sha256_file(values) if values.is_file() else None})


def find_sign_offs(paths: Iterable[Path]) -> dict[str, SignOff]:
    """Record key -> sign-off, from the file `verified.json` that lies directly in one of these folders.

    Such files further down, or in the folder of a run, are ignored, since they may have come with a record. Raises
    `UsageError` for a file that is not one of sign-offs.
    """
    found: dict[str, SignOff] = {}
    for path in paths:
        if (path / SIGN_OFF_NAME).is_file() and not (path / RECORD_NAME).exists():
            found |= _read(path / SIGN_OFF_NAME)
    return found


def sign_off(record: RunRecord, checks: Sequence[Check], device: str) -> SignOff | None:
    """The entry for a record with these results; None if one failed, or if neither outputs nor method were checked."""
    import bcd_bench

    done = {check.name: check.detail for check in checks if check.name in EXPENSIVE and check.status == "ok"}
    if not done or any(check.status == "failed" for check in checks):
        return None
    return SignOff(
        suite=f"{record.suite.name}@{record.suite.version}",
        method=record.method.name,
        run_id=record.run_id,
        checks=done,
        device=device,
        bcd_bench=bcd_bench.__version__,
        date=datetime.now(UTC).date().isoformat(),
    )


def add_sign_off(file: Path, key: str, entry: SignOff) -> None:
    """Add an entry to a file, which is created if it is missing; it replaces one of the same record.

    Raises `UsageError` if the file is something else or cannot be written.
    """
    known = _read(file) if file.exists() else {}
    entries: Mapping[str, SignOff] = known | {key: entry}
    ordered = sorted(entries.items(), key=lambda item: (item[1].suite, item[1].method, item[1].run_id, item[0]))
    body = {"format": 1, "records": {name: one.model_dump() for name, one in ordered}}
    try:
        write_text_atomic(file, json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}") from error


def _read(file: Path) -> dict[str, SignOff]:
    try:
        body = _File.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UsageError(f"{file}: not a file of sign-offs: {first_error(error)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from None
    if body.format != 1:
        raise UsageError(f"{file}: has format {body.format}, and this version reads format 1")
    return dict(body.records)
