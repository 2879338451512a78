"""How long a run will take: from an earlier run on this machine, or from timing one pair."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.results.schema import TIMING_NAME
from bcd_bench.run.environment import cpu_name
from bcd_bench.run.executor import Batch, Work, close_method, load_method, run_batch
from bcd_bench.run.folder import RunFolder
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.types.errors import BcdBenchError, UsageError
from bcd_bench.types.failed import Failed

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.pipeline import Prepared
    from bcd_bench.run.plan import RunPlan

__all__ = ["Estimate", "estimate"]

QUICK = 2.0
"""Seconds below which a second pair is timed: the first one pays for what is loaded or compiled on first use."""


@dataclass(frozen=True)
class Estimate:
    """Seconds for the unfinished pairs of a run with one worker; None if unknown. `basis` says where they come from."""

    seconds: float | None
    basis: str


def estimate(registry: Registry, prepared: Prepared, out: Path) -> Estimate:
    """Estimate the time of a run below `out`.

    An earlier run of the method on the suite, with the same settings, weights and device on a machine like this one,
    gives the time of a pair, and of scoring it if it was scored with the same metrics. Otherwise the method is loaded
    and one pair is generated; a method whose settings name files or commands is not started for that.
    """
    plan = prepared.plan
    finished = _finished(out / plan.folder)
    left = len(plan.pairs) - finished
    if left == 0:
        return Estimate(0.0, "all pairs are generated")
    earlier = _earlier(prepared, out)
    if earlier is not None:
        seconds, scoring, count = earlier
        with_scores = "" if scoring is None else " and scoring"
        return Estimate(
            left * (seconds + (scoring or 0.0)), f"from {count} pairs of an earlier run, generation{with_scores}"
        )
    if registry.method(plan.method.name).identify:
        return Estimate(None, "there is no earlier run, and the method may start other programs")
    try:
        seconds = _timed(registry, prepared)
    except BcdBenchError as error:
        return Estimate(None, " ".join(str(error).split()))
    return Estimate(left * seconds, "one pair was timed; without scoring, and batches can be faster")


def _finished(folder: Path) -> int:
    return len(RunFolder(folder).finished()) if (folder / "plan.json").exists() else 0


def _earlier(prepared: Prepared, out: Path) -> tuple[float, float | None, int] | None:
    """Seconds per pair to generate and (if known) to score, and the number of pairs, of the earlier run with the most
    pairs."""
    plan = prepared.plan
    best: tuple[float, float | None, int] | None = None
    for path in sorted((out / plan.folder).parent.glob("*/plan.json")):
        try:
            run = RunFolder(path.parent)
        except UsageError:  # of another version, or damaged
            continue
        results = [result for result in run.pairs().values() if result.status == "ok"]
        if not results or not _alike(run.plan, plan) or not _here(run):
            continue
        if best is None or len(results) > best[2]:
            seconds = sum(result.seconds for result in results) / len(results)
            best = (seconds, _scoring(run, prepared.metrics, len(results)), len(results))
    return best


def _alike(earlier: RunPlan, plan: RunPlan) -> bool:
    same_weights = (earlier.weights and earlier.weights.sha256) == (plan.weights and plan.weights.sha256)
    return bool(
        same_weights
        and earlier.method.version == plan.method.version
        and earlier.method.config == plan.method.config
        and earlier.device == plan.device
        and earlier.suite.size == plan.suite.size
    )


def _here(run: RunFolder) -> bool:
    """Whether a run was made on a machine like this one."""
    recorded = run.env()
    here = (cpu_name(), os.cpu_count(), os.environ.get("OMP_NUM_THREADS"))
    return (recorded.get("cpu"), recorded.get("cpu_count"), recorded.get("threads")) == here


def _scoring(run: RunFolder, metrics: Iterable[str], pairs: int) -> float | None:
    try:
        timed = json.loads((run.path / TIMING_NAME).read_bytes())["score_seconds"]
        return float(sum(timed[name] for name in metrics)) / pairs
    except (OSError, ValueError, KeyError, TypeError):  # not scored, or with other metrics
        return None


def _timed(registry: Registry, prepared: Prepared) -> float:
    """Seconds of one pair, without loading the method. Raises `UsageError` if the method fails on it."""
    plan, suite = prepared.plan, prepared.suite
    spec = registry.method(plan.method.name)
    extractors = tuple(needed_extractors(registry, spec.extractors))
    work = Work(
        plan.method.name, spec.factory, plan.method.config, plan.weights_path, plan.device, plan.seed, suite.size,
        extractors,
    )  # fmt: skip
    pairs = list(plan.suite_pairs(suite)[:2])
    method = load_method(work)
    seconds = 0.0
    try:
        for pair in pairs:
            started = time.perf_counter()
            [result] = run_batch(method, Batch(0, [pair]), seed=plan.seed, size=suite.size).results
            seconds = time.perf_counter() - started
            if isinstance(result, Failed):
                raise UsageError(f"the method fails on pair {pair.id}: {result.reason}")
            if seconds > QUICK:
                break
    finally:
        close_method(method)
    return seconds
