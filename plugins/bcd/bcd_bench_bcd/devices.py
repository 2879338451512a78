"""What the device at hand is good at."""

from __future__ import annotations

import torch

__all__ = ["fast_bf16"]


def fast_bf16(device_type: str) -> bool:
    """Whether bfloat16 matrix products run in hardware on "cpu" (AVX512-BF16, AMX) or "cuda"."""
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
