"""A rectangle of a clip's frames."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Crop"]


@dataclass(frozen=True)
class Crop:
    """A rectangle in pixels of the upright frames, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int
    notes: tuple[str, ...] = ()
    """Notes for the user, such as a second face."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left
