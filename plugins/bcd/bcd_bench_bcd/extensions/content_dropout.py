"""Drop the content (but not the motion) of some clips, so that motion has to come from the code.

While content is dropped, a code that also encodes the character lowers the loss; so dropout stops once the content
bottleneck has its penalty.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, Schedule, StepState, constant

__all__ = ["ContentDropout"]


class ContentDropout(Extension):
    name: ClassVar[str] = "content_dropout"
    summary: ClassVar[str] = "content alone replaced by the null in some clips"

    probability: Schedule = constant(0.15)
    """Probability of dropping a clip's content."""

    def content_drop(self, state: StepState) -> Tensor:
        return state.chance(self.probability.at(state.step))
