"""Presets of the trainers beside `train bcd`, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from bcd_bench.plugin.settings import change_tree
from bcd_bench.types.errors import UsageError

__all__ = ["named_preset"]

P = TypeVar("P", bound=BaseModel)


def named_preset(presets: Mapping[str, P], name: str, overrides: Mapping[str, Any] | None, owner: str) -> P:
    """The preset `name` of the trainer `owner` with dotted `overrides` ("train.lr": 1e-4) applied and validated.

    Raises `UsageError` for unknown presets or fields and for values out of range.
    """
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=2)
        raise UsageError(
            f"unknown preset {name!r} of {owner}; nearest: {', '.join(near) or 'none'}",
            hint=f"choose one of: {', '.join(presets)}",
        )
    return change_tree(presets[name], overrides or {}, owner=owner, fixed=("summary",))
