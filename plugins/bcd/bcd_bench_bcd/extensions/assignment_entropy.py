"""A penalty on the assignment entropy H(code | frame), so that the code is not noise.

A code that is uniform noise meets any target rate and carries no information. The penalty is in bits.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension, StepState

__all__ = ["AssignmentEntropy"]


class AssignmentEntropy(Extension):
    name: ClassVar[str] = "assignment_entropy"
    summary: ClassVar[str] = "penalty on H(code | frame)"

    weight: float = Field(default=0.02, gt=0)
    """Weight of the entropy, per bit."""

    def after_decoder(self, state: StepState) -> None:
        if not state.model.quantizer.bypass:
            state.total = state.total + self.weight * state.quantized.conditional_bits
