"""Spatial motion channels: a linear map of the motion code to a few channels per patch, added to every noisy patch.

In the paper, motion reaches the decoder through adaptive norms alone. With those, the decoder of `heads-small` took
much longer to learn where the head is.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension, Recipe

__all__ = ["SpatialMotion"]


class SpatialMotion(Extension):
    name: ClassVar[str] = "spatial_motion"
    summary: ClassVar[str] = "channels of a linear map of the motion code for every patch"
    changes_model: ClassVar[bool] = True

    channels: int = Field(default=16, ge=1)
    """Channels per patch."""

    def check(self, preset: Recipe) -> None:
        if "content_channels" not in preset.extensions.names:
            raise ValueError("spatial_motion requires content_channels")
