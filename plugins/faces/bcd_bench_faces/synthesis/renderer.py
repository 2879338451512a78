"""Renders a person in motion: poses the mesh, rasterises and shades it, and averages it down to pixels."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.synthesis.appearance import Background, Look
from bcd_bench_faces.synthesis.rasterizer import downsample, rasterize, shade, vertex_normals
from bcd_bench_faces.synthesis.surface import surface
from bcd_bench_faces.synthesis.texture import hair_thickness, linear, paint

__all__ = ["FOCAL", "RENDERER_VERSION", "Actor"]

RENDERER_VERSION: Final = "1"
"""Bump when any pixel changes; part of the cache key of rendered clips."""
FOCAL: Final = 900.0
"""Focal length in pixels of a picture 256 wide; it scales with the picture."""
_SHADOW_SIDE = 176
_SHADOW_REACH = 210.0
"""Half the width of the area around the head covered by the shadow map, in mm."""
_SHADOW_BIAS = 4.0
_SHADOW_FAR = 4000.0

Floats = npt.NDArray[np.float32]


class Actor:
    """One person: `identity` [K] of the head model and a look. Painting takes a fraction of a second, frames much
    less."""

    def __init__(self, identity: npt.ArrayLike, look: Look) -> None:
        self._surface = surface()
        model, hair = self._surface.model, self._surface.hair
        self.look = look
        bust = model.bust(identity, np.zeros((1, len(model.bust_expression_names))))[0]
        worn_hair = hair.worn(bust - model.bust_mean, hair_thickness(look, hair.grid))
        self._rest = np.concatenate([bust, worn_hair])
        self._moves = model.bust_expression.reshape(len(model.bust_expression), -1)
        self._painting = paint(self._surface, look)
        self._lights = _lights(look)

    def frames(
        self, expression: npt.ArrayLike, rotation: npt.ArrayLike, translation: npt.ArrayLike, size: int
    ) -> npt.NDArray[np.uint8]:
        """uint8[T, size, size, 3] RGB for expression [T, 52] (by `bust_expression_names`), rotation [T, 3, 3] and
        translation [T, 3] in mm. Every frame depends only on its own row."""
        w = np.asarray(expression, np.float32)
        turn, shift = np.asarray(rotation, np.float32), np.asarray(translation, np.float32)
        samples = samples_for(size)
        behind = _background(self.look.background, size * samples)
        out = np.empty((len(w), size, size, 3), np.uint8)
        for t in range(len(w)):
            mesh = self._rest.copy()
            mesh[: self._moves.shape[1] // 3] += np.einsum("e,ef->f", w[t], self._moves).reshape(-1, 3)
            posed = self._surface.model.pose(mesh[None], turn[t][None], shift[t][None], self._surface.skinning)[0]
            out[t] = self._frame(posed, behind, size, samples)
        return out

    def _frame(self, posed: Floats, behind: Floats, size: int, samples: int) -> npt.NDArray[np.uint8]:
        s = self._surface
        scale = FOCAL * size * samples / 256
        points = np.empty_like(posed)
        points[:, 2] = 1 / posed[:, 2]
        points[:, :2] = posed[:, :2] * points[:, 2:] * scale + size * samples / 2
        side = size * samples
        visible, weights, _ = rasterize(points, s.faces, s.corners, s.texture, self._painting.alpha, side, side)
        normals = vertex_normals(posed, s.faces)
        shadow, frame = self._shadow(posed)
        image = behind.copy()
        shade(
            image, visible, weights, s.faces, s.corners, s.texture, self._painting.albedo, self._painting.gloss, posed,
            normals, s.occlusion, self._lights[0], self._lights[1], shadow, frame,
        )  # fmt: skip
        return np.asarray(downsample(image, samples, _tones()))

    def _shadow(self, posed: Floats) -> tuple[Floats, Floats]:
        """The extent of the outermost surface towards the key light on a grid across it, and the grid's frame."""
        s = self._surface
        towards = self._lights[0][0, :3].astype(np.float64)
        across = np.cross(towards, (0.0, 1.0, 0.0))
        across /= np.linalg.norm(across)
        axes = np.stack([across, np.cross(towards, across), towards])
        middle = posed[: len(s.model.bust_mean)][s.model.region].mean(0)
        grid = _SHADOW_SIDE / (2 * _SHADOW_REACH)
        frame = np.zeros((3, 4), np.float32)
        frame[:, :3] = axes * np.array([[grid], [grid], [1.0]])
        frame[:, 3] = -frame[:, :3] @ middle + (_SHADOW_SIDE / 2, _SHADOW_SIDE / 2, 0.0)
        points = posed @ frame[:, :3].T + frame[:, 3]
        points[:, 2] = 1 / (_SHADOW_FAR - points[:, 2])
        triangles, _, nearest = rasterize(
            points, s.faces, s.corners, s.texture, self._painting.alpha, _SHADOW_SIDE, _SHADOW_SIDE
        )
        reach = np.full(triangles.shape, -1e6, np.float32)
        reach[triangles >= 0] = _SHADOW_FAR - 1 / nearest[triangles >= 0] - _SHADOW_BIAS
        return reach, frame


def samples_for(size: int) -> int:
    """Samples along each side of a pixel: more for small pictures, whose pixels cover more of the face."""
    return 2 if size >= 192 else 3 if size >= 96 else 4


def _lights(look: Look) -> tuple[Floats, Floats]:
    """The key light and a fill from the other side, float32[2, 6]; and the light from above and below [2, 3]."""
    azimuth, elevation = look.key
    lights = np.zeros((2, 6), np.float32)
    for row, (around, up, share) in enumerate(((azimuth, elevation, 1.0), (-np.sign(azimuth) * 1.0, 0.1, look.fill))):
        lights[row, :3] = (np.sin(around) * np.cos(up), -np.sin(up), -np.cos(around) * np.cos(up))
        lights[row, 3:] = np.array(look.key_colour) * share
    return lights, np.array([look.ambient, look.ground], np.float32)


def _background(background: Background, side: int) -> Floats:
    """float32[side, side, 3] in linear light: corners blended, then soft blobs."""
    at = ((np.arange(side) + 0.5) / side).astype(np.float32)
    x, y = at[None, :, None], at[:, None, None]
    a, b, c, d = (linear(colour) for colour in background.corners)
    image = (a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y
    for column, row, radius, colour in background.blobs:
        far = np.hypot(x - column, y - row) / radius
        cover = 1 / (1 + np.exp(np.clip((far - 1) * 7, -30, 30)))
        image = image * (1 - cover) + linear(colour) * cover
    return np.ascontiguousarray(image, np.float32)


@lru_cache(maxsize=1)
def _tones() -> npt.NDArray[np.uint8]:
    """uint8[4096]: linear light 0..1 to displayed sRGB, with a gentle shoulder."""
    light = np.arange(4096) / 4095
    light = np.where(light < 0.6, light, 0.6 + 0.4 * (1 - np.exp(-(light - 0.6) / 0.4)) / (1 - np.exp(-1.0)))
    displayed = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(displayed * 255).astype(np.uint8)
