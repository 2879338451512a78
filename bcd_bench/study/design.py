"""The design of a study: groups, methods, blinded items, and the order in which each rater sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bcd_bench.plugin.settings import first_error
from bcd_bench.study.questions import QUESTIONS
from bcd_bench.types.errors import UsageError

__all__ = ["DESIGN_NAME", "MEDIA", "Group", "Item", "Method", "Study", "load_study", "williams"]

DESIGN_NAME = "study.json"
MEDIA = "media"
"""The folder with the videos that raters see."""
BROKEN_LIMIT = 2
"""Highest scores for identity and quality with which a rater passes a check that shows noise."""

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]
"""A random name. Raters see only such names."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Item(_Model):
    """One video that a rater scores, with its references.

    `content`, `motion` and `video` are names of previews. Kinds: "rating"; "practice", which never counts;
    "instructed", a check that asks for the scores in `expected`; "broken", a check that shows noise.
    """

    id: Key
    kind: Literal["rating", "practice", "instructed", "broken"]
    content: Key
    motion: Key
    video: Key
    expected: dict[str, int] = Field(default_factory=dict)

    def passed(self, scores: Mapping[str, int]) -> bool:
        """Whether `scores`, question -> 1..5, pass this check; True for items that are not checks."""
        if self.kind == "instructed":
            return dict(scores) == self.expected
        if self.kind == "broken":
            return scores["identity"] <= BROKEN_LIMIT and scores["quality"] <= BROKEN_LIMIT
        return True


class Method(_Model):
    """A method under study: `label` in tables, and the run folder that its outputs came from."""

    label: str
    run_id: str
    path: str


class Group(_Model):
    """One pair of clips, with an item for each method in the order of `Study.methods`.

    `outputs` are the hashes of the outputs' frames.
    """

    pair: str
    subject: str
    items: list[Item]
    outputs: list[str]


class Study(_Model):
    """A study as stored in `study.json`, which raters never get: it maps items to methods."""

    format: Literal[1] = 1
    id: Key
    title: str
    consent: str
    seed: int
    suite: str
    manifest_sha256: str
    bcd_bench: str
    methods: list[Method] = Field(min_length=2)
    groups: list[Group] = Field(min_length=1)
    practice: Item
    checks: list[Item]

    @model_validator(mode="after")
    def _aligned(self) -> Study:
        if any(not len(group.items) == len(group.outputs) == len(self.methods) for group in self.groups):
            raise ValueError("a group has another number of items than there are methods")
        if len({item.id for item in self.items()}) != sum(1 for _ in self.items()):
            raise ValueError("an item is listed twice")
        if any(set(one.expected) != {q.key for q in QUESTIONS} for one in self.checks if one.kind == "instructed"):
            raise ValueError("a check does not state its expected scores")
        return self

    def items(self) -> Iterator[Item]:
        """Every item: practice, ratings, checks."""
        yield self.practice
        for group in self.groups:
            yield from group.items
        yield from self.checks

    def media(self) -> set[str]:
        """The names of all previews, without ending."""
        return {name for item in self.items() for name in (item.content, item.motion, item.video)}

    @property
    def slots(self) -> int:
        """Number of different orders; raters beyond this number start again with the first one."""
        return math.lcm(self.balanced, len(williams(len(self.groups))))

    @property
    def balanced(self) -> int:
        """Number of raters with which the order of methods is balanced."""
        return len(williams(len(self.methods)))

    def order(self, slot: int) -> list[Item]:
        """The items of the rater with number `slot`, in order: practice, then the groups, with checks in between.

        Over `balanced` consecutive raters, every group shows each method equally often at each position, and each
        method equally often directly after each other one. Groups are ordered in the same way, over all `slots`.
        """
        rows = williams(len(self.methods))
        group_rows = williams(len(self.groups))
        shown: list[list[Item]] = []
        for number in group_rows[slot % len(group_rows)]:
            items = self.groups[number].items
            shown.append([items[method] for method in rows[(slot + number) % len(rows)]])
        rng = np.random.default_rng([self.seed, slot % self.slots])
        checks = rng.permutation(len(self.checks))
        for position, check in reversed(list(enumerate(checks))):  # from behind, so that earlier places stay valid
            low, high = (len(shown) * (position + part) // len(self.checks) for part in (0, 1))
            shown.insert(int(rng.integers(low, high)) + 1 if high > low else high, [self.checks[check]])
        return [self.practice, *(item for items in shown for item in items)]


def williams(n: int) -> list[list[int]]:
    """Rows of a Williams design of 0..n-1: a Latin square balanced for carry-over effects.

    n rows for even n, 2n rows for odd n > 1. In each column every number occurs equally often, and every ordered pair
    of different numbers is adjacent equally often.
    """
    first = [0]
    for step in range(1, n):
        first.append((step + 1) // 2 if step % 2 else n - step // 2)
    rows = [[(number + shift) % n for number in first] for shift in range(n)]
    return rows if n % 2 == 0 or n == 1 else rows + [row[::-1] for row in rows]


def load_study(folder: Path) -> Study:
    """Read the design of a study. Raises `UsageError` if the folder has none, or if it is damaged."""
    path = folder / DESIGN_NAME
    try:
        return Study.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder}: not a study", hint=f"bcd-bench study build RUN RUN --out {folder}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise UsageError(f"{path}: not a study of this version: {first_error(error)}") from None
