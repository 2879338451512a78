"""A suite of 45 pairs on three pages, with texts that try to break out of a page; for tests of the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bcd_bench import (
    Clip,
    ClipRef,
    Column,
    Extractor,
    ExtractorSpec,
    Failed,
    Generated,
    MethodSpec,
    MetricSpec,
    Overlay,
    Pair,
    ReportedRow,
    Scored,
    Suite,
    SuiteSpec,
    hookimpl,
)
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.build import write_record
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import make_plan
from bcd_bench.scoring.score import score_run

N, SIZE, FPS, FRAMES = 45, (16, 24), 10.0, 5
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><!--{{data}}&amp;\u2028"
FAILED = 7
REPORTED = ReportedRow("Paper", "Doe et al. 2024, Table 1", {"difference": 0.5})


def draw(shade: int, frames: int = FRAMES) -> Clip:
    """A square that moves by two pixels a frame."""
    canvas = np.full((frames, *SIZE, 3), 20, np.uint8)
    for index in range(frames):
        canvas[index, 4:12, 2 * index : 2 * index + 8] = shade
    return Clip(canvas, FPS)


def ref(kind: str, number: int, **labels: str | int) -> ClipRef:
    return ClipRef(f"{kind}{number}", Generated("gallery_toy:draw", {"shade": 60 + 4 * number}), labels)


def suite(data: Mapping[str, Path], pairs: int = N) -> Suite:
    del data
    made = [
        Pair(
            f"p{i:02d}",
            ref("c", i, subject=f"s{i // 2}", note=HOSTILE if i == 0 else "plain"),
            ref("m", i % 9, side="left" if i % 2 else "right"),
            ref("t", i),
        )
        for i in range(pairs)
    ]
    return Suite("gallery", "1", made, SIZE, FPS, ("near",))


def other_suite(data: Mapping[str, Path]) -> Suite:
    made = suite(data, 3)
    return Suite("gallery-other", "1", made.pairs, SIZE, FPS, ("near",))


class Shifted:
    """Draws the target `off` levels too bright, less so for later pairs; fails on one pair with a hostile reason."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.off = config["off"]

    def load(self, weights: Path | None, device: str) -> None:
        del weights, device

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> list[Clip | Failed]:
        del seed
        numbers = [int(pair.id[1:]) for pair in pairs]
        return [
            Failed(HOSTILE) if number == FAILED and self.off else draw(60 + 4 * number + self.off * (number < 5))
            for number in numbers
        ]


class Near:
    columns = (
        Column("difference", "levels", False, f"mean difference {HOSTILE}", decimals=1),
        Column("equal", "%", True, "share of outputs equal to the target", kind="rate"),
    )

    def load(self, device: str) -> None:
        del device

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        rows = []
        for item in items:
            assert len(item.features["corners"]["output"]["boxes"]) == FRAMES
            target = item.pair.target.load().frames.astype(int)
            difference = float(np.abs(item.output.frames.astype(int) - target).mean())
            rows.append({"difference": difference, "equal": difference == 0})
        return rows


class Corners(Extractor):
    """Left, top, right and bottom of the square in each frame, in pixels; fails if there is none."""

    identity: ClassVar = {"version": "1"}

    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any] | Failed]:
        found: list[Mapping[str, Any] | Failed] = []
        for clip in clips:
            bright = [np.argwhere(frame[..., 0] > 40) for frame in clip.frames]
            if not all(len(pixels) for pixels in bright):
                found.append(Failed(f"no square {HOSTILE}"))
                continue
            boxes = [[*pixels.min(axis=0)[::-1], *(pixels.max(axis=0)[::-1] + 1)] for pixels in bright]
            found.append({"boxes": np.array(boxes, np.float64)})
        return found


def outline(features: Mapping[str, Any], size: tuple[int, int]) -> Overlay:
    """The corners of the square, connected."""
    assert size == SIZE
    left, top, right, bottom = features["boxes"].T
    points = np.stack([[left, top], [right, top], [right, bottom], [left, bottom]]).transpose(2, 0, 1)
    return Overlay(points, ((0, 1), (1, 2), (2, 3), (3, 0)))


@hookimpl
def bcd_bench_extractors() -> list[ExtractorSpec]:
    return [
        ExtractorSpec(
            "corners", "1", "the corners of the square", "gallery_toy:Corners", overlay="gallery_toy:outline"
        ),
        ExtractorSpec("plain", "1", "the same without overlay", "gallery_toy:Corners"),
    ]


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return [
        SuiteSpec("gallery", "1", "45 pairs", "gallery_toy:suite", reported=(REPORTED,)),
        SuiteSpec("gallery-other", "1", "3 pairs", "gallery_toy:other_suite"),
    ]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    return [
        MethodSpec("shifted", "1", "too bright", "gallery_toy:Shifted", config={"off": 30}),
        MethodSpec("exact", "1", "right", "gallery_toy:Shifted", config={"off": 0}),
    ]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    return [MetricSpec("near", "1", "nearness", "gallery_toy:Near", extractors=("corners",))]


def make_run(
    registry: Registry, out: Path, method: str, limit: int | None = None, *, name: str = "gallery", score: bool = True
) -> RunFolder:
    """Generate, and score unless told otherwise."""
    pairs = {"gallery": suite, "gallery-other": other_suite}[name]({})
    run = generate(registry, make_plan(registry, method, pairs, limit=limit), pairs, out)[0]
    if score:
        write_record(registry, run, score_run(registry, run, ("near",)))
    return run
