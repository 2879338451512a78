"""The rendered mesh (bust and hair), mapped to one texture atlas with the position of every texel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.synthesis.hair import HairShell, hair_shell
from bcd_bench_faces.synthesis.rasterizer import rasterize, vertex_normals

__all__ = ["HAIR", "HEIGHT", "NOISE_SCALES", "WIDTH", "Surface", "surface"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

HEIGHT: Final = 512
WIDTH: Final = 1024
HAIR: Final = 8
"""The label of hair, after those of the model."""
NOISE_SCALES: Final = (1.2, 3.0, 9.0, 28.0)
"""Scales in mm of the skin patterns."""
NOISE_FIELDS: Final = 4
_TORSO = 100
_CHARTS: Final = {
    0: (0, 0, 512, 512),
    _TORSO: (512, 0, 256, 256),
    HAIR: (512, 256, 512, 256),
    1: (768, 0, 64, 64),
    2: (832, 0, 64, 64),
    3: (896, 0, 64, 64),
    4: (960, 0, 64, 64),
    5: (768, 64, 64, 64),
    6: (832, 64, 64, 64),
    7: (896, 64, 64, 64),
}
"""Label -> left, top, width, height of its rectangle on the atlas."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Vertices are those of the bust, then of the hair; P texels are covered by a triangle."""

    model: HeadModel
    hair: HairShell
    faces: Ints
    labels: npt.NDArray[np.uint8]
    """uint8[G]: the model's labels, and `HAIR`."""
    corners: Ints
    texture: Floats
    """float32[M, 2]: column and row on the atlas, in texels."""
    skinning: Floats
    occlusion: Floats
    """float32[N + H] in 0..1: how exposed a vertex of the mean head is to ambient light."""
    texel_of: Ints
    """int32[HEIGHT, WIDTH]: the texel that a position of the atlas takes its paint from (the closest between
    charts)."""
    position: Floats
    """float32[P, 3]: position of a texel on the mean head, in mm; for hair azimuth, row and 0."""
    label: npt.NDArray[np.uint8]
    masks: Floats
    """float32[P, 3]: lips, eyelids, ears."""
    eye_distance: float
    """Distance between the eyeballs' centres of the mean head, in mm."""
    noise: Floats
    """float32[scales, fields, P]: fixed patterns of unit standard deviation, mixed by an appearance."""


@lru_cache(maxsize=1)
def surface() -> Surface:
    """The surface of the shipped model, built once per process in about two seconds."""
    model = HeadModel.load()
    hair = hair_shell(model)
    count = len(model.bust_mean)
    faces = np.concatenate([model.faces, hair.faces + count])
    labels = np.concatenate([model.labels, np.full(len(hair.faces), HAIR, np.uint8)])
    points = np.concatenate([model.bust_mean, hair.vertices])
    coordinates, masks = _chart_coordinates(model, hair, faces, labels)
    corners = np.arange(faces.size, dtype=np.int32).reshape(-1, 3)  # separate for every triangle: charts share no point
    charts = labels.astype(int)
    charts[(labels == 0) & ~_on_head_chart(model, len(faces))] = _TORSO
    texture = np.empty((faces.size, 2), np.float32)
    for chart, (left, top, width, height) in _CHARTS.items():
        chart_corners = corners[charts == chart].ravel()
        low, high = coordinates[chart_corners].min(0), coordinates[chart_corners].max(0)
        scaled = (coordinates[chart_corners] - low) / (high - low)
        texture[chart_corners] = scaled * (np.array([width, height]) - 6) + (left + 3, top + 3)
    location = points[faces.ravel()].copy()
    chart_corners = corners[labels == HAIR].ravel()
    location[chart_corners] = np.pad(hair.grid, ((0, 0), (0, 1)))[hair.faces.ravel()]
    triangle, weights = _texels(texture, corners, np.where(np.isin(labels, (1, 2)), points[faces].mean(1)[:, 2], 0.0))
    covered = triangle >= 0
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    number = (np.cumsum(covered.ravel()) - 1).reshape(covered.shape)
    corner = corners[triangle[covered]]
    position = np.einsum("pc,pcd->pd", weights[covered], location[corner]).astype(np.float32)
    label = labels[triangle[covered]]
    return Surface(
        model=model,
        hair=hair,
        faces=faces.astype(np.int32),
        labels=labels,
        corners=corners,
        texture=texture,
        skinning=np.concatenate([model.skinning, hair.skinning]),
        occlusion=_occlusion(model, count + len(hair.vertices)),
        texel_of=number[tuple(nearest)].astype(np.int32),
        position=position,
        label=label,
        masks=np.einsum("pc,pcd->pd", weights[covered], masks[corner]).astype(np.float32),
        eye_distance=float(2 * model.bust_mean[np.unique(model.faces[model.labels == 1]), 0].mean()),
        noise=_noise(position, label),
    )


def _chart_coordinates(
    model: HeadModel, hair: HairShell, faces: Ints, labels: npt.NDArray[np.uint8]
) -> tuple[Floats, Floats]:
    """Plane coordinates float32[3G, 2] of every triangle's corners within its chart, and masks float32[3G, 3]."""
    out = np.empty((faces.size, 2), np.float32)
    masks = np.zeros((faces.size, 3), np.float32)
    flat = model.corners.ravel()
    bust = len(flat)
    out[:bust] = model.texture[flat] * (1, -1)
    masks[:bust] = model.masks[flat]
    out[bust:] = hair.grid[hair.faces.ravel()]
    label = labels.repeat(3)
    masks[label != 0] = 0
    position = np.concatenate([model.bust_mean, hair.vertices])[faces.ravel()]
    eyes = np.isin(label, (1, 2))
    out[eyes] = position[eyes][:, :2]  # an eyeball is painted as seen from the front
    inside = np.isin(label, (3, 4, 5, 6, 7))
    out[inside] = position[inside][:, [0, 2]]
    return out, masks


def _on_head_chart(model: HeadModel, count: int) -> npt.NDArray[np.bool_]:
    u, v = model.texture[model.corners].mean(1).T
    out = np.zeros(count, np.bool_)
    out[: len(u)] = (u > 0.6) & (v > 0.15) & (v < 0.88)
    return out


def _texels(texture: Floats, corners: Ints, depth: npt.NDArray[np.floating]) -> tuple[Ints, Floats]:
    """The triangle that covers a texel, and its weights; the one with the smallest depth if there are several."""
    inverse = 1.0 / (1000.0 + depth).repeat(3)
    points = np.concatenate([texture, inverse[:, None]], axis=1).astype(np.float32)
    solid = np.ones((1, 1), np.float32)
    triangle, weights, _ = rasterize(points, corners, corners, np.zeros_like(texture), solid, HEIGHT, WIDTH)
    return triangle, weights


def _occlusion(model: HeadModel, count: int) -> Floats:
    """Ambient occlusion from hollows at two scales: a vertex below its surroundings receives less light."""
    faces = model.faces[model.labels == 0]
    normals = vertex_normals(model.bust_mean, faces)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    degree = np.maximum(np.bincount(edges[:, 0], minlength=len(model.bust_mean)), 1)
    smooth = model.bust_mean.astype(np.float64)
    hollow = np.zeros(len(smooth))
    for step in range(1, 41):
        smooth = np.stack([np.bincount(edges[:, 0], smooth[edges[:, 1], d], len(smooth)) for d in range(3)], 1)
        smooth /= degree[:, None]
        if step in (3, 12, 40):
            rise = ((smooth - model.bust_mean) * normals).sum(1)
            hollow += np.clip(rise / (0.9 * np.sqrt(step)), -0.15, 1.0)
    out = np.ones(count, np.float32)
    used = np.unique(faces)
    out[used] = np.clip(1.0 - 0.42 * np.clip(hollow[used], 0, None), 0.3, 1.0)
    _, y, z = model.bust_mean[used].T
    under_chin = np.clip((y - 100) / 18, 0, 1) * np.clip((175 - y) / 40, 0, 1) * np.clip((z - 15) / 25, 0, 1)
    out[used] *= 1 - 0.3 * under_chin * (z < 80)
    parts = {1: 0.8, 2: 0.8, 3: 0.55, 4: 0.55, 5: 0.9, 6: 0.35, 7: 0.5}
    for label, value in parts.items():
        inner = np.setdiff1d(np.unique(model.faces[model.labels == label]), used)
        out[inner] = value
    return out


def _noise(position: Floats, label: npt.NDArray[np.uint8]) -> Floats:
    """Smooth random patterns on the surface; on hair they run in strands along the rows."""
    rng = np.random.Generator(np.random.PCG64(7))
    where = position.copy()
    strands = label == HAIR
    where[strands] = position[strands] * (95.0, 40.0, 0.0)
    out = np.empty((len(NOISE_SCALES), NOISE_FIELDS, len(position)), np.float32)
    for scale, size in enumerate(NOISE_SCALES):
        for field in range(NOISE_FIELDS):
            lattice = gaussian_filter(rng.standard_normal((48, 48, 48)), 0.7, mode="wrap")
            values = map_coordinates(lattice, where.T / size + rng.uniform(0, 48, (3, 1)), order=1, mode="grid-wrap")
            out[scale, field] = values / values.std()
    return out
