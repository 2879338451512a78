"""The setting of extensions that average over a window."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

__all__ = ["OddWindow"]


def _odd(value: int, info: ValidationInfo) -> int:
    if value % 2 == 0:
        raise ValueError(f"{info.field_name} must be odd")
    return value


OddWindow = Annotated[int, AfterValidator(_odd)]
"""A number of points or frames with one in the middle."""
