"""Device selection and device properties, for plugins that compute with torch.

Importing this module does not import torch; the functions import it when needed.
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
"""Valid values of `--device`, as shown in its help text."""
_KEEPING = ((-4, 0), (-1, 2**31 - 1), (-2, 1 << 28))
"""glibc's M_MMAP_MAX: no separate mappings for large requests; M_TRIM_THRESHOLD: never return memory; M_TOP_PAD:
request 256 MiB at a time from the system."""
CPU_DESCRIPTION = Path("/proc/cpuinfo")


def device_name(name: str) -> str:
    """`name` if it is "cpu", "cuda" or "cuda:N"; for "auto", "cuda" if torch is installed and finds a GPU, else "cpu".
    A named device is not checked for existence here.

    torch is imported only for "auto". Raises `UsageError` for any other name.
    """
    if name == "auto":
        return "cuda" if importlib.util.find_spec("torch") and _torch().cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]{0,2}))?", name):
        raise UsageError(f"--device {name}: no such device", hint=f"--device {DEVICES}")
    return name


def resolve_device(name: str) -> torch.device:
    """The device of this machine for "cpu", "cuda", "cuda:N" or "auto".

    Raises `UsageError` for other names and unavailable devices, `MissingDependencyError` without torch.
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

    True for CPUs with AMX, or with AVX512-BF16 unless made by Intel. Intel cores compute as many float32 products per
    cycle with AVX-512 as bfloat16 products with AVX512-BF16, and the conversion costs more than is gained (0.6 to 0.8
    of the speed). Raises `MissingDependencyError` without torch.
    """
    torch = _torch()
    if device_type == "cuda":
        return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and not _made_by_intel()


def keep_freed_memory(device_type: str) -> bool:
    """Make glibc reuse large freed blocks for the rest of the process; returns whether this succeeded.

    A training step on a CPU allocates the same gigabytes repeatedly. glibc returns large blocks to the system
    immediately, which then zeroes every page again: a quarter of the time of some steps. Does nothing with other C
    libraries and for devices other than "cpu".
    """
    if device_type != "cpu":
        return False
    try:
        setting = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be loaded
        return False
    return all(setting(parameter, value) == 1 for parameter, value in _KEEPING)


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError("this requires the package 'torch'", hint="pip install torch") from error
    return torch


def _made_by_intel() -> bool:
    try:
        description = CPU_DESCRIPTION.read_text()
    except OSError:
        description = platform.processor()
    return "Intel" in description
