"""Runs one shard in a process that an executor has started somewhere."""

from __future__ import annotations

import os

from bcd_bench.plugin.registry import load_registry
from bcd_bench.run.elsewhere import ShardWork
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.pipeline import Prepared, run
from bcd_bench.run.shard import Shard
from bcd_bench.util.pool import PoolOptions
from bcd_bench.util.progress import open_progress

__all__ = ["run_shard"]


def run_shard(work: ShardWork, shard: Shard, *, jobs: int, devices: tuple[str, ...] = ()) -> None:
    """Generate and score a shard with `jobs` worker processes, and merge the run if it was the last shard.

    `devices` are values of CUDA_VISIBLE_DEVICES for the workers. Pairs that fail are recorded. Raises `BcdBenchError`
    as `bcd-bench run` does, and `Interrupted` after Ctrl-C or SIGTERM; calling it again continues.
    """
    os.environ.update(work.environment)
    registry = load_registry()
    run(
        registry,
        Prepared(work.plan, RunFolder(work.folder).suite(registry), work.metrics),
        jobs=jobs,
        pool=PoolOptions(timeout=work.timeout, devices=devices, device=work.plan.device),
        shard=shard,
        out=work.out,
        retry_failed=work.retry_failed,
        progress=open_progress(),
    )
