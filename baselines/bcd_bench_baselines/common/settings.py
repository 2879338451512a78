"""Settings that all native methods share, as their specs show them; light, so that specs may import it."""

from __future__ import annotations

from typing import Any

__all__ = ["COMMON", "SEEDED"]

SEEDED = "seeded"
"""The setting that puts pseudo-random weights in the place of a published file (`MethodSpec.seeded_by`)."""

COMMON: dict[str, Any] = {SEEDED: None, "dtype": "float32", "compile": False, "batch_frames": 16}
"""Defaults of `frame_method.CommonConfig`."""
