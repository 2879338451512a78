"""`bcd-bench merge`: combines the shards of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load
from bcd_bench.cli.tables import exit_code, print_runs
from bcd_bench.cli.workers import Devices, Executor, ExecutorSettings, Jobs, LogJson, Timeout, open_pool_workers
from bcd_bench.util.progress import open_progress

EXAMPLES = ("bcd-bench merge runs/sprites-procedural@1/bcd/0123456789ab",)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with the shards of `run --shard`.")],
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Device for metrics (default: that of the run).")
    ] = None,
    executor: Executor = "local",
    settings: ExecutorSettings = None,
    jobs: Jobs = None,
    devices: Devices = None,
    timeout: Timeout = None,
    log_json: LogJson = None,
) -> int:
    """Combine the shards of a run and write its record.

    The last shard does the same by itself, so this is needed only if it could not.
    """
    from bcd_bench.run.folder import RunFolder
    from bcd_bench.run.merge import merge
    from bcd_bench.run.pipeline import finish

    device = device or RunFolder(run).plan.device
    registry, progress = load(), open_progress(log=log_json)
    workers = open_pool_workers(registry, executor, settings, jobs, device, devices, timeout)
    merged = merge(registry, run, device=device, jobs=workers.jobs, pool=workers.pool, progress=progress)
    finish(registry, merged)
    print_runs([merged.path])
    return exit_code([merged.path])
