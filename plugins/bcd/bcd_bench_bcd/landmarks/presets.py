"""The presets of `bcd-bench train bcd-landmarks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcd_bench_bcd.landmarks.config import LandmarkPreset
from bcd_bench_bcd.presets.lookup import named_preset

__all__ = ["NOT_RESULTS", "PRESETS", "resolve_preset", "settings_of"]

NOT_RESULTS = {"train": {"tracker"}}
"""Settings that do not affect results: they may change when a run is resumed."""

PRESETS = {
    "heads-landmarks": LandmarkPreset(
        summary="motion codes from landmarks, for heads-small, on the points of rendered heads; half an hour of a core",
        bcd="heads-small",
    ),
}


def resolve_preset(name: str, overrides: Mapping[str, Any] | None = None) -> LandmarkPreset:
    """The preset `name` with dotted `overrides` ("train.lr": 1e-4) applied and validated.

    Raises `UsageError` for unknown presets or fields and for values out of range.
    """
    return named_preset(PRESETS, name, overrides, "bcd-landmarks")


def settings_of(name: str) -> list[tuple[str, Any, str]]:
    """Every setting of the preset `name`: its dotted name, its value as JSON, and its meaning."""
    from bcd_bench_bcd.presets.registry import fields_of

    return [field for field in fields_of(resolve_preset(name)) if field[0] != "summary"]
