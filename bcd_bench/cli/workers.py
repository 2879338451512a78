"""The options of commands that work in parallel: `--jobs`, `--devices`, `--timeout`, `--log-json`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.util.pool import PoolOptions

__all__ = ["Devices", "Jobs", "LogJson", "Timeout", "Workers", "open_workers"]

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


@dataclass(frozen=True)
class Workers:
    """The number of workers, and how they run."""

    jobs: int
    pool: PoolOptions


def open_workers(jobs: int | None, device: str, devices: str | None, timeout: float | None) -> Workers:
    """The workers that these options ask for; a number of workers that was not given is printed on stderr.

    Sets OMP_NUM_THREADS to the threads of a worker, if it is not set.

    Raises `UsageError` for GPUs that do not exist and for a time limit that is not positive.
    """
    from bcd_bench.util.devices import device_name
    from bcd_bench.util.machine import cuda_devices, default_jobs, usable_cores
    from bcd_bench.util.pool import PoolOptions, worker_threads

    if timeout is not None and not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout {timeout:g}: must be a positive number of seconds", hint="--timeout 600")
    chosen = cuda_devices(device_name(device), devices)
    if jobs is None:
        jobs = default_jobs(len(chosen))
        threads = worker_threads()
        reason = f"{len(chosen)} GPUs" if chosen else f"{usable_cores()} usable cores"
        print(
            f"workers: {jobs} ({reason}; {threads} thread{'s' if threads > 1 else ''} each); --jobs N changes it",
            file=sys.stderr,
        )
    # Processes of other executors inherit it, so their results and records are those of our workers.
    os.environ.setdefault("OMP_NUM_THREADS", str(worker_threads()))
    return Workers(jobs, PoolOptions(timeout=timeout, devices=chosen))
