"""A pair of clips: one test case."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bcd_bench.types.clip import ClipRef, ReadOnlyDict

__all__ = ["Pair"]


_NO_LABELS = ReadOnlyDict()
"""Shared by all pairs without labels: a suite may have 100,000 pairs."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One test case: transfer the motion of `motion` to the content of `content`; `target` is the ground truth, if
    known."""

    id: str
    content: ClipRef
    motion: ClipRef
    target: ClipRef | None = None
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", ReadOnlyDict(self.labels) if self.labels else _NO_LABELS)

    @property
    def cluster(self) -> str:
        """The content subject, the unit for clustering (label `subject` of the content clip, or else its id)."""
        return sys.intern(str(self.content.labels.get("subject", self.content.id)))  # one text for all its pairs

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "content": self.content.describe(),
            "motion": self.motion.describe(),
            "target": None if self.target is None else self.target.describe(),
            "labels": dict(self.labels),
        }
