"""Which device is meant, and which processors are trusted with bfloat16."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bcd_bench.types.errors import MissingDependencyError, UsageError
from bcd_bench.util import devices


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def with_gpus(count: int, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "vendor", "fast"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),  # no faster than float32 there
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
    ],
)
def test_bf16_where_it_is_faster(
    amx: bool, avx512_bf16: bool, vendor: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: Any
) -> None:
    description = tmp_path / "cpuinfo"
    description.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(devices, "CPU_DESCRIPTION", description)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert devices.fast_bf16("cpu") is fast


def test_where_there_is_no_description_the_processor_names_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: Any
) -> None:
    monkeypatch.setattr(devices, "CPU_DESCRIPTION", tmp_path / "absent")
    monkeypatch.setattr(devices.platform, "processor", lambda: "Intel64 Family 6 Model 143")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert devices.fast_bf16("cpu") is False


def test_bf16_is_not_fast_on_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    with_gpus(0, torch, monkeypatch)
    assert devices.fast_bf16("cuda") is False


def test_devices_are_found_or_refused(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    with_gpus(0, torch, monkeypatch)
    assert devices.resolve_device("cpu") == devices.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="this machine has 0 CUDA devices"):
        devices.resolve_device("cuda")
    with_gpus(2, torch, monkeypatch)
    assert devices.resolve_device("auto") == torch.device("cuda")
    assert devices.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="this machine has 2"):
        devices.resolve_device("cuda:2")


@pytest.mark.parametrize(
    "name", ["banana", "meta", "", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:01", "auto "]
)
def test_what_names_no_device_is_refused(name: str, torch: Any) -> None:
    for asked in (devices.device_name, devices.resolve_device):
        with pytest.raises(UsageError, match=f"^--device {name}: no such device$") as refused:
            asked(name)
        assert refused.value.hint == "--device cpu, cuda, cuda:N or auto"


def test_only_auto_depends_on_the_machine(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    for count, automatic in ((0, "cpu"), (1, "cuda")):
        with_gpus(count, torch, monkeypatch)
        assert devices.device_name("auto") == automatic
        assert [devices.device_name(name) for name in ("cpu", "cuda", "cuda:3")] == ["cpu", "cuda", "cuda:3"]


WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name.split(".")[0] == "torch" else PathFinder.find_spec(name, *rest)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
from bcd_bench.util import devices
from bcd_bench.types.errors import MissingDependencyError
print(devices.device_name("auto"), devices.device_name("cuda:1"))
for call in (lambda: devices.resolve_device("auto"), lambda: devices.fast_bf16("cpu")):
    try:
        call()
    except MissingDependencyError as error:
        print(f"{error} -> {error.hint}")
"""


def test_without_torch_it_imports_and_says_what_is_missing() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["cpu cuda:1", *["this requires the package 'torch' -> pip install torch"] * 2]
    assert MissingDependencyError.exit_code == 3


def test_importing_it_imports_no_torch() -> None:
    look = (
        "import sys, bcd_bench.util.devices as it; it.device_name('cuda'); print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    code = """
import resource
import numpy as np
from bcd_bench.util.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(1 << 25)  # 256 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory("cpu"), faults() and faults())
"""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    before, kept, after = done.stdout.split()
    assert kept == "True"
    assert int(after) * 20 < int(before)
