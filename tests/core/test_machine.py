"""What the machine offers: cores by affinity and quota, memory, CUDA devices by number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bcd_bench.types.errors import UsageError
from bcd_bench.util import machine
from bcd_bench.util.machine import cuda_devices, default_jobs, memory_limit, peak_memory, usable_cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000"}, 16),
        ({"cpu.max": "350000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 16),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
    ],
)
def test_cores_are_those_of_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert usable_cores(tmp_path) == cores


def test_memory_is_bounded_by_the_container(tmp_path: Path) -> None:
    free = memory_limit(tmp_path)
    assert free is None or free > 2**20
    (tmp_path / "memory.max").write_text("1048576\n")
    assert memory_limit(tmp_path) == 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit(tmp_path) is None or memory_limit(tmp_path) > 2**20  # type: ignore[operator]


@pytest.mark.parametrize(("cores", "memory", "jobs"), [(8, 64, 8), (8, 5, 2), (8, 1, 1), (8, None, 8)])
def test_workers_fit_into_memory(monkeypatch: pytest.MonkeyPatch, cores: int, memory: int | None, jobs: int) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(machine, "memory_limit", lambda: None if memory is None else memory * 2**30)
    assert default_jobs() == jobs
    assert default_jobs(3) == 3, "one per GPU"


def test_the_peak_is_that_of_this_process() -> None:
    before = peak_memory()
    assert 10 < before < 100_000
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory() >= before
    del block


def test_cuda_devices_are_chosen_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "_count_devices", lambda: 4)
    assert cuda_devices("cpu") == cuda_devices("cuda:1") == ()
    assert cuda_devices("cuda") == ("0", "1", "2", "3")
    assert cuda_devices("cuda", "0,2") == ("0", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert cuda_devices("cuda") == ("GPU-a", "GPU-b")
    assert cuda_devices("cuda", "1") == ("GPU-b",)
    for device, chosen, reason in (
        ("cuda", "2", "this machine has 2 CUDA devices"),
        ("cuda", "0,0", "not a list of different device numbers"),
        ("cuda", "x", "not a list of different device numbers"),
        ("cpu", "0", "only for --device cuda, not cpu"),
        ("cuda:1", "0", "only for --device cuda, not cuda:1"),
    ):
        with pytest.raises(UsageError, match=reason):
            cuda_devices(device, chosen)
