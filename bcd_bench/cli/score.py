"""`bcd-bench score`: scores finished runs again, with other metrics or newer versions of the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_bench.cli.common import load, print_error, print_notes, split_names
from bcd_bench.cli.complete import metrics
from bcd_bench.cli.tables import exit_code, print_runs
from bcd_bench.cli.workers import (
    Devices,
    Executor,
    ExecutorSettings,
    Jobs,
    LogJson,
    Timeout,
    Workers,
    open_pool_workers,
)
from bcd_bench.types.errors import BcdBenchError, Interrupted
from bcd_bench.util.devices import DEVICES
from bcd_bench.util.progress import open_progress

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.folder import RunFolder
    from bcd_bench.util.progress import Progress

EXAMPLES = (
    "bcd-bench score runs",
    "bcd-bench score runs/heads-cross@1/bcd --metric csim,fid --device cuda",
)


def _score(
    registry: Registry,
    run: RunFolder,
    metrics: list[str],
    device: str,
    progress: Progress,
    workers: Workers,
    *,
    strict: bool,
) -> None:
    """Score one run and rewrite its record. `metrics` are the default ones if empty; `strict` requires all of them."""
    from bcd_bench.results.build import write_record
    from bcd_bench.run.pipeline import default_metrics, finish
    from bcd_bench.scoring.score import check_metrics, find_assets, installed_metrics, score_run

    suite = None if metrics else run.suite(registry)
    names = metrics
    if suite is not None:
        names, left_out = installed_metrics(registry, default_metrics(registry, suite, run.plan.method.name))
        print_notes([*suite.notes, *left_out])
    specs = check_metrics(registry, run.plan.suite.name, names)
    if strict or metrics:
        find_assets(registry, specs)
    results = score_run(
        registry, run, names, device=device, jobs=workers.jobs, pool=workers.pool, progress=progress, suite=suite
    )
    write_record(registry, run, results)
    finish(registry, run)


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that contain some.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="M[,M…]", help="Metrics (default: as in `run`).", autocompletion=metrics),
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
    executor: Executor = "local",
    settings: ExecutorSettings = None,
    jobs: Jobs = None,
    devices: Devices = None,
    timeout: Timeout = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if a default metric is missing an asset.")] = False,
    log_json: LogJson = None,
) -> int:
    """Score finished runs again, without generating."""
    names = split_names(metric, "--metric")
    from bcd_bench.run.folder import find_runs

    registry, folders = load(), find_runs(runs)
    workers = open_pool_workers(registry, executor, settings, jobs, device, devices, timeout)
    progress = open_progress(log=log_json)
    scored: list[Path] = []
    first: BcdBenchError | None = None
    for run in folders:
        try:
            _score(registry, run, names, device, progress, workers, strict=strict)
        except Interrupted:
            raise
        except BcdBenchError as error:
            if len(folders) == 1:
                raise
            first = first or error
            print_error(error, run.path)
            continue
        scored.append(run.path)
    print_runs(scored)
    return first.exit_code if first else exit_code(scored, required=names or (None if strict else ()))
