"""The appearance of a person beyond the shape of the face: skin, hair, eyes, clothes, light and background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["HAIR_STYLES", "Background", "Look", "random_look"]

Colour = tuple[float, float, float]
"""Red, green, blue in 0..1, as displayed (sRGB)."""

SKIN: Final = np.array(
    [
        [0.93, 0.77, 0.69],
        [0.88, 0.69, 0.57],
        [0.78, 0.57, 0.44],
        [0.62, 0.43, 0.31],
        [0.45, 0.30, 0.22],
        [0.31, 0.20, 0.15],
    ]
)
HAIR: Final = np.array(
    [
        [0.05, 0.045, 0.04],
        [0.15, 0.10, 0.07],
        [0.27, 0.17, 0.10],
        [0.52, 0.38, 0.22],
        [0.40, 0.17, 0.08],
        [0.55, 0.53, 0.51],
    ]
)
IRIS: Final = np.array(
    [[0.20, 0.11, 0.06], [0.32, 0.20, 0.10], [0.30, 0.42, 0.52], [0.33, 0.38, 0.24], [0.40, 0.44, 0.46]]
)
HAIR_STYLES: Final = ("shaved", "cropped", "short", "fringe", "bob", "long")


@dataclass(frozen=True)
class Background:
    """The background: corner colours, and blurred blobs (column, row, radius in picture widths, colour)."""

    corners: tuple[Colour, Colour, Colour, Colour]
    blobs: tuple[tuple[float, float, float, Colour], ...] = ()


@dataclass(frozen=True)
class Look:
    """One appearance, constant over a clip. Lengths in mm, angles in radians, fractions in 0..1."""

    skin: Colour
    ruddiness: float
    freckles: float
    pattern: tuple[float, ...]
    """Mixing weights of the fixed skin patterns, so that every person's skin is different."""
    lips: Colour
    make_up: float
    iris: Colour
    brow: Colour
    brow_thickness: float
    brow_arch: float
    brow_density: float
    hair: Colour
    hair_style: str
    hair_volume: float
    hairline: float
    parting: float
    beard: float
    """0 shaven, up to 0.35 stubble, 1 a full beard."""
    shirt: Colour
    stripe: Colour
    stripe_width: float
    neckline: float
    """Depth of the collar's opening below the chin."""
    key: tuple[float, float]
    """Azimuth (positive from the right of the picture) and elevation of the main light."""
    key_colour: Colour
    fill: float
    ambient: Colour
    ground: Colour
    background: Background


def random_look(rng: np.random.Generator) -> Look:
    """A random appearance; all parts are sampled in a fixed order, so a generator state determines the look."""
    tone = rng.uniform()
    skin = _between(SKIN, tone) * rng.uniform(0.95, 1.04, 3)
    fair = tone < 0.5
    shares = np.array([0.3, 0.25, 0.17, 0.13, 0.06, 0.09]) if fair else np.array([0.7, 0.2, 0.02, 0.0, 0.0, 0.08])
    hair = HAIR[rng.choice(len(HAIR), p=shares)] * rng.uniform(0.8, 1.2)
    iris = IRIS[rng.choice(len(IRIS), p=(0.35, 0.2, 0.2, 0.12, 0.13) if fair else (0.75, 0.25, 0, 0, 0))]
    style = HAIR_STYLES[rng.choice(len(HAIR_STYLES), p=(0.08, 0.2, 0.24, 0.14, 0.16, 0.18))]
    long = style in ("bob", "long")
    beard = 0.0 if long or rng.uniform() < 0.6 else rng.uniform(0.15, 1.0)
    lips = skin * (0.88, 0.70, 0.69) + (rng.uniform(0, 0.06), 0, 0)
    make_up = float(rng.uniform(0.2, 0.8) if beard == 0 and rng.uniform() < (0.6 if long else 0.15) else 0.0)
    lips = lips * (1 - 0.6 * make_up) + np.array([0.60, 0.20, 0.23]) * rng.uniform(0.7, 1.15) * 0.6 * make_up
    pattern = rng.standard_normal(16)
    warm = rng.normal(0, 0.05)
    level = rng.uniform(0.75, 1.15)
    return Look(
        skin=_colour(skin),
        ruddiness=float(rng.uniform(0.1, 0.8) * (1.1 - 0.6 * tone)),
        freckles=float(rng.uniform(0.3, 1.0) if fair and rng.uniform() < 0.2 else 0.0),
        pattern=tuple(float(value) for value in pattern),
        lips=_colour(lips),
        make_up=make_up,
        iris=_colour(iris * rng.uniform(0.8, 1.2)),
        brow=_colour(hair * 0.75 + skin * 0.08),
        brow_thickness=float(rng.uniform(2.2, 4.6) * (0.8 if make_up else 1.0)),
        brow_arch=float(rng.uniform(2.5, 7.0)),
        brow_density=float(rng.uniform(0.55, 0.95)),
        hair=_colour(hair),
        hair_style=style,
        hair_volume=float(rng.uniform(0.0, 1.0)),
        hairline=float(rng.uniform(-1.0, 1.0)),
        parting=float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)),
        beard=float(beard),
        shirt=_colour(np.clip(rng.uniform(0.04, 0.9) + rng.normal(0, 0.14, 3), 0.02, 0.97)),
        stripe=_colour(np.clip(rng.uniform(0.04, 0.9) + rng.normal(0, 0.14, 3), 0.02, 0.97)),
        stripe_width=float(rng.uniform(8, 24) if rng.uniform() < 0.25 else 0.0),
        neckline=float(rng.choice([0.0, 20.0, 40.0, 65.0]) + rng.uniform(0, 12)),
        key=(float(rng.uniform(-1.1, 1.1)), float(rng.uniform(0.1, 0.9))),
        key_colour=_colour(np.array([1 + warm, 1.0, 1 - warm]) * level * rng.uniform(0.75, 1.0)),
        fill=float(rng.uniform(0.08, 0.4)),
        ambient=_colour(np.array([1 - 0.5 * warm, 1.0, 1 + 0.5 * warm]) * level * rng.uniform(0.35, 0.6)),
        ground=_colour(np.array([1 + warm, 1.0, 1 - warm]) * level * rng.uniform(0.2, 0.4)),
        background=_random_background(rng),
    )


def _random_background(rng: np.random.Generator) -> Background:
    kind = rng.choice(3)
    base = np.clip(rng.uniform(0.08, 0.85) + rng.normal(0, 0.07, 3), 0.02, 0.95)
    if kind == 0:  # plain
        return Background((_colour(base),) * 4)
    spread = rng.uniform(0.05, 0.3)
    corners = tuple(
        _colour(np.clip(base + rng.normal(0, spread) + rng.normal(0, 0.04, 3), 0.02, 0.97)) for _ in range(4)
    )
    blobs = []
    if kind == 2:
        for _ in range(rng.integers(4, 10)):
            colour = np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.12, 3), 0.02, 0.97)
            column, row, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.2)
            blobs.append((float(column), float(row), float(radius), _colour(colour)))
    return Background(corners, tuple(blobs))  # type: ignore[arg-type]


def _between(table: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """The colour at position `share` (0..1) along a table."""
    at = share * (len(table) - 1)
    low = min(int(at), len(table) - 2)
    return np.asarray(table[low] * (1 - at + low) + table[low + 1] * (at - low))


def _colour(values: npt.NDArray[np.floating]) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
