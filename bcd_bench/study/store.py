"""The ratings of a study in an SQLite file; every rating is on disk before it is confirmed."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bcd_bench.study.questions import QUESTIONS
from bcd_bench.types.errors import UsageError

__all__ = ["DATABASE_NAME", "Conflict", "Rater", "Rating", "Store"]

DATABASE_NAME = "ratings.sqlite"
ABANDONED = 2 * 3600.0
"""Seconds without a rating after which the order of an unfinished rater is given to another one."""
_KEYS = tuple(question.key for question in QUESTIONS)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS raters (
  id TEXT PRIMARY KEY, token TEXT UNIQUE, slot INTEGER NOT NULL CHECK (slot >= 0), seen REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS ratings (
  rater TEXT NOT NULL REFERENCES raters (id), item TEXT NOT NULL,
  {", ".join(f"{key} INTEGER NOT NULL CHECK ({key} BETWEEN 1 AND 5)" for key in _KEYS)},
  seconds REAL, PRIMARY KEY (rater, item)
);
"""


class Conflict(Exception):
    """A rater rated an item twice, with different scores."""


@dataclass(frozen=True)
class Rater:
    """A rater: `id` is random and stands in exports, `slot` determines the order of the items."""

    id: str
    slot: int


@dataclass(frozen=True)
class Rating:
    """The answers of a rater about one item: question -> 1..5, and the seconds that they took, if known."""

    rater: Rater
    item: str
    scores: Mapping[str, int]
    seconds: float | None = None


class Store:
    """The file `ratings.sqlite` of a study, created if it is missing. Safe to use from several threads.

    It contains random ids, scores and times, no address or other personal data. Raises `UsageError` if the file cannot
    be opened, and `sqlite3.Error` for a disk that is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # a commit is on the disk when it returns
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise UsageError(f"{path}: cannot be opened: {error}") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def start(self, balanced: int, total: int) -> tuple[str, Rater]:
        """Add a rater and return their secret token.

        The slot is the one, modulo `balanced`, that the fewest raters have who finished `total` items or rated within
        the last two hours, so that the orders stay balanced if people stop.
        """
        now = time.time()
        with self._transaction():
            counts = dict(self._db.execute("SELECT rater, COUNT(*) FROM ratings GROUP BY rater"))
            rows = self._db.execute("SELECT id, slot, seen FROM raters").fetchall()
            every = Counter(slot % balanced for _, slot, _ in rows)
            active = Counter(
                slot % balanced for rater, slot, seen in rows if counts.get(rater, 0) >= total or now - seen < ABANDONED
            )
            place = min(range(balanced), key=lambda one: (active[one], one))
            rater = Rater(secrets.token_hex(8), place + balanced * every[place])
            token = secrets.token_urlsafe(24)
            self._db.execute("INSERT INTO raters VALUES (?, ?, ?, ?)", (rater.id, token, rater.slot, now))
        return token, rater

    def find(self, token: str) -> Rater | None:
        """The rater with this token."""
        with self._lock:
            row = self._db.execute("SELECT id, slot FROM raters WHERE token = ?", (token,)).fetchone()
        return None if row is None else Rater(*row)

    def rated(self, rater: Rater) -> set[str]:
        """The items that a rater has rated."""
        with self._lock:
            return {row[0] for row in self._db.execute("SELECT item FROM ratings WHERE rater = ?", (rater.id,))}

    def add(self, rating: Rating) -> bool:
        """Store a rating; when this returns, it survives a crash. False if it was there already.

        Raises `Conflict` if it was there with other scores.
        """
        with self._transaction():
            new = self._add(rating)
            self._db.execute("UPDATE raters SET seen = ? WHERE id = ?", (time.time(), rating.rater.id))
        return new

    def add_all(self, ratings: Iterable[Rating]) -> int:
        """Store the ratings of raters elsewhere, all or none, and return the number of new ones.

        Raises `Conflict` as `add`.
        """
        new = 0
        with self._transaction():
            for rating in ratings:
                known = self._db.execute("SELECT slot FROM raters WHERE id = ?", (rating.rater.id,)).fetchone()
                if known is None:
                    row = (rating.rater.id, None, rating.rater.slot, time.time())
                    self._db.execute("INSERT INTO raters VALUES (?, ?, ?, ?)", row)
                elif known[0] != rating.rater.slot:
                    raise Conflict(f"rater {rating.rater.id} has slot {known[0]} and {rating.rater.slot}")
                new += self._add(rating)
        return new

    def _add(self, rating: Rating) -> bool:
        scores = tuple(rating.scores[key] for key in _KEYS)
        old = self._db.execute(
            f"SELECT {', '.join(_KEYS)} FROM ratings WHERE rater = ? AND item = ?", (rating.rater.id, rating.item)
        ).fetchone()
        if old is not None:
            if tuple(old) != scores:
                raise Conflict(f"rater {rating.rater.id} rated item {rating.item} twice, with different scores")
            return False
        marks = ", ".join("?" * (3 + len(scores)))
        self._db.execute(
            f"INSERT INTO ratings VALUES ({marks})", (rating.rater.id, rating.item, *scores, rating.seconds)
        )
        return True

    def delete(self, rater: str) -> int | None:
        """Delete a rater, given by id, with all ratings, and return their number; None if there is no such rater.

        Their content is overwritten in the file, and removed from the write-ahead log if no other process reads it.
        """
        with self._transaction():
            number = self._db.execute("DELETE FROM ratings WHERE rater = ?", (rater,)).rowcount
            known = self._db.execute("DELETE FROM raters WHERE id = ?", (rater,)).rowcount
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return number if known else None

    def raters(self) -> list[Rater]:
        """All raters, in the order of their slots."""
        with self._lock:
            return [Rater(*row) for row in self._db.execute("SELECT id, slot FROM raters ORDER BY slot, id")]

    def ratings(self) -> list[Rating]:
        """All ratings, in the order in which they were stored."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT r.id, r.slot, item, seconds, {', '.join(_KEYS)} "
                "FROM ratings JOIN raters r ON r.id = rater ORDER BY ratings.rowid"
            ).fetchall()
        return [
            Rating(Rater(rater, slot), item, dict(zip(_KEYS, scores, strict=True)), seconds)
            for rater, slot, item, seconds, *scores in rows
        ]
