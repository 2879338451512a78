"""Expressions of real people, enlarged before they are encoded.

The network of dense landmarks, which has only seen rendered heads, finds part of a real expression only: lips, lids and
brows move less in its landmarks than in the frames. So what remains of the landmarks once the head pose is removed is
enlarged about its mean over the clip, for the driving clip and for the content alike.

The extension has no weights. It is in `faces-landmarks`; its measured effect is in their model card.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["ExpressionGain", "enlarged"]


class ExpressionGain(Extension):
    name: ClassVar[str] = "expression_gain"
    summary: ClassVar[str] = "expressions of real people, enlarged before they are encoded"
    needs_pixels: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True
    added_to: ClassVar[str] = "landmark_motion"

    factor: float = Field(default=1.7, gt=0)
    """Factor about the mean over the clip."""


def enlarged(values: Tensor, factor: float) -> Tensor:
    """Values [B, T, C], whose distance from their mean over T is `factor` times as large."""
    mean = values.mean(1, keepdim=True)
    return mean + factor * (values - mean)
