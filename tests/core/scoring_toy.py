"""A toy plugin for tests of scoring: tiny clips, a method that draws, metrics that behave and misbehave."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bcd_bench import (
    Clip,
    ClipRef,
    Column,
    ExtractorSpec,
    Failed,
    Generated,
    MethodSpec,
    MetricSpec,
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

N_PAIRS = 12
SIZE = (8, 8)
calls: dict[str, int] = {}
"""How often each piece of plugin code ran; tests clear it."""


def count(name: str) -> None:
    calls[name] = calls.get(name, 0) + 1


def draw(shade: int, frames: int) -> Clip:
    return Clip(np.full((frames, *SIZE, 3), shade, np.uint8), 10.0)


def ref(kind: str, shade: int, **labels: str | int) -> ClipRef:
    source = Generated("scoring_toy:draw", {"shade": shade, "frames": 2})
    return ClipRef(f"{kind}{shade}", source, {"shade": shade, **labels})


def suite(data: Mapping[str, Path]) -> Suite:
    del data
    count("suite")
    pairs = [
        Pair(f"p{i:02d}", ref("c", 10 * i, subject=f"s{i // 2}"), ref("m", 5 * i + 1), ref("t", 10 * i))
        for i in range(N_PAIRS)
    ]
    return Suite("toy", "1", pairs, SIZE, 10.0, ("shade", "spread"))


class Off:
    """Draws the right shade, off by `off`, but fails on pair p03 and is a further 100 off on every fourth pair."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.off = config["off"]

    def load(self, weights: Path | None, device: str) -> None:
        del weights, device

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> list[Clip | Failed]:
        del seed
        count("transfer")
        out: list[Clip | Failed] = []
        for pair in pairs:
            index = int(pair.id[1:])
            far = 100 if index % 4 == 0 and self.off else 0
            good = draw((int(pair.content.labels["shade"]) + self.off + far) % 256, 2)
            out.append(Failed("no face") if index == 3 and self.off else good)
        return out


class Shade:
    """Distance of the output's mean to the target's shade; "close" is a rate; "entropy" is derived."""

    columns = (
        Column("distance", "levels", False, "absolute difference of mean shade", decimals=1),
        Column("close", "%", True, "share of outputs within 10 levels", kind="rate"),
        Column("spread_of_shades", "nats", None, "entropy of the shades", kind="derived", headline=False),
    )

    def load(self, device: str) -> None:
        count("shade.load")

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        count("shade.score")
        rows = []
        for item in items:
            mean = np.float32(item.output.frames.mean())
            distance = abs(mean - int(item.pair.content.labels["shade"]))
            rows.append({"distance": distance, "close": distance <= 10, "shade": round(float(mean))})
        return rows

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        _, counts = np.unique([row["shade"] for row in rows], return_counts=True)
        share = counts / counts.sum()
        return {"spread_of_shades": float(-(share * np.log(share)).sum())}


class Spread:
    """Set metric: standard deviation of all output pixels, from mergeable sums."""

    columns = (Column("spread", "levels", None, "standard deviation of all pixels", kind="set"),)
    jackknife_groups = 3

    def load(self, device: str) -> None:
        count("spread.load")

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        sums = np.zeros(3) if state is None else state["sums"].copy()
        for item in items:
            pixels = item.output.frames.astype(np.float64)
            sums += [pixels.size, pixels.sum(), (pixels**2).sum()]
        return {"sums": sums}

    def merge(self, states: Sequence[Any]) -> Any:
        return {"sums": np.sum([state["sums"] for state in states], axis=0)}

    def compute(self, state: Any) -> Mapping[str, float]:
        n, total, squares = state["sums"]
        return {"spread": math.sqrt(squares / n - (total / n) ** 2)}


class PlainSpread(Spread):
    jackknife_groups = 0


class ChoosySpread(Spread):
    """Refuses pair p05, and raises on what it refused."""

    def refuse(self, item: Scored) -> Failed | None:
        return Failed("no features") if item.pair.id == "p05" else None

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        assert all(item.pair.id != "p05" for item in items)
        return super().update(state, items)


class Picky(Shade):
    """Raises on any batch that holds pair p05."""

    columns = (Column("mean_shade", "levels", None, "mean shade"),)

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        if any(item.pair.id == "p05" for item in items):
            raise RuntimeError("p05 is\ntoo much")
        return [
            {"mean_shade": math.nan if item.pair.id == "p06" else float(item.output.frames.mean())} for item in items
        ]


class Halves(Shade):
    """Rests on half of the frames of every output; p05 does not say on how many."""

    columns = (
        Column("seen_shade", "levels", False, "mean shade of the frames that were seen", frames="seen_frames"),
        Column("seen_frames", "%", True, "share of frames that were seen", headline=False),
        Column("seen_entropy", "nats", None, "entropy of the shades", kind="derived", frames="seen_frames"),
    )
    share: ClassVar[float] = 50.0

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        rows = [{"seen_shade": 7.0, "seen_frames": self.share, "shade": 7} for _ in items]
        return [
            {**row, "seen_frames": math.nan} if i.pair.id == "p05" else row for i, row in zip(items, rows, strict=True)
        ]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        return {"seen_entropy": super().derive(rows)["spread_of_shades"]}


class SetOfHalves(Spread):
    columns = (
        Column("seen_spread", "levels", None, "deviation of pixels seen", kind="set", frames="seen_share"),
        Column("seen_share", "%", True, "share of frames seen", kind="set", headline=False),
    )

    def compute(self, state: Any) -> Mapping[str, Any]:
        return {"seen_spread": super().compute(state)["spread"], "seen_share": (50.0, 40.0, 60.0)}


class NamesNoFrames(Shade):
    columns = (Column("distance", "levels", False, "absolute difference", frames="nowhere"),)


class Stopping(Shade):
    """Asks the process to end, as Ctrl-C or SIGTERM would, at its third batch."""

    signal_to_send: ClassVar[int | None] = None

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        if calls.get("shade.score", 0) == 2 and self.signal_to_send is not None:
            os.kill(os.getpid(), self.signal_to_send)
            time.sleep(5)
        return super().score(items)


class Census(Shade):
    """Counts the clips that are alive while it scores."""

    columns = (Column("alive", "clips", None, "clips in memory"),)

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        alive = sum(type(thing) is Clip for thing in gc.get_objects())  # isinstance would wake lazy proxies
        return [{"alive": alive} for _ in items]


class Broken:
    def __init__(self) -> None:
        raise ImportError("no such library")


class BadDerive(Shade):
    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        raise ZeroDivisionError("nothing to divide")


class Featured:
    """Uses the extractor: mean brightness of output and content clips."""

    columns = (Column("brighter", "levels", True, "output minus content brightness"),)

    def load(self, device: str) -> None:
        del device

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        rows: list[Mapping[str, Any] | Failed] = []
        for item in items:
            output, content = (item.features["brightness"][role] for role in ("output", "content"))
            if isinstance(output, Failed):
                rows.append(output)
            else:
                rows.append({"brighter": float(output["mean"]) - float(content["mean"])})
        return rows


class Brightness:
    def __init__(self) -> None:
        self.identity = {"weights": "none"}

    def load(self, device: str) -> None:
        count("brightness.load")

    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any] | Failed]:
        count("brightness.extract")
        means = [clip.frames.mean() for clip in clips]
        return [Failed("too dark") if mean < 15 else {"mean": np.float64(mean)} for mean in means]


def make_run(
    registry: Registry, out: Path, method: str = "off", limit: int | None = None, *, retry_failed: bool = False
) -> RunFolder:
    """Generate with one of the toy methods."""
    pairs = suite({})
    plan = make_plan(registry, method, pairs, limit=limit)
    return generate(registry, plan, pairs, out, retry_failed=retry_failed)[0]


def record_run(
    registry: Registry,
    out: Path,
    method: str = "off",
    metrics: tuple[str, ...] = ("shade", "spread"),
    limit: int | None = None,
) -> RunFolder:
    """Generate, score and record."""
    run = make_run(registry, out, method, limit)
    write_record(registry, run, score_run(registry, run, metrics))
    return run


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    return [
        MethodSpec("off", "1", "a little off", "scoring_toy:Off", config={"off": 7}, batch_size=5),
        MethodSpec("exact", "1", "exact", "scoring_toy:Off", config={"off": 0}, batch_size=5),
    ]


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    paper = ReportedRow("Paper & Sons", "Doe et al. 2024, Table 1", {"close": 99.5}, note="other split")
    return [SuiteSpec("toy", "1", "toy clips", "scoring_toy:suite", reported=(paper,))]


@hookimpl
def bcd_bench_extractors() -> list[ExtractorSpec]:
    return [ExtractorSpec("brightness", "1", "mean brightness", "scoring_toy:Brightness")]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    names = {"shade": "Shade", "picky": "Picky", "broken": "Broken", "bad-derive": "BadDerive"}
    names |= {"stopping": "Stopping", "census": "Census", "halves": "Halves", "names-no-frames": "NamesNoFrames"}
    names |= {"again": "Shade"}
    pair = [MetricSpec(name, "1", name, f"scoring_toy:{cls}") for name, cls in names.items()]
    sets = [
        MetricSpec("spread", "1", "spread", "scoring_toy:Spread", level="set"),
        MetricSpec("plain-spread", "1", "spread", "scoring_toy:PlainSpread", level="set"),
        MetricSpec("set-of-halves", "1", "spread", "scoring_toy:SetOfHalves", level="set"),
        MetricSpec("choosy-spread", "1", "spread", "scoring_toy:ChoosySpread", level="set"),
    ]
    other = [
        MetricSpec("featured", "1", "brightness", "scoring_toy:Featured", extractors=("brightness",)),
        MetricSpec("elsewhere", "1", "for another suite", "scoring_toy:Shade", suites=("sprites",)),
        MetricSpec("confused", "1", "a pair metric that says set", "scoring_toy:Shade", level="set"),
    ]
    return [*pair, *sets, *other]
