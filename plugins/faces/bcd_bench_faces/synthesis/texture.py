"""Paints a person on the atlas: skin, lips, brows, beard, eyes, hair, clothes, by position on the mean head.

Positions are those on the mean head in mm (x right, y down, z away, origin between the eyes), so the paint moves with
the face's shape and expression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.synthesis.appearance import Look
from bcd_bench_faces.synthesis.surface import HAIR, Surface

__all__ = ["Painting", "hair_ends", "hair_thickness", "linear", "paint"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Painting:
    """The atlas of one person: `albedo` float32[h, w, 3] (linear light), `gloss` and `alpha` float32[h, w] in 0..1."""

    albedo: Floats
    gloss: Floats
    alpha: Floats


def linear(colour: npt.ArrayLike) -> Floats:
    """Displayed sRGB 0..1 as linear light."""
    c = np.clip(np.asarray(colour, np.float32), 0, None)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


def paint(surface: Surface, look: Look) -> Painting:
    """Paint `look` on the atlas."""
    colour = np.zeros((len(surface.position), 3), np.float32)
    gloss = np.zeros(len(colour), np.float32)
    alpha = np.ones(len(colour), np.float32)
    noise = _mixed(surface, look)
    for labels, painter in (((0,), _skin), ((1, 2), _eyes), ((HAIR,), _hair), ((3, 4, 5, 6, 7), _inside)):
        texels = np.flatnonzero(np.isin(surface.label, labels))
        colour[texels], gloss[texels], alpha[texels] = painter(surface, look, texels, noise[:, texels])
    at = surface.texel_of
    return Painting(linear(colour)[at], gloss[at], alpha[at])


Painted = tuple[Floats, Floats | float, Floats | float]
Chosen = npt.NDArray[np.intp]


def _mixed(surface: Surface, look: Look) -> Floats:
    """float32[scales, P]: this person's mix of the fixed patterns, with unit standard deviation."""
    weights = np.array(look.pattern, np.float32).reshape(surface.noise.shape[:2])
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return np.asarray(np.einsum("sf,sfp->sp", weights, surface.noise))


def _skin(surface: Surface, look: Look, chosen: Chosen, noise: Floats) -> Painted:
    x, y, z = surface.position[chosen].T
    side = np.abs(x)
    lips, lids, ears = surface.masks[chosen].T
    front = _step(60, 40, z)
    pores, small, middle, large = noise
    colour = (
        np.array(look.skin, np.float32) * (1 + 0.020 * pores + 0.018 * small + 0.014 * middle + 0.012 * large)[:, None]
    )

    blood = 0.6 * _blob(side, 36, 17, y, 34, 17) + 0.8 * _blob(x, 0, 13, y, 42, 11) + 0.6 * ears + 0.35 * lids
    blood += 0.3 * _blob(x, 0, 20, y, 95, 12) + 0.12 * middle
    colour *= 1 - (look.ruddiness * 0.30 * np.clip(blood, 0, 1) * np.clip(front + ears, 0, 1))[:, None] * (
        0.12,
        0.75,
        0.7,
    )
    tired = _blob(side, 26, 13, y, 14, 5) + 0.5 * _blob(side, 14, 5, y, 2, 8)
    colour *= 1 - 0.08 * (tired * front)[:, None] * np.array([0.8, 1.0, 0.9])
    spots = _step(1.0, 1.9, small) * (_blob(side, 26, 30, y, 28, 20) + 0.4 * _blob(x, 0, 40, y, -40, 20)) * front
    colour *= 1 - 0.38 * look.freckles * np.clip(spots, 0, 1)[:, None] * (0.5, 0.9, 1.0)
    gloss = 0.20 + 0.16 * (_blob(x, 0, 9, y, 36, 14) + _blob(x, 0, 30, y, -45, 20)) * front + 0.03 * pores

    shade = look.make_up * 0.55 * _step(0.15, 0.7, lids + 0.5 * _blob(side, 30, 18, y, -8, 5)) * front
    colour = _over(colour, np.array(look.brow) * 0.7 + np.array(look.skin) * 0.2, shade)
    colour, gloss = _beard(look, colour, gloss, side, y, z, noise, lips)
    inner = _step(0.25, 0.75, lips)
    colour = _over(colour, np.array(look.lips, np.float32) * (1 + 0.05 * small[:, None]), inner)
    gloss = gloss * (1 - inner) + (0.34 + 0.2 * look.make_up) * inner
    colour = _over(colour, np.array(look.brow), _brows(look, side, y, noise) * front)

    scalp = _scalp(look, x, y, z, small, pores)
    colour = _over(colour, np.array(look.hair) * (1 + 0.15 * small + 0.1 * pores)[:, None], scalp)
    gloss *= 1 - 0.6 * scalp
    return _clothes(look, colour, gloss, x, y, z, noise)


def _beard(
    look: Look, colour: Floats, gloss: Floats, side: Floats, y: Floats, z: Floats, noise: Floats, lips: Floats
) -> tuple[Floats, Floats]:
    if not look.beard:
        return colour, gloss
    jaw = _step(44, 62, y + 0.0045 * (side - 20) ** 2 * (side < 20) - 0.40 * np.clip(z - 25, 0, 40))
    moustache = _blob(side, 12, 15, y, 56, 6)
    bald = _blob(side, 30, 14, y, 50, 10) + _blob(side, 0, 5, y, 88, 3)
    edge = np.clip(jaw + moustache, 0, 1) * (1 - np.clip(bald, 0, 1)) * _step(128, 112, y) * _step(86, 66, z)
    cover = np.clip(edge * (1.0 + 0.25 * noise[1] + 0.2 * noise[0]), 0, 1) * (1 - np.clip(2 * lips, 0, 1))
    strength = min(0.2 + 0.95 * look.beard, 0.92)
    hairs = np.array(look.brow) * (1 + 0.22 * noise[0] + 0.12 * noise[1])[:, None]
    return _over(colour, hairs, cover * strength), gloss * (1 - 0.6 * cover * strength)


def _brows(look: Look, side: Floats, y: Floats, noise: Floats) -> Floats:
    along = (side - 11.0) / 42.0
    t = np.clip(along, 0, 1)
    middle = -15.5 - look.brow_arch * np.sin(np.pi * t**1.15 * 0.95)
    half = look.brow_thickness * (1 - 0.72 * t**2) * np.clip(0.55 + 3 * t, 0, 1)
    cover = (
        _step(1.5, -1.0, np.abs(y - middle) - half + 0.4 * noise[0])
        * _step(-0.06, 0.08, along)
        * _step(1.06, 0.9, along)
    )
    return np.asarray(np.clip(cover * look.brow_density * (1 + 0.25 * noise[0]), 0, 1))


def _scalp(look: Look, x: Floats, y: Floats, z: Floats, small: Floats, pores: Floats) -> Floats:
    """Hair coverage of the scalp, with an irregular edge."""
    azimuth = np.abs(np.arctan2(x, -(z - 88)))
    rise = 6.0 * look.hairline
    knots = (
        (0.0, -74 - rise),
        (0.3, -74 - rise),
        (0.55, -77 - rise),
        (0.8, -62),
        (1.0, -38),
        (1.15, -20),
        (1.35, -2),
        (1.62, 4),
        (1.8, 34),
        (2.2, 78),
        (3.2, 84),
    )
    line = np.interp(azimuth, *np.array(knots).T).astype(np.float32)
    cover = _step(-5.0, 8.0, line - y + 1.2 * small + 1.6 * pores)
    return np.asarray(cover * (0.45 if look.hair_style == "shaved" else 1.0), np.float32)


def _clothes(look: Look, colour: Floats, gloss: Floats, x: Floats, y: Floats, z: Floats, noise: Floats) -> Painted:
    """A shirt below the collar, which is lower in front by the depth of the neckline."""
    azimuth = np.abs(np.arctan2(x, -(z - 70)))
    open_by = look.neckline * np.clip(1 - azimuth / 1.5, 0, 1) ** 1.2
    below = y - 0.10 * np.abs(x) - (138.0 + open_by - 12.0 * np.clip(azimuth - 1.0, 0, 1.2))
    cloth = np.array(look.shirt, np.float32) * (1 + 0.05 * noise[0] + 0.05 * noise[2])[:, None]
    if look.stripe_width:
        stripes = _step(-0.1, 0.1, np.sin((y + 0.25 * np.abs(x)) * np.pi / look.stripe_width))
        cloth = _over(cloth, np.array(look.stripe), stripes)
    hem = _blob(below, 8.0, 1.0, below, 8.0, 1e3)
    cloth = cloth * (1 - 0.35 * hem[:, None])
    cover = _step(-0.7, 0.7, below)
    shadow = 0.3 * _step(-9.0, 0.0, below) * (1 - cover)
    colour = colour * (1 - shadow[:, None])
    return np.clip(_over(colour, cloth, cover), 0.005, 1), gloss * (1 - cover) + 0.04 * cover, 1.0


def _eyes(surface: Surface, look: Look, chosen: Chosen, noise: Floats) -> Painted:
    x, y, _ = surface.position[chosen].T
    centre = np.where(surface.label[chosen] == 1, 1, -1) * surface.eye_distance / 2
    dx, dy = x - centre, y
    radius = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx)
    white = np.array([0.86, 0.83, 0.81], np.float32) * np.clip(1.03 - 0.012 * np.abs(dx), 0, 1)[:, None]
    white = _over(white, np.array([0.72, 0.42, 0.38]), 0.45 * _step(7.5, 11.5, np.abs(dx)))
    fibres = 1 + 0.16 * np.sin(angle * 17 + 2 * np.sin(angle * 5)) * _step(2, 4, radius)
    iris = np.array(look.iris, np.float32) * (fibres * (0.75 + 0.5 * _step(5.8, 3.0, radius)))[:, None]
    iris *= (1 - 0.65 * _step(4.8, 5.9, radius))[:, None]
    colour = _over(white, iris, _step(6.1, 5.5, radius))
    colour = _over(colour, np.array([0.015, 0.012, 0.012]), _step(2.6, 2.1, radius))
    return colour, 0.85, 1.0


def _inside(surface: Surface, look: Look, chosen: Chosen, noise: Floats) -> Painted:
    label = surface.label[chosen]
    depth = surface.position[chosen, 2]
    colour = np.empty((len(chosen), 3), np.float32)
    skin = np.array(look.skin)
    plain = {
        3: (0.84, 0.81, 0.73),
        4: (0.66, 0.30, 0.29),
        5: tuple(0.35 * np.array(look.brow)),
        6: (0.42, 0.13, 0.12),
        7: tuple(skin * (0.75, 0.5, 0.45)),
    }
    for value, shade in plain.items():
        colour[label == value] = shade
    mouth = np.isin(label, (3, 4, 6))
    deep = np.clip(1.0 - (depth - 0.0) / 55.0, 0.25, 1.0)
    colour[mouth] *= deep[mouth, None]
    gloss = np.where(label == 3, 0.45, np.where(np.isin(label, (4, 6)), 0.3, 0.0)).astype(np.float32)
    alpha = np.where(label == 5, 0.38 + 0.3 * look.make_up, 1.0).astype(np.float32)
    return colour, gloss, alpha


def hair_ends(look: Look, azimuth: Floats) -> Floats:
    """The row (0..1) at which the hair shell ends at each azimuth, before fraying."""
    a = np.abs(azimuth)
    style = look.hair_style
    forehead = 0.298 - 0.018 * look.hairline  # rows at the hairline in front; temples recede slightly
    front = forehead + (0.125 if style == "fringe" else -0.03 * np.exp(-(((a - 0.55) / 0.2) ** 2)))
    sides = {"cropped": 0.50, "short": 0.55, "fringe": 0.58, "bob": 0.80, "long": 0.99}.get(style, 0.0)
    back = {"cropped": 0.64, "short": 0.66, "fringe": 0.665, "bob": 0.84, "long": 1.0}.get(style, 0.0)
    open_to = 0.98 if style in ("bob", "long") else 1.08
    ends = front + (sides - front) * _step(open_to - 0.22, open_to + 0.28, a)
    ends = ends + (back - ends) * _step(1.7, 2.2, a)
    return np.asarray(ends, np.float32)


def hair_thickness(look: Look, grid: Floats) -> Floats:
    """Distance float32[H] in mm of the shell from the scalp, smaller at its edge and along the parting."""
    azimuth, row = grid.T
    least, most = {"cropped": (2, 8), "short": (6, 20), "fringe": (8, 18), "bob": (9, 20), "long": (8, 18)}.get(
        look.hair_style, (0, 0)
    )
    full = least + (most - least) * look.hair_volume
    edge = hair_ends(look, azimuth) - row
    least_taper = 0.5 if look.hair_style == "fringe" else 0.06
    loose = _step(0.62, 0.72, hair_ends(look, azimuth))  # hanging ends keep their thickness
    taper = least_taper + (1 - least_taper) * np.maximum(_step(0.0, 0.2, edge), 0.7 * loose)
    lopsided = 1 - 0.25 * np.sign(look.parting) * np.sin(azimuth)
    return np.asarray(full * taper * lopsided * (1 - 0.25 * _step(0.8, 1.0, row)), np.float32)


def _hair(surface: Surface, look: Look, chosen: Chosen, noise: Floats) -> Painted:
    azimuth, row, _ = surface.position[chosen].T
    fine, strand, lock, wide = noise
    if look.hair_style == "shaved":
        return np.zeros((len(chosen), 3), np.float32), 0.0, 0.0
    ends = hair_ends(look, azimuth) + (0.007 * strand + 0.005 * fine + 0.006 * lock) * (1 + 0.6 * _step(0.6, 0.75, row))
    alpha = _step(0.018, -0.018, row - ends)
    tone = 1 + 0.22 * strand + 0.16 * fine + 0.16 * lock + 0.1 * wide
    part = np.exp(-(((azimuth - look.parting) * np.clip(row * 9, 0, 1) / 0.045) ** 2)) * _step(0.36, 0.30, row)
    tone = tone * (1 - 0.45 * part * (look.hair_style not in ("cropped",)))
    colour = np.array(look.hair) * np.clip(tone, 0.35, 1.8)[:, None] * (0.85 + 0.25 * row)[:, None]
    gloss = np.clip(0.27 + 0.10 * strand + 0.04 * fine, 0.05, 1)
    return np.clip(colour, 0.004, 1), gloss, alpha


def _blob(x: npt.NDArray[Any], at_x: float, wide: float, y: npt.NDArray[Any], at_y: float, high: float) -> Floats:
    """A soft spot with value 1 at its centre."""
    return np.asarray(np.exp(-(((x - at_x) / wide) ** 2) - ((y - at_y) / high) ** 2), np.float32)


def _step(start: float, stop: float, value: npt.ArrayLike) -> Floats:
    """Smooth step from 0 at `start` to 1 at `stop` (which may be the smaller one)."""
    t = np.clip((np.asarray(value, np.float32) - start) / (stop - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _over(below: Floats, above: npt.ArrayLike, cover: Floats) -> Floats:
    """Blend `above` over `below` with weight `cover`."""
    return np.asarray(below * (1 - cover[:, None]) + np.asarray(above) * cover[:, None], np.float32)
