"""Muon (Jordan et al. 2024) for the hidden matrices: their updates are orthogonalised; all others use AdamW.

The kernel of a convolution in the stem is treated as a matrix, output channels by inputs.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["Muon"]


class Muon(Extension):
    name: ClassVar[str] = "muon"
    summary: ClassVar[str] = "Muon for the hidden matrices, AdamW for the rest"

    lr: float = Field(default=2e-3, gt=0)
    """Learning rate of the hidden matrices."""
