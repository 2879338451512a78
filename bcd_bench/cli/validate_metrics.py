"""`bcd-bench validate-metrics`: the sensitivity of metrics to perturbations of known severity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load, parse_data, split_names, to_jsonable
from bcd_bench.cli.complete import metrics, suites
from bcd_bench.cli.workers import Devices, Executor, ExecutorSettings, Jobs, LogJson, Timeout, open_pool_workers
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES
from bcd_bench.util.progress import open_progress

EXAMPLES = (
    "bcd-bench validate-metrics --suite heads-cross-128 --limit 12",
    "bcd-bench validate-metrics --suite heads-cross --metric csim --perturbation blur,wrong-identity",
)


def command(
    suite: Annotated[str, typer.Option(metavar="S", help="A suite with ground-truth targets.", autocompletion=suites)],
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="M[,M…]", help="Metrics (default: the suite's).", autocompletion=metrics),
    ] = None,
    perturbation: Annotated[
        list[str] | None, typer.Option(metavar="P[,P…]", help="Perturbations (default: all).")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data for the suite.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pairs.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed of the perturbations.")] = 0,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
    executor: Executor = "local",
    settings: ExecutorSettings = None,
    jobs: Jobs = None,
    devices: Devices = None,
    timeout: Timeout = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file: .json with all numbers, else markdown.")
    ] = None,
    log_json: LogJson = None,
) -> None:
    """Measure how metrics respond to controlled perturbations of ground-truth targets."""
    from bcd_bench.io.atomic import write_bytes_atomic
    from bcd_bench.metric_validation.report import render
    from bcd_bench.metric_validation.run import validate
    from bcd_bench.plugin.suites import load_suite

    registry = load()
    if output is not None and not output.parent.is_dir():
        raise UsageError(
            f"--output {output}: the folder {output.parent} does not exist", hint=f"mkdir -p {output.parent}"
        )
    workers = open_pool_workers(registry, executor, settings, jobs, device, devices, timeout)
    validation = validate(
        registry,
        load_suite(registry, suite, parse_data(data or [])),
        split_names(metric, "--metric") or None,
        perturbations=split_names(perturbation, "--perturbation") or None,
        limit=limit,
        seed=seed,
        device=device,
        jobs=workers.jobs,
        pool=workers.pool,
        progress=open_progress(log=log_json),
    )
    if output is None:
        print(render(validation), end="")
        return
    as_json = output.suffix == ".json"
    text = (
        json.dumps(to_jsonable(validation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if as_json
        else render(validation)
    )
    write_bytes_atomic(output, text.encode())
    print(f"written: {output}")
