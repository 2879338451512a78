"""The state of a run, read from its folder: works while it runs, on any machine that sees the folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from bcd_bench.run.folder import RunFolder
from bcd_bench.run.merge import DONE
from bcd_bench.run.timing import read_timing

__all__ = ["PartStatus", "RunStatus", "status_of"]


@dataclass(frozen=True)
class PartStatus:
    """One shard, or the whole run (`shard` is None). Times are in seconds."""

    shard: str | None
    n_pairs: int
    n_finished: int
    n_failed: int
    state: str
    """One of "not started", "generating", "scoring" (all pairs are finished, the scores are not), or "finished"."""
    seconds_per_pair: float | None
    """Mean time of a worker per pair."""
    last_result: float | None
    """Time since the last result was written."""


@dataclass(frozen=True)
class RunStatus:
    """A run and its parts. `recorded` means that the record is written, so nothing is left to do."""

    path: str
    suite: str
    method: str
    n_pairs: int
    n_finished: int
    n_failed: int
    recorded: bool
    parts: tuple[PartStatus, ...]
    workers: dict[str, Any]
    """`timing.json`: number of workers, wall time and peak memory of each finished stage."""


def status_of(run: RunFolder) -> RunStatus:
    """The state of a run and of its shards, from what is on disk."""
    shards = run.shards()
    parts = [_part(part, bool((part.part / DONE).exists())) for part in shards.values()]
    if not parts or run.pairs_path.exists():
        parts = [_part(run, run.record_path.exists())]
    return RunStatus(
        path=str(run.path),
        suite=f"{run.plan.suite.name}@{run.plan.suite.version}",
        method=run.plan.method.name,
        n_pairs=len(run.plan.pairs),
        n_finished=sum(part.n_finished for part in parts),
        n_failed=sum(part.n_failed for part in parts),
        recorded=run.record_path.exists(),
        parts=tuple(parts),
        workers={
            str(part.shard or "run"): timing["workers"]
            for part in (run, *shards.values())
            if "workers" in (timing := read_timing(part.part))
        },
    )


def _part(run: RunFolder, finished: bool) -> PartStatus:
    pairs = run.pairs()
    total = sum(1 for _ in run.indices())
    complete = len(pairs) == total
    started = run.pairs_path.exists()
    seconds = [result.seconds for result in pairs.values() if result.status == "ok"]
    return PartStatus(
        shard=None if run.shard is None else str(run.shard),
        n_pairs=total,
        n_finished=len(pairs),
        n_failed=sum(result.status == "failed" for result in pairs.values()),
        state="finished" if finished else "scoring" if complete else "generating" if started else "not started",
        seconds_per_pair=round(sum(seconds) / len(seconds), 3) if seconds else None,
        last_result=round(max(0.0, time.time() - run.pairs_path.stat().st_mtime), 1) if started else None,
    )
