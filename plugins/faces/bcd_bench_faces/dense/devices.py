"""Which device is meant, and what it is good at."""

from __future__ import annotations

from pathlib import Path

import torch

from bcd_bench.errors import UsageError

__all__ = ["fast_bf16", "resolve_device"]


def resolve_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" names on this machine. Raises `UsageError` for any other."""
    try:
        device = torch.device(
            "cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name
        )
    except RuntimeError:
        raise UsageError(f"--device {name}: no such device", hint="--device cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def fast_bf16(device: str) -> bool:
    """Whether products in bfloat16 are faster: on a GPU that has it, on a CPU with AMX, or AMD's with AVX512-BF16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    if torch.cpu._is_amx_tile_supported():
        return True
    try:
        maker = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return bool(torch.cpu._is_avx512_bf16_supported()) and "AuthenticAMD" in maker
