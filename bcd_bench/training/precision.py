"""The precision of matrix products and convolutions in training."""

from __future__ import annotations

from typing import Literal

from bcd_bench.util.devices import fast_bf16

__all__ = ["PRECISIONS", "Precision", "resolve_precision"]

Precision = Literal["fp32", "bf16"]
PRECISIONS = ("auto", "fp32", "bf16")
"""Valid values of a trainer's setting `precision`."""


def resolve_precision(precision: str, device_type: str) -> Precision:
    """Resolve one of `PRECISIONS` on "cpu" or "cuda": "auto" is "bf16" if the device computes faster in bfloat16 than
    in float32 (`bcd_bench.util.devices.fast_bf16`), otherwise "fp32".

    Raises `ValueError` for other names; trainers validate their settings beforehand.
    """
    if precision == "auto":
        return "bf16" if fast_bf16(device_type) else "fp32"
    if precision == "fp32":
        return "fp32"
    if precision == "bf16":
        return "bf16"
    raise ValueError(f"precision {precision!r}: must be one of {', '.join(PRECISIONS)}")
