"""Renders only the part of a frame around the face, so that every pixel of a training image is used."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.synthesis.appearance import Look
from bcd_bench_faces.synthesis.rasterizer import downsample, rasterize, shade, vertex_normals
from bcd_bench_faces.synthesis.renderer import FOCAL, Actor, _background, _lights, _tones
from bcd_bench_faces.synthesis.texture import hair_thickness

__all__ = ["SAMPLES", "WindowActor"]

SAMPLES = 2
"""Samples along each side of a pixel."""


class WindowActor(Actor):
    """An actor in front of a camera that covers a square of its frame."""

    def shaped(self, identity: npt.ArrayLike, look: Look) -> WindowActor:
        """Another subject with the same texture: `look` may differ from this one's in light and background only."""
        copied = copy.copy(self)
        model, hair = self._surface.model, self._surface.hair
        bust = model.bust(identity, np.zeros((1, len(model.bust_expression_names))))[0]
        worn_hair = hair.worn(bust - model.bust_mean, hair_thickness(look, hair.grid))
        copied._rest = np.concatenate([bust, worn_hair])
        copied.look, copied._lights = look, _lights(look)
        return copied

    def window(
        self,
        expression: npt.ArrayLike,
        rotation: npt.ArrayLike,
        translation: npt.ArrayLike,
        size: int,
        window: tuple[float, float, float],
    ) -> npt.NDArray[np.uint8]:
        """uint8[size, size, 3]: one frame (expression [52], rotation [3, 3], translation [3]), cropped to the square
        `window`: left, top and side in pixels of a frame 256 wide. It may reach beyond the frame; the background fills
        the window, not the frame."""
        s = self._surface
        turn, shift = np.asarray(rotation, np.float32), np.asarray(translation, np.float32)
        mesh = self._rest.copy()
        moves = np.einsum("e,ef->f", np.asarray(expression, np.float32), self._moves)
        mesh[: self._moves.shape[1] // 3] += moves.reshape(-1, 3)
        posed = s.model.pose(mesh[None], turn[None], shift[None], s.skinning)[0]
        side = size * SAMPLES
        scale = side / window[2]
        points = np.empty_like(posed)
        points[:, 2] = 1 / posed[:, 2]
        middle = np.array([128 - window[0], 128 - window[1]], np.float32) * scale
        points[:, :2] = posed[:, :2] * points[:, 2:] * (FOCAL * scale) + middle
        painting = self._painting
        visible, weights, _ = rasterize(points, s.faces, s.corners, s.texture, painting.alpha, side, side)
        shadow, frame = self._shadow(posed)
        image = _background(self.look.background, side)
        shade(
            image, visible, weights, s.faces, s.corners, s.texture, painting.albedo, painting.gloss, posed,
            vertex_normals(posed, s.faces), s.occlusion, self._lights[0], self._lights[1], shadow, frame,
        )  # fmt: skip
        return np.asarray(downsample(image, SAMPLES, _tones()))
