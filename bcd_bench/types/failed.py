"""A pair, feature or value that could not be computed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Failed"]


@dataclass(frozen=True)
class Failed:
    """A pair, feature or value that could not be computed. Counted as missing coverage, never averaged as 0."""

    reason: str
