"""An upper bound on EDM's loss weight, so that small noise levels do not dominate (cf. Min-SNR, Hang et al. 2023)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["LossWeightClamp"]


class LossWeightClamp(Extension):
    name: ClassVar[str] = "loss_weight_clamp"
    summary: ClassVar[str] = "upper bound on EDM's loss weight"

    max: float = Field(default=6.0, gt=0)
    """The largest weight."""

    def loss_weight(self, weight: Tensor) -> Tensor:
        return weight.clamp(max=self.max)
