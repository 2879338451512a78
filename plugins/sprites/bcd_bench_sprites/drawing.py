"""Integer drawing on a 64 x 64 grid: masks of simple shapes, and cel-shaded painting into depth-tagged layers.

Everything is integer arithmetic on small numbers, so that every machine draws the same pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bcd_bench_sprites.factors import SIZE
from bcd_bench_sprites.layers import Layer, tagged

__all__ = ["Canvas", "Colour", "Mask", "Point", "capsule", "ellipse", "polygon", "rectangle", "xs", "ys"]

Mask = npt.NDArray[np.bool_]
Point = tuple[int, int]
"""(x, y) in pixels, y downwards."""
Colour = tuple[int, int, int]

ys, xs = (axis.astype(np.int64) for axis in np.mgrid[0:SIZE, 0:SIZE])


def ellipse(centre: Point, across: int, down: int) -> Mask:
    """Filled ellipse; `across` and `down` are its diameters in pixels."""
    dx, dy = 2 * (xs - centre[0]), 2 * (ys - centre[1])
    inside: Mask = dx * dx * down * down + dy * dy * across * across <= across * across * down * down
    return inside


def capsule(start: Point, end: Point, thick: int) -> Mask:
    """All pixels within `thick` / 2 of the segment from `start` to `end`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = dx * dx + dy * dy
    if length == 0:
        return ellipse(start, thick, thick)
    px, py = xs - start[0], ys - start[1]
    along = np.clip(px * dx + py * dy, 0, length)
    ax, ay = px * length - along * dx, py * length - along * dy
    inside: Mask = 4 * (ax * ax + ay * ay) <= thick * thick * length * length
    return inside


def polygon(*corners: Point) -> Mask:
    """Filled convex polygon, corners clockwise as seen on the screen, edges included."""
    inside = np.ones((SIZE, SIZE), np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        inside &= (x1 - x0) * (ys - y0) - (y1 - y0) * (xs - x0) >= 0
    return inside


def rectangle(left: int, top: int, right: int, bottom: int) -> Mask:
    """Filled rectangle, all four edges included."""
    inside: Mask = (xs >= left) & (xs <= right) & (ys >= top) & (ys <= bottom)
    return inside


class Canvas:
    """One layer of one frame. Nearer paint (larger depth) covers farther paint, in any order of painting."""

    def __init__(self) -> None:
        self.pixels: Layer = np.zeros((SIZE, SIZE), np.uint32)

    def flat(self, mask: Mask, colour: Colour, depth: int) -> None:
        """Paint one colour without an outline."""
        rgb = np.broadcast_to(np.array(colour, np.uint8), (SIZE, SIZE, 3))
        np.maximum(self.pixels, tagged(rgb, mask, depth), out=self.pixels)

    def paint(self, mask: Mask, colour: Colour, depth: int, *, outline: bool = True) -> None:
        """Paint lit from above left: a light upper rim, a dark lower rim, and a dark outline one pixel outside.

        Uses the depths `depth` (outline) and `depth` + 1 (fill).
        """
        padded = np.pad(mask, 1)
        above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
        left, right = padded[1:-1, :-2], padded[1:-1, 2:]
        if outline:
            self.flat((above | below | left | right) & ~mask, _scaled(colour, 5, 16), depth)
        self.flat(mask, colour, depth + 1)
        shade = mask & ~(below & right)
        light = mask & ~above & ~shade
        # `flat` keeps the maximum, so the rims are written directly over the fill, and only where the fill is visible.
        visible = self.pixels >> np.uint32(24) == depth + 1
        for rim, tone in ((shade, _scaled(colour, 11, 16)), (light, _lightened(colour))):
            self.pixels[rim & visible] = 0
            self.flat(rim & visible, tone, depth + 1)


def _scaled(colour: Colour, numerator: int, denominator: int) -> Colour:
    red, green, blue = (channel * numerator // denominator for channel in colour)
    return red, green, blue


def _lightened(colour: Colour) -> Colour:
    red, green, blue = (channel + (255 - channel) * 2 // 5 for channel in colour)
    return red, green, blue
