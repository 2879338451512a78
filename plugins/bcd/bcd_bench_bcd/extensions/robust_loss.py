"""A pseudo-Huber loss instead of the squared error: 2 c (sqrt(e^2 + c^2) - c).

Errors above c weigh less, so that outlines do not dominate the few low-contrast pixels (skin, trousers). Both losses
agree for small errors.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, StepState

__all__ = ["RobustLoss", "pseudo_huber"]


class RobustLoss(Extension):
    name: ClassVar[str] = "robust_loss"
    summary: ClassVar[str] = "pseudo-Huber loss instead of the squared error"

    width: float = Field(default=0.05, gt=0)
    """c, in units of values in [-1, 1]."""
    start: int = Field(default=0, ge=0)
    """First step with this loss; the squared error is used before it."""

    def augment(self, state: StepState) -> None:
        if state.step >= self.start:
            state.penalty = partial(pseudo_huber, width=self.width)


def pseudo_huber(difference: Tensor, width: float) -> Tensor:
    """The squared error for small differences, linear for large ones."""
    return 2 * width * ((difference.square() + width**2).sqrt() - width)
