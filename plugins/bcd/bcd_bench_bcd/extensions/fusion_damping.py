"""Pixels of real people, left as they are carried.

The network of `pixel_path` that fuses the carried pictures was trained on rendered heads. There it repairs the fields,
and the transformer draws what no content frame shows. On clips of real people, whose skin, hair and light it has never
seen, both change the person: its corrections bend the face, and the transformer draws a blurred, rendered one. So its
corrections of the fields are left out, and the drawn picture is shown only where the network is sure of it. It still
decides which of the carried pictures is shown.

The settings were chosen on 21 pairs of clips of people of no test pair: csim (ArcFace) rose by 0.06, with a logit that
is lower by 3 or by 5 alike, and expressions by MediaPipe did not change; poses did not change either in most pairs, but
far turns fell short by a few degrees more.

The extension has no weights. It is in `faces-landmarks`; its measured effect on test people is in their model card.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["FusionDamping"]


class FusionDamping(Extension):
    name: ClassVar[str] = "fusion_damping"
    summary: ClassVar[str] = "pixels of real people corrected and redrawn less"
    needs_pixels: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True
    added_to: ClassVar[str] = "pixel_path"

    corrections: float = Field(default=0.0, ge=0, le=1)
    """Share of the network's corrections of the fields that is applied."""
    drawn: float = Field(default=-3.0, le=0)
    """Added to the logit of the drawn picture before the softmax over all pictures."""
