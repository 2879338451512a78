"""The rules for records of a leaderboard, a folder of records that others hand in results to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bcd_bench.results.schema import RECORD_NAME, VALUES_NAME, RunRecord
from bcd_bench.verification.check import Check, failed, passed
from bcd_bench.verification.signoff import SIGN_OFF_NAME, find_sign_offs, record_key

__all__ = ["check_entry", "check_sign_offs"]

NAME = "leaderboard"


def check_entry(record: RunRecord, path: Path, root: Path | None) -> Check:
    """Whether a record may be part of a leaderboard: `path` is its file, and `root` the folder of the leaderboard (None
    for a bundle, whose files have no place in it yet)."""
    if record.partial:
        return failed(NAME, f"only {record.n_pairs} of {record.suite.n_pairs} pairs; run the whole suite")
    if record.seeded:
        return failed(NAME, "the weights are random")
    if record.unhashed:
        return failed(NAME, "the method has no fingerprint; it has to be a plugin")
    if not (path.parent / VALUES_NAME).is_file():
        return failed(NAME, f"{VALUES_NAME} is missing, so nobody can compare it")
    if root is None:
        return passed(NAME, "a whole run with the values of its pairs")
    wanted = Path(f"{record.suite.name}@{record.suite.version}", record.method.name, record.run_id)
    if path.parent.relative_to(root) != wanted:
        return failed(NAME, f"it belongs in {wanted.as_posix()}")
    others = sorted({one.name for one in path.parent.iterdir()} - {RECORD_NAME, VALUES_NAME})
    if others:
        return failed(NAME, f"only {RECORD_NAME} and {VALUES_NAME} belong there, not {others[0]}")
    return passed(NAME, "a whole run with the values of its pairs, in the right place")


def check_sign_offs(root: Path, records: Iterable[Path]) -> Check | None:
    """Whether every entry of `verified.json` is of one of these record files; None without such a file.

    Raises `UsageError` for a file that is not one of sign-offs.
    """
    if not (root / SIGN_OFF_NAME).is_file():
        return None
    entries = find_sign_offs([root])
    keys = {record_key(record) for record in records}
    gone = [entry for key, entry in entries.items() if key not in keys]
    if gone:
        what = f"{gone[0].method} on {gone[0].suite} ({gone[0].run_id})"
        return failed("sign-offs", f"{len(gone)} of {len(entries)} are of records that are not there, as {what}")
    return passed("sign-offs", f"each of the {len(entries)} is of a record that is there")
