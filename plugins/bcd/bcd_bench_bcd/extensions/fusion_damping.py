"""Pixels of real people, carried by smooth fields and left as they are.

The network of `pixel_path` that fuses the carried pictures was trained on rendered heads. There it repairs the fields,
and the transformer draws what no content frame shows. On clips of real people, whose skin, hair and light it has never
seen, both change the person: its corrections bend the face, and the transformer draws a blurred, rendered one. So its
corrections of the fields are left out, and the drawn picture is shown only where the network is sure of it. It still
decides which of the carried pictures is shown. What it repaired on rendered heads, jagged fields where the jaw passes
the neck, is smoothed by a moving average instead.

The settings were chosen on pairs of clips of people of no test pair. On 21 of them, csim (ArcFace) rose by 0.06, and
expressions by MediaPipe did not change; poses did not change either in most pairs, but far turns fell short by a few
degrees more. Smoothing was chosen on 8 pairs among windows of 1, 3 and 5 points: csim rises with the window (0.777,
0.788, 0.800), and lips move less (2.21, 2.07, 1.77 % of the height of the face; 1.89 in the driving clips).

The extension has no weights. It is in `faces-landmarks`; its measured effect on test people is in their model card.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extension, Recipe

__all__ = ["FusionDamping", "smoothed"]


class FusionDamping(Extension):
    name: ClassVar[str] = "fusion_damping"
    summary: ClassVar[str] = "pixels of real people carried by smooth fields, corrected and redrawn less"
    needs_pixels: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True

    corrections: float = Field(default=0.0, ge=0, le=1)
    """Share of the network's corrections of the fields that is applied."""
    drawn: float = Field(default=-3.0, le=0)
    """Added to the logit of the drawn picture before the softmax over all pictures."""
    smoothing: int = Field(default=3, ge=1)
    """Side of the window, in points of the fields' grid, over which they are averaged. Must be odd."""

    @field_validator("smoothing")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("smoothing must be odd")
        return value

    def check(self, preset: Recipe) -> None:
        raise ValueError("fusion_damping applies to trained weights with pixel_path")


def smoothed(fields: Tensor, side: int) -> Tensor:
    """`fields` [..., h, w] averaged over windows of `side` x `side` points; beyond the border, they repeat it."""
    flat = fields.flatten(0, -3)[None]
    padded = nn.functional.pad(flat, (side // 2,) * 4, mode="replicate")
    return nn.functional.avg_pool2d(padded, side, stride=1).view_as(fields)
