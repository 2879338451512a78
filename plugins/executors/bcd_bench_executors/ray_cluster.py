"""Connects to a Ray cluster, or starts a local one for the time of the command."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bcd_bench.types.errors import MissingDependencyError, UsageError, one_line, printable
from bcd_bench.util import machine

__all__ = ["connect", "default_jobs", "is_ours", "resources"]

PATIENCE = 5.0
"""Seconds in which the address of a cluster has to accept a connection."""
_started: list[bool] = []
"""Not empty if this process has started the local cluster."""


def import_ray() -> Any:
    """The module `ray`. Raises `MissingDependencyError` if it is not installed."""
    # Nothing is sent to the internet at run time, and workers without a GPU see those of the machine as other ones do.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # a busy machine needs more than the usual minute
    # Ray lowers the priority of workers to 15. Those of a local cluster would starve beside any other program.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingDependencyError(
            "executor 'ray' needs the package 'ray'", hint="pip install 'bcd-bench-executors[ray]'"
        ) from None
    return ray


def connect(settings: Mapping[str, Any]) -> Any:
    """The module `ray`, connected to the cluster of the setting `address`.

    An empty address means that of RAY_ADDRESS, or else a local cluster, which ends with this process. A connection that
    exists is kept. Raises `UsageError` if the address does not answer, and `MissingDependencyError` without Ray.
    """
    ray = import_ray()
    if ray.is_initialized():
        return ray
    address = str(settings.get("address") or os.environ.get("RAY_ADDRESS") or "local")
    where = "a local Ray cluster" if address == "local" else f"the Ray cluster at {address}"
    if address not in ("local", "auto"):
        _check(address)
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": machine.usable_cores()}
    _keep_stdout()
    try:
        with _own_signals():
            ray.init(**options)
    except Exception as error:
        hint = None if address == "local" else "ray status; RAY_AUTH_MODE=token if the cluster asks for a token"
        raise UsageError(f"cannot use {where}: {one_line(error, place=False)}", hint=hint) from error
    if address == "local":
        _started.append(True)
    return ray


def _keep_stdout() -> None:
    """Let Ray print the messages of its nodes on stderr: it prints them on stdout, where commands print results.

    Ray has no option for it. Deaths of workers are left out, since the pool reports them.
    """
    from ray._private import worker

    def show(data: Mapping[str, Any], *ignored: Any, **options: Any) -> None:
        lines = [printable(str(line)) for line in data.get("lines", ())]
        for line in lines:
            if "died" not in line:
                print(f"ray: {line}", file=sys.stderr)

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = show


def is_ours() -> bool:
    """Whether the cluster is a local one that this process has started, so that it has nobody else to share with."""
    return bool(_started)


def resources(ray: Any) -> dict[str, float]:
    """The cluster's numbers of "CPU" and "GPU"."""
    found = ray.cluster_resources()
    return {name: float(found.get(name, 0)) for name in ("CPU", "GPU")}


def gpus_per_worker(settings: Mapping[str, Any], device: str) -> float:
    """GPUs of a worker: the setting `gpus`, or if it is negative one for a CUDA device and none for the CPU."""
    given = float(settings["gpus"])
    return given if given >= 0 else float(device.startswith("cuda"))


def default_jobs(settings: Mapping[str, Any], device: str) -> int:
    """Workers that the cluster has room for; on a local cluster as many as without it."""
    ray = connect(settings)
    if is_ours() and device == "cpu":
        return machine.default_jobs()
    found, gpus = resources(ray), gpus_per_worker(settings, device)
    cpus = float(settings["cpus"])
    fitting = [int(found[name] / share) for name, share in (("CPU", cpus), ("GPU", gpus)) if share > 0]
    if min(fitting, default=1) < 1:
        raise UsageError(
            f"the Ray cluster has {found['CPU']:g} CPUs and {found['GPU']:g} GPUs, and a worker needs {cpus:g} and "
            f"{gpus:g}",
            hint="--ray-cpus N, --ray-gpus N; or --jobs N if the cluster grows on demand",
        )
    return min(fitting, default=1)


def _check(address: str) -> None:
    """Raise `UsageError` if nothing listens at "[ray://]HOST:PORT"; Ray itself would try for minutes."""
    place = address.rpartition("://")[2]
    host, colon, port = place.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"--ray-address {address}: must be HOST:PORT, ray://HOST:PORT, auto or local")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"the Ray cluster at {address} does not answer: {reason}", hint="ray status; ray start --head --port 6379"
        ) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of SIGINT and SIGTERM, which `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
