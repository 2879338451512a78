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
    from bcd_bench.types.clip import ClipRef

__all__ = ["Suite"]

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_REMEMBERED = 65536
"""Clips whose JSON is kept while a manifest is hashed."""


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
        digest, encode = hashlib.sha256(), _ENCODER.encode
        head = {"name": self.name, "version": self.version, "size": list(self.size), "fps": self.fps, "seed": self.seed}
        digest.update(encode(head).encode() + b"\n")
        known: dict[int, tuple[ClipRef, str]] = {}  # with the clip itself, so that no other one gets its id

        def text_of(clip: ClipRef | None) -> str:
            """The JSON of a clip, which is usually part of many pairs."""
            if clip is None:
                return "null"
            found = known.get(id(clip))
            if found is None:
                if len(known) == _REMEMBERED:
                    known.clear()
                found = known[id(clip)] = (clip, encode(clip.describe()))
            return found[1]

        for pair in self.pairs:
            labels = encode(dict(pair.labels)) if pair.labels else "{}"
            line = (  # the JSON of `pair.describe()`, with sorted keys
                f'{{"content":{text_of(pair.content)},"id":{encode(pair.id)},"labels":{labels},'
                f'"motion":{text_of(pair.motion)},"target":{text_of(pair.target)}}}\n'
            )
            digest.update(line.encode())
        return digest.hexdigest()
