"""What this machine offers to a program: processor cores, memory, and the CUDA devices it may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bcd_bench.types.errors import UsageError

__all__ = ["cuda_devices", "default_jobs", "memory_limit", "peak_memory", "usable_cores"]

CGROUP = Path("/sys/fs/cgroup")
MEMORY_PER_WORKER = 2 * 2**30
"""Bytes that a worker is assumed to need when the default number of workers is chosen: torch and a small model."""


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its CPU affinity (also set by Slurm and taskset), and the CPU quota of its
    container, rounded down; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _cpu_quota(cgroup: Path) -> float | None:
    """The CPU quota in cores, from version 2 or 1 of Linux control groups; None without a quota."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no quota
        return None
    return cores if cores > 0 else None


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Bytes of memory that are available now: of the machine, or of the container if it has less; None if unknown."""
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass  # not Linux: unknown
    for file in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # the file of the other version, or "max"
            continue
    return min(limits, default=None)


def default_jobs(devices: int = 0) -> int:
    """The number of workers without `--jobs`: one per CUDA device if there are any, else one per usable core, but not
    more than fit into the available memory at 2 GiB each; at least 1."""
    if devices:
        return devices
    memory = memory_limit()
    cores = usable_cores()
    return max(1, cores if memory is None else min(cores, memory // MEMORY_PER_WORKER))


def peak_memory() -> float:
    """The largest resident memory of this process so far, in MiB (2**20 bytes)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # getrusage would include the process that started this one
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass  # not Linux: ask getrusage
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def cuda_devices(device: str, chosen: str | None = None) -> tuple[str, ...]:
    """The values of CUDA_VISIBLE_DEVICES for workers, one CUDA device each.

    `device` is that of `--device`: "cuda" means every visible device; for "cpu" and "cuda:N" the result is empty, since
    all workers then use the same device. `chosen` is the value of `--devices`: indices of visible devices, such as
    "0,2". Raises `UsageError` for devices that do not exist, and for `--devices` without `--device cuda`.
    """
    if device != "cuda":
        if chosen is not None:
            raise UsageError(f"--devices {chosen}: only for --device cuda, not {device}", hint="--device cuda")
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
    else:
        names = [str(index) for index in range(_count_devices())]
    if chosen is None:
        return tuple(names)
    parts = [part.strip() for part in chosen.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(f"--devices {chosen}: not a list of different device numbers", hint="--devices 0,1")
    for part in parts:
        if int(part) >= len(names):
            raise UsageError(f"--devices {chosen}: this machine has {len(names)} CUDA devices", hint="--devices 0")
    return tuple(names[int(part)] for part in parts)


def _count_devices() -> int:
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return int(torch.cuda.device_count())
