"""Ratings as CSV files: of the server's export, and of static pages."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bcd_bench.study.design import Study
from bcd_bench.study.questions import QUESTIONS
from bcd_bench.study.store import Conflict, Rater, Rating, Store
from bcd_bench.types.errors import UsageError, printable

__all__ = ["FIELDS", "MOST_SECONDS", "import_ratings", "read_ratings", "write_ratings"]

FIELDS = ("study", "slot", "rater", "item", *(question.key for question in QUESTIONS), "seconds")
MOST_SECONDS = 86_400.0
LARGEST = 50_000_000
"""Bytes of a file."""
SHOWN = 40
"""Characters of a bad cell in a message."""


def write_ratings(study: Study, ratings: Iterable[Rating]) -> str:
    """The ratings as CSV, without methods."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for one in ratings:
        scores = [one.scores[question.key] for question in QUESTIONS]
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        writer.writerow([study.id, one.rater.slot, one.rater.id, one.item, *scores, seconds])
    return out.getvalue()


def read_ratings(study: Study, path: Path) -> list[Rating]:
    """The ratings in a CSV file. Raises `UsageError` for a line that is not a rating of this study, with its number."""
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: larger than {LARGEST // 10**6} MB, so not ratings")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    known = {item.id for item in study.items()}
    ratings = []
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        if tuple(next(lines, ())) != FIELDS:
            raise UsageError(f"{path}: the first line is not {','.join(FIELDS)}", hint="import the files of raters")
        for row in lines:
            if row and tuple(row) != FIELDS:  # files joined one after the other repeat the first line
                ratings.append(_rating(row, study, known))
    except (csv.Error, ValueError) as error:
        raise UsageError(f"{path}, line {lines.line_num}: {error}") from None
    return ratings


def _rating(row: Sequence[str], study: Study, known: set[str]) -> Rating:
    """Raises `ValueError` with the reason."""
    if len(row) != len(FIELDS):
        raise ValueError(f"{len(row)} cells, not {len(FIELDS)}")
    cells = dict(zip(FIELDS, row, strict=True))

    def refuse(name: str, reason: str) -> ValueError:
        return ValueError(f"{name} {printable(cells[name])[:SHOWN]!r} {reason}")

    if cells["study"] != study.id:
        raise refuse("study", "is another study")
    if not re.fullmatch(r"[0-9]{1,6}", cells["slot"]):
        raise refuse("slot", "is not a number")
    if not re.fullmatch(r"[0-9a-f]{16}", cells["rater"]):
        raise refuse("rater", "is not 16 hexadecimal digits")
    if cells["item"] not in known:
        raise refuse("item", "is not of this study")
    for question in QUESTIONS:
        if not re.fullmatch(r"[1-5]", cells[question.key]):
            raise refuse(question.key, "is not 1 to 5")
    if not re.fullmatch(r"([0-9]{1,5}(\.[0-9]{1,6})?)?", cells["seconds"]):
        raise refuse("seconds", "is not a number")
    return Rating(
        Rater(cells["rater"], int(cells["slot"])),
        cells["item"],
        {question.key: int(cells[question.key]) for question in QUESTIONS},
        float(cells["seconds"]) if cells["seconds"] else None,
    )


def import_ratings(study: Study, store: Store, paths: Sequence[Path]) -> tuple[int, int]:
    """Store the ratings of all files, or of none: the numbers of new ratings and of those that were there.

    Raises `UsageError` as `read_ratings`, and if a rater rated an item twice with different scores.
    """
    ratings = [rating for path in paths for rating in read_ratings(study, path)]
    try:
        new = store.add_all(ratings)
    except Conflict as error:
        raise UsageError(f"nothing was imported: {error}") from None
    return new, len(ratings) - new
