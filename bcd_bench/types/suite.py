"""A versioned list of pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bcd_bench.types.pair import Pair

if TYPE_CHECKING:
    from bcd_bench.metric_validation.perturbations import Perturbation

__all__ = ["Suite"]


@dataclass(frozen=True)
class Suite:
    """A named, versioned list of pairs: the same everywhere, proven by `manifest_sha256`.

    `size` is (height, width) in pixels of every output, `fps` its frame rate, `default_metrics` the metrics a plain
    run scores. Pair ids are unique and safe as file names.
    """

    name: str
    version: str
    pairs: Sequence[Pair]
    size: tuple[int, int]
    fps: float
    default_metrics: tuple[str, ...] = ()
    seed: int = 0
    summary: str = ""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was built, such as files left out and why; no part of the manifest."""
    perturbations: tuple[Perturbation, ...] = ()
    """Faults that only this suite can draw, for `validate-metrics`; no part of the manifest."""

    @cached_property
    def manifest_sha256(self) -> str:
        """sha256 over the canonical JSON lines of all pairs, streamed so that large suites stay small in memory."""
        digest = hashlib.sha256()
        head = {"name": self.name, "version": self.version, "size": list(self.size), "fps": self.fps, "seed": self.seed}
        for record in (head, *(pair.describe() for pair in self.pairs)):
            digest.update(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()
