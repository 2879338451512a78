"""Which processors are trusted with bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bcd_bench.errors import UsageError
from bcd_bench_bcd import devices


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
    amx: bool, avx512_bf16: bool, vendor: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = tmp_path / "cpuinfo"
    description.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(devices, "CPU_DESCRIPTION", description)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert devices.fast_bf16("cpu") is fast


def test_where_there_is_no_description_the_processor_names_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "CPU_DESCRIPTION", tmp_path / "absent")
    monkeypatch.setattr(devices.platform, "processor", lambda: "Intel64 Family 6 Model 143")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert devices.fast_bf16("cpu") is False


def test_devices_are_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.resolve_device("cpu") == devices.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="this machine has 0 CUDA devices"):
        devices.resolve_device("cuda")
    for name in ("banana", "meta", "cuda:x"):
        with pytest.raises(UsageError, match=f"--device {name}: no such device"):
            devices.resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device("auto") == torch.device("cuda")
    assert devices.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="this machine has 2"):
        devices.resolve_device("cuda:2")
