"""Which device is meant, and what it is good at: for plugins that compute with torch.

Importing this module imports no torch; the functions do, where they need it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.types.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "device_name", "fast_bf16", "keep_freed_memory", "resolve_device"]

DEVICES = "cpu, cuda, cuda:N or auto"
"""What `--device` takes, as its help says it."""
_KEEPING = ((-4, 0), (-1, 2**31 - 1), (-2, 1 << 28))
"""glibc's M_MMAP_MAX: no blocks of their own for large requests; M_TRIM_THRESHOLD: give nothing back; M_TOP_PAD: ask
the system for a quarter of a gigabyte at a time."""
CPU_DESCRIPTION = Path("/proc/cpuinfo")


def device_name(name: str) -> str:
    """`name` if it is "cpu", "cuda" or "cuda:N", and for "auto" "cuda" where torch is installed and sees a GPU, else
    "cpu". Whether this machine has a device that was named is left to whoever computes on it.

    torch is imported for "auto" only. Raises `UsageError` for any other name.
    """
    if name == "auto":
        return "cuda" if importlib.util.find_spec("torch") and _torch().cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]{0,2}))?", name):
        raise UsageError(f"--device {name}: no such device", hint=f"--device {DEVICES}")
    return name


def resolve_device(name: str) -> torch.device:
    """The device of this machine that "cpu", "cuda", "cuda:N" or "auto" names.

    Raises `UsageError` for other names and devices that are not there, `MissingDependencyError` without torch.
    """
    library = _torch()
    device: torch.device = library.device(device_name(name))
    if device.type == "cuda":
        count = library.cuda.device_count()
        if (device.index or 0) >= count:
            raise UsageError(f"--device {name}: this machine has {count} CUDA devices", hint="--device auto")
    return device


def fast_bf16(device_type: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on "cpu" or "cuda".

    On a CPU: with AMX, or with AVX512-BF16 unless Intel made it. Intel's cores do as many float32 products a cycle by
    AVX-512 as bfloat16 ones by AVX512-BF16, and converting costs more than is gained (0.6 to 0.8 of the speed).
    Raises `MissingDependencyError` without torch.
    """
    torch = _torch()
    if device_type == "cuda":
        return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and not _made_by_intel()


def keep_freed_memory(device_type: str) -> bool:
    """Have glibc keep large freed blocks for the next ones, for the rest of the process; says whether it does.

    A training step on a CPU allocates the same gigabytes over and over. glibc hands large blocks back to the system at
    once, which zeroes every page anew: a quarter of the time of some steps. With another library, and for work on
    another device than "cpu", this does nothing.
    """
    if device_type != "cpu":
        return False
    try:
        setting = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be asked
        return False
    return all(setting(parameter, value) == 1 for parameter, value in _KEEPING)


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError("this needs the package 'torch'", hint="pip install torch") from error
    return torch


def _made_by_intel() -> bool:
    try:
        description = CPU_DESCRIPTION.read_text()
    except OSError:
        description = platform.processor()
    return "Intel" in description
