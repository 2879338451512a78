"""Harness overhead and memory, as ratios measured in one process.

    python benchmarks/harness.py overhead [--method bcd] [--pairs 2664] [--repeat 3]
    python benchmarks/harness.py memory [--pairs 10000]

`overhead` runs the same pairs twice: through a bare loop that only transfers and judges them, and through a whole
`run` (generate, write lossless, hash, judge, record). Without `--method` the transfer is a stand-in that computes for
about 25 ms a pair. `memory` runs `copy-content` over many pairs and reports the peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench import Clip, MethodSpec, Pair, Scored, Suite, hookimpl
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.registry import Registry, load_registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run import pipeline as benchmark
from bcd_bench.run.executor import Work, load_method
from bcd_bench.scoring.features import needed_extractors

LIMIT = 1.5
"""The whole run may take this many times the bare loop."""


class Paced:
    """Stands for a model: gives the motion clip after computing for `ms` milliseconds of processor time a pair."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.seconds = float(config["ms"]) / 1e3
        self.matrix = np.random.default_rng(0).random((192, 192), dtype=np.float32)

    def load(self, weights: Path | None, device: str) -> None:
        del weights, device

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip]:
        del seed
        for pair in pairs:
            until = time.thread_time() + self.seconds
            while time.thread_time() < until:
                self.matrix @ self.matrix
            yield pair.motion.load()


class Plugin:
    """Hands in the stand-in."""

    @hookimpl
    def bcd_bench_methods(self) -> list[MethodSpec]:
        return [MethodSpec("paced", "1", "Computes for a while.", "__main__:Paced", config={"ms": 25.0})]


def registry_with_stand_in() -> Registry:
    registry = load_registry()
    own = Registry.from_modules([Plugin()], core=False)
    registry.methods |= own.methods
    registry._owners |= own._owners
    return registry


def bare_loop(registry: Registry, method: str, suite: Suite, pairs: Sequence[Pair]) -> float:
    """Seconds per pair of transferring and judging alone, in the batches of the method."""
    spec = registry.method(method)
    prepared = benchmark.prepare(registry, method, suite)
    plan = prepared.plan
    needed = tuple(needed_extractors(registry, spec.extractors))
    work = Work(method, spec.factory, plan.method.config, plan.weights_path, "cpu", 0, suite.size, needed)
    model = load_method(work)
    metrics = [load_factory(registry.metric(name).factory)() for name in prepared.metrics]
    for metric in metrics:
        metric.load("cpu")
    started = time.perf_counter()
    for start in range(0, len(pairs), spec.batch_size):
        batch = pairs[start : start + spec.batch_size]
        outputs = list(model.transfer(batch, seed=0))
        for metric in metrics:
            metric.score([Scored(pair, clip) for pair, clip in zip(batch, outputs, strict=True)])
    return (time.perf_counter() - started) / len(pairs)


def whole_run(registry: Registry, method: str, suite: Suite, n: int) -> float:
    """Seconds per pair of `run`: generate, write, hash, judge and record."""
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        benchmark.run(registry, benchmark.prepare(registry, method, suite, limit=n), out=Path(out))
        return (time.perf_counter() - started) / n


def overhead(method: str, suite_name: str, n: int, repeat: int) -> dict[str, Any]:
    registry = registry_with_stand_in()
    suite = load_suite(registry, suite_name)
    pairs = list(suite.pairs[:n])
    bare_loop(registry, method, suite, pairs[:32])  # imports, first calls
    bare, run = [], []
    for _ in range(repeat):
        bare.append(bare_loop(registry, method, suite, pairs))
        run.append(whole_run(registry, method, suite, len(pairs)))
    ratios = [b / a for a, b in zip(bare, run, strict=True)]
    return {
        "method": method,
        "pairs": len(pairs),
        "bare_ms_per_pair": [round(1e3 * seconds, 2) for seconds in bare],
        "run_ms_per_pair": [round(1e3 * seconds, 2) for seconds in run],
        "ratio": [round(ratio, 3) for ratio in ratios],
        "median_ratio": round(float(np.median(ratios)), 3),
        "allowed": LIMIT,
    }


def memory(suite_name: str, n: int) -> dict[str, Any]:
    """Peak memory of `copy-content` over `n` pairs; the suite's pairs are repeated under new ids."""
    registry = load_registry()
    suite = load_suite(registry, suite_name)
    pairs = [replace(suite.pairs[i % len(suite.pairs)], id=f"{i:06d}") for i in range(n)]
    many = replace(suite, pairs=pairs)
    peaks = {}
    with tempfile.TemporaryDirectory() as out:
        for part in (n // 10, n):
            benchmark.run(registry, benchmark.prepare(registry, "copy-content", many, limit=part), out=Path(out))
            peaks[part] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"peak_mb": {str(part): round(peak) for part, peak in peaks.items()}, "allowed_mb": 1500}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "memory"))
    parser.add_argument("--method", default="paced")
    parser.add_argument("--suite", default="sprites-procedural")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    if given.what == "overhead":
        result = overhead(given.method, given.suite, given.pairs or 2664, given.repeat)
        good = result["median_ratio"] <= LIMIT
    else:
        result = memory(given.suite, given.pairs or 10_000)
        good = max(result["peak_mb"].values()) <= result["allowed_mb"]
    print(json.dumps(result, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
