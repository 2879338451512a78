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
    """A named, versioned list of pairs, identical on every machine, as verified by `manifest_sha256`.

    `size` is (height, width) in pixels of every output, `fps` its frame rate, `default_metrics` the metrics that a run
    computes by default. Pair ids are unique and valid as file names.
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
    """Information for the user about how the suite was built, such as skipped files and why; not part of the
    manifest."""
    perturbations: tuple[Perturbation, ...] = ()
    """Perturbations that only this suite can render, for `validate-metrics`; not part of the manifest."""

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 over the canonical JSON lines of all pairs, streamed so that large suites need little memory."""
        digest = hashlib.sha256()
        head = {"name": self.name, "version": self.version, "size": list(self.size), "fps": self.fps, "seed": self.seed}
        for record in (head, *(pair.describe() for pair in self.pairs)):
            digest.update(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()
