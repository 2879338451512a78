"""What an ablation consists of: variants of a preset, and claims that compare two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bcd_bench_bcd.landmarks.config import LandmarkPreset
    from bcd_bench_bcd.presets.base import Preset

__all__ = ["CONTENT", "IDENTITY", "MOTION", "OVERALL", "Ablation", "Claim", "Study", "Variant"]

MOTION = ("motion-error", "action")
"""Columns that measure whether the motion was transferred, on faces and on Sprites."""
IDENTITY = ("shape-error", "leak-content")
"""Columns that measure whether the output shows the driving clip's subject instead of the content clip's."""
CONTENT = ("shape-error", "content-accuracy")
"""Columns that measure whether the content was kept."""
OVERALL = ("cross-error", "exact-psnr", "target-psnr")
"""Columns that compare the output with what the transfer should show."""


@dataclass(frozen=True)
class Variant:
    """One row of an ablation: a changed training, a changed method setting, or both."""

    name: str
    """Label of the row, and part of a folder's name."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the preset, as `bcd-bench train --set`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the method, as `bcd-bench run --set`."""
    x: float | None = None
    """Position on the horizontal axis of the picture; None: a category."""
    note: str = ""
    """What the reader should know about the variant, for instance which other extensions it lacks."""

    def to_json(self) -> dict[str, Any]:
        """The variant as plain values."""
        return {
            "name": self.name,
            "overrides": dict(self.overrides),
            "settings": dict(self.settings),
            "x": self.x,
            "note": self.note,
        }


@dataclass(frozen=True)
class Claim:
    """A statement that the comparison of two variants supports or contradicts.

    Without a `margin`, the claim is that `better` has the better values. With a `margin`, it is that the two differ by
    less: by that of the column, in its unit, or by `ROBUST_FRACTION` of the value for columns that are not listed.
    """

    text: str
    better: str
    worse: str
    columns: tuple[str, ...]
    """The claim is decided by the first of these columns that was scored."""
    paper: str = ""
    """The paper's own numbers; empty for a claim that is not the paper's."""
    margin: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Study:
    """An ablation applied to a preset: its variants, the claims about them, and notes about both."""

    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """A named ablation."""

    name: str
    summary: str
    source: str
    """Tables and figures of the paper that it corresponds to; empty if there are none."""
    trains: bool
    """Whether each variant is trained; otherwise all variants use the same weights."""
    study: Callable[[Preset], Study]
    """The variants of a preset of `bcd-bench train bcd`."""
    varies: tuple[str, ...] = ()
    """Settings of the preset that the variants set; `--set` may not change them."""
    landmark_study: Callable[[LandmarkPreset], Study] | None = None
    """The variants of a preset of `bcd-bench train bcd-landmarks`; None: the ablation does not apply to them."""
    landmark_varies: tuple[str, ...] = ()
    """`varies` for these presets."""
    axis: str = ""
    """Label of the horizontal axis of the picture, for variants with an `x`."""
    timed: bool = False
    """Whether the variants differ in speed, so that tables show the time per clip, on a logarithmic axis of work."""
