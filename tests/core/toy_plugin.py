"""A suite, methods and weights small enough to follow by eye; used by the tests of the core as a plugin."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench import (
    Clip,
    ClipRef,
    ExecutorSpec,
    Failed,
    Generated,
    MethodSpec,
    Pair,
    Suite,
    SuiteSpec,
    Weights,
    hookimpl,
)
from bcd_bench.run.executor import Batch, Outcome, Work, load_method, run_batch
from bcd_bench.run.fingerprint import pair_seed

SIZE = (16, 24)
FPS = 8.0


def draw(subject: int, motion: int, frames: int = 4) -> Clip:
    """A square whose colour is the subject and whose path is the motion."""
    canvas = np.zeros((frames, *SIZE, 3), np.uint8)
    for t in range(frames):
        x = (motion * 3 + t * 2) % (SIZE[1] - 4)
        canvas[t, 4:10, x : x + 4] = (40 + 20 * subject, 255 - 20 * subject, 90)
    return Clip(canvas, FPS, f"s{subject}m{motion}")


def ref(subject: int, motion: int) -> ClipRef:
    source = Generated("toy_plugin:draw", {"subject": subject, "motion": motion})
    return ClipRef(f"s{subject}m{motion}", source, {"subject": subject, "motion": motion})


def make_suite(data: Mapping[str, Path], n: int = 10) -> Suite:
    del data
    pairs = [
        Pair(f"p{i:02d}", ref(i % 5, i % 3), ref((i + 1) % 5, (i + 1) % 3), ref(i % 5, (i + 1) % 3)) for i in range(n)
    ]
    return Suite("toy", "1", pairs, SIZE, FPS, default_metrics=())


def make_suite_without_targets(data: Mapping[str, Path]) -> Suite:
    suite = make_suite(data)
    pairs = [Pair(p.id, p.content, p.motion) for p in suite.pairs]
    return Suite("toy-open", "1", pairs, SIZE, FPS)


class Noise:
    """Noise from the pair's seed, plus the batch's size: what really happens to floating point, made visible."""

    calls: list[list[str]] = []  # noqa: RUF012 - shared on purpose, tests look at it

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.added = 0

    def load(self, weights: Path | None, device: str) -> None:
        if weights is not None:
            self.added = weights.read_bytes()[0]

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        self.calls.append([pair.id for pair in pairs])
        for pair in pairs:
            if pair.id == os.environ.get("TOY_WAITS_AT"):
                time.sleep(60)
            driver = pair.motion.load()
            rng = np.random.default_rng(pair_seed(seed, pair.id))
            frames = rng.integers(0, 200, driver.frames.shape, dtype=np.uint8)
            frames += np.uint8(len(pairs) + self.added)
            yield Clip(frames, FPS, pair.id)


class Fragile(Noise):
    """Goes wrong in every way, by pair id. `TOY_MENDED` makes it whole."""

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        outputs = list(super().transfer(pairs, seed=seed))
        if os.environ.get("TOY_MENDED"):
            yield from outputs
            return
        for pair, output in zip(pairs, outputs, strict=True):
            assert isinstance(output, Clip)
            if pair.id == "p01":
                raise RuntimeError("the codebook\nis on fire")
            if pair.id == "p04":
                yield Failed("no face found")
            elif pair.id == "p05":
                yield Clip(output.frames[:-1], FPS)
            elif pair.id == "p06":
                yield Clip(np.ascontiguousarray(output.frames[:, :8]), FPS)
            elif pair.id == "p08":
                yield Clip(output.frames, FPS, info={"codes": float("nan")})
            elif pair.id == "p09":
                yield Clip(output.frames, FPS, info={"codes": [1, 2]})
            elif pair.id == "p07":
                yield output.frames  # type: ignore[misc]
            else:
                yield output


class Unloadable(Noise):
    def load(self, weights: Path | None, device: str) -> None:
        raise ValueError("no such device")


class NeedsPackage(Noise):
    def load(self, weights: Path | None, device: str) -> None:
        import a_package_that_is_not_there  # noqa: F401


def run_backwards(work: Work, batches: Iterator[Batch], *, jobs: int) -> Iterator[Outcome]:
    """An executor as a cluster might be: work and batches are pickled, and come back in another order."""
    assert jobs == 2
    for sent in [pickle.dumps((work, batch)) for batch in batches][::-1]:
        there, batch = pickle.loads(sent)
        yield run_batch(load_method(there), batch, seed=there.seed, size=there.size)


@hookimpl
def bcd_bench_executors() -> list[ExecutorSpec]:
    return [ExecutorSpec("backwards", "Last batch first.", "toy_plugin:run_backwards")]


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return [
        SuiteSpec("toy", "1", "Ten pairs of squares.", "toy_plugin:make_suite"),
        SuiteSpec("toy-open", "1", "The same without targets.", "toy_plugin:make_suite_without_targets"),
        SuiteSpec("toy-data", "1", "Needs data.", "toy_plugin:make_suite", data=("toys",)),
        SuiteSpec("toy-asset", "1", "Needs an asset.", "toy_plugin:make_suite", assets=("nowhere",)),
    ]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    def spec(name: str, factory: str, **more: Any) -> MethodSpec:
        more = {"config": {"steps": 3}, "batch_size": 4, **more}
        return MethodSpec(name, "1", "A toy.", f"toy_plugin:{factory}", **more)

    return [
        spec("noise", "Noise"),
        spec("fragile", "Fragile"),
        spec("unloadable", "Unloadable"),
        spec("needs-package", "NeedsPackage"),
        spec("half", "Noise", config={"dtype": "float32"}),
        spec("weighted", "Noise", weights=(Weights("small", ("toy",), "toy_plugin", "toy_plugin.py"),)),
    ]
