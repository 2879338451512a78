"""Same-identity clip pairs: the halves of a training clip are two clips of one person with unrelated motions.

The content of one half then carries no information about the motion of the other. This requires a suite whose training
split can produce such pairs (rendered heads), so it uses identity labels.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["SameIdentityPairs"]


class SameIdentityPairs(Extension):
    name: ClassVar[str] = "same_identity_pairs"
    summary: ClassVar[str] = "the halves of a training clip are two clips of one person"
    labels: ClassVar[bool] = True

    frames: int = Field(default=8, ge=1)
    """Frames of each clip of a pair."""
    stride: int = Field(default=1, ge=1)
    """Distance between these frames, in frames of the suite."""
