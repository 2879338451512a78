"""What the device at hand is good at."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from bcd_bench.errors import UsageError

__all__ = ["fast_bf16", "resolve_device"]

CPU_DESCRIPTION = Path("/proc/cpuinfo")


def resolve_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" names on this machine. Raises `UsageError` for any other."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: no such device", hint="--device cpu, cuda, cuda:N or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices", hint="--device cpu"
        )
    return device


def fast_bf16(device_type: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on "cpu" or "cuda".

    On a CPU: with AMX, or with AVX512-BF16 unless Intel made it. Intel's cores do as many float32 products a cycle by
    AVX-512 as bfloat16 ones by AVX512-BF16, and converting costs more than is gained (0.6 to 0.8 of the speed).
    """
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and not _made_by_intel()


def _made_by_intel() -> bool:
    try:
        description = CPU_DESCRIPTION.read_text()
    except OSError:
        description = platform.processor()
    return "Intel" in description
