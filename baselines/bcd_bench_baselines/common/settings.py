"""Settings shared by all native methods, as listed in their specs; lightweight, so that specs can import it."""

from __future__ import annotations

from typing import Any

__all__ = ["COMMON", "SEEDED"]

SEEDED = "seeded"
"""The setting that replaces a published file by random weights (`MethodSpec.seeded_by`)."""

COMMON: dict[str, Any] = {SEEDED: None, "dtype": "float32", "compile": False, "batch_frames": 16}
"""Defaults of `frame_method.CommonConfig`."""
