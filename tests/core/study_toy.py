"""A suite of 16 pairs, four methods of known quality and two metrics, of which one is worthless; for user studies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench import Clip, ClipRef, Column, Generated, MethodSpec, MetricSpec, Pair, Scored, Suite, SuiteSpec, hookimpl
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.build import write_record
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import make_plan
from bcd_bench.scoring.score import score_run

N, SIZE, FPS, FRAMES = 16, (48, 48), 12.0, 6
METHODS = {"zorblax": 0, "quuxnet": 12, "flimflam": 30, "wibble": 60}
"""Name -> grey levels by which outputs are too bright: the first one is best."""


def draw(shade: int, offset: int = 0) -> Clip:
    """A square that moves by four pixels a frame."""
    canvas = np.full((FRAMES, *SIZE, 3), 20, np.uint8)
    for index in range(FRAMES):
        canvas[index, 12:36, 4 * index : 4 * index + 20] = min(255, shade + offset)
    return Clip(canvas, FPS)


def _ref(kind: str, number: int, **labels: str | int) -> ClipRef:
    return ClipRef(f"{kind}{number}", Generated("study_toy:draw", {"shade": 60 + 5 * number}), labels)


def suite(data: Mapping[str, Path]) -> Suite:
    del data
    pairs = [Pair(f"p{i:02d}", _ref("c", i, subject=f"s{i}"), _ref("m", i + 20), _ref("t", i)) for i in range(N)]
    return Suite("study", "1", pairs, SIZE, FPS, ("near",))


class Brighter:
    """Draws the target `off` levels too bright, more for some pairs than for others."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.off = config["off"]

    def load(self, weights: Path | None, device: str) -> None:
        del weights, device

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> list[Clip]:
        del seed
        return [draw(60 + 5 * int(pair.id[1:]), self.off * (2 + int(pair.id[1:]) % 3) // 3) for pair in pairs]


class Near:
    columns = (Column("difference", "levels", False, "mean difference from the target", decimals=1),)

    def load(self, device: str) -> None:
        del device

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        return [
            {"difference": float(np.abs(i.output.frames.astype(int) - i.pair.target.load().frames.astype(int)).mean())}
            for i in items
        ]


class Luck:
    columns = (Column("luck", "", True, "a hash of the output and the pair", decimals=2),)

    def load(self, device: str) -> None:
        del device

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        digests = [hashlib.sha256(f"{item.output.sha256} {item.pair.id}".encode()).digest() for item in items]
        return [{"luck": digest[0] / 255} for digest in digests]


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return [SuiteSpec("study", "1", "16 pairs", "study_toy:suite")]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    return [
        MethodSpec(name, "1", "too bright", "study_toy:Brighter", config={"off": off}) for name, off in METHODS.items()
    ]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    return [MetricSpec("near", "1", "nearness", "study_toy:Near"), MetricSpec("luck", "1", "none", "study_toy:Luck")]


def make_runs(out: Path, methods: Sequence[str] = tuple(METHODS)) -> tuple[Registry, list[Path]]:
    """The registry with this module, and scored runs of the methods below `out`."""
    import study_toy

    registry = Registry.from_modules([study_toy])
    pairs = suite({})
    folders = []
    for method in methods:
        run = generate(registry, make_plan(registry, method, pairs), pairs, out)[0]
        write_record(registry, run, score_run(registry, run, ("near", "luck")))
        folders.append(run.path)
    return registry, folders
