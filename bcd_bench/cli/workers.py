"""The options of commands that work in parallel: `--jobs`, `--devices`, `--timeout`, `--log-json`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.complete import executors
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExecutorSpec
    from bcd_bench.util.pool import PoolOptions

__all__ = [
    "Devices",
    "Executor",
    "ExecutorSettings",
    "Jobs",
    "LogJson",
    "Timeout",
    "Workers",
    "open_pool_workers",
    "open_workers",
]

Executor = Annotated[
    str, typer.Option(metavar="NAME", help="Who does the work, see docs/parallel.md.", autocompletion=executors)
]

Jobs = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Worker processes (default: cores that may be used, or one per GPU)."),
]
Devices = Annotated[
    str | None, typer.Option(metavar="I[,I…]", help="GPUs for --device cuda, one per worker (default: all).")
]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Time limit per pair; a pair that takes longer fails.")
]
LogJson = Annotated[
    Path | None, typer.Option("--log-json", metavar="FILE", help="Append every event to FILE, one JSON line each.")
]
ExecutorSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="executor.K=V", help="Change a setting of the executor.")
]


@dataclass(frozen=True)
class Workers:
    """The number of workers, and how they run."""

    jobs: int
    pool: PoolOptions


def open_workers(
    jobs: int | None,
    device: str,
    devices: str | None,
    timeout: float | None,
    executor: ExecutorSpec | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Workers:
    """The workers that these options ask for; a number of workers that was not given is printed on stderr.

    `settings` are those of the `executor` (default: `local`). Sets OMP_NUM_THREADS to the threads of a worker, if it is
    not set.

    Raises `UsageError` for GPUs that do not exist, for a time limit that is not positive, and for options and settings
    that the executor does not have.
    """
    from bcd_bench.run.executors import check_executor, default_workers, with_executor
    from bcd_bench.util.devices import device_name
    from bcd_bench.util.machine import cuda_devices, default_jobs, usable_cores
    from bcd_bench.util.pool import PoolOptions, worker_threads

    if timeout is not None and not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout {timeout:g}: must be a positive number of seconds", hint="--timeout 600")
    device = device_name(device)
    here = executor is None or executor.name == "local"
    if executor is not None:
        check_executor(executor, timeout=timeout, devices=devices)
    chosen = cuda_devices(device, devices) if here else ()
    # Processes of other executors inherit it, so their results and records are those of our workers.
    os.environ.setdefault("OMP_NUM_THREADS", str(worker_threads()))
    pool = PoolOptions(timeout=timeout, devices=chosen, device=device)
    if executor is not None:
        pool = with_executor(executor, pool, settings or {})
        if jobs is None:
            jobs = default_workers(executor, pool.settings, device)
            if jobs is not None:
                print(f"workers: {jobs} (executor {executor.name}); --jobs N changes it", file=sys.stderr)
    if jobs is None:
        jobs = default_jobs(len(chosen))
        threads = worker_threads()
        reason = f"{len(chosen)} GPUs" if chosen else f"{usable_cores()} usable cores"
        print(
            f"workers: {jobs} ({reason}; {threads} thread{'s' if threads > 1 else ''} each); --jobs N changes it",
            file=sys.stderr,
        )
    return Workers(jobs, pool)


def open_pool_workers(
    registry: Registry,
    name: str,
    given: list[str] | None,
    jobs: int | None,
    device: str,
    devices: str | None,
    timeout: float | None,
) -> Workers:
    """As `open_workers`, for commands that need a pool of workers; `given` are the values of `--set`.

    Raises `UsageError` if the executor called `name` has no pool, and for settings of something else.
    """
    from bcd_bench.cli.common import parse_settings
    from bcd_bench.run.executors import split_settings

    spec = registry.executor(name)
    if name != "local" and not spec.pool:
        raise UsageError(f"--executor {name}: it only runs methods (`bcd-bench run`)", hint="--executor local")
    others, settings = split_settings(parse_settings(given or [], "--set"))
    if others:
        raise UsageError(f"--set {next(iter(others))}: not a setting of an executor", hint="--set executor.K=V")
    return open_workers(jobs, device, devices, timeout, spec, settings)
