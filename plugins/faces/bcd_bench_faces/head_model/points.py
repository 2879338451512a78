"""Positions of points of a rendered head in its frames: labels for training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.dense_landmarks.points import dense_points
from bcd_bench_faces.head_model.model import PIVOT, HeadModel
from bcd_bench_faces.synthesis.rasterizer import vertex_normals
from bcd_bench_faces.synthesis.renderer import FOCAL

__all__ = [
    "all_points_in_frames",
    "expression_weights",
    "mean_points",
    "point_skinning",
    "points_in_frames",
    "rest_points",
]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

OTHERS: Final = 96
"""Number of points outside the face: of scalp, ears, neck and shoulders."""
FACING: Final = -0.15
"""Maximum z of the normal of a visible point: points turned away further are not labelled."""
REST: Final = (0.0, -16.0, 1120.0)
"""Position of the head at rest, in mm: in the middle of the range of motions."""


@lru_cache(maxsize=1)
def _vertices() -> npt.NDArray[np.int32]:
    """Vertices of the bust: the dense points of the face, and others spread evenly over the remaining front."""
    model = HeadModel.load()
    face = model.region[dense_points().vertices]
    hidden = np.unique(model.faces[model.labels != model.label_names.index("skin")])
    towards = np.flatnonzero(vertex_normals(model.bust_mean, model.faces)[:, 2] < FACING)
    free = np.setdiff1d(towards, np.concatenate([model.region, hidden]))
    reach = np.full(len(free), np.inf)
    selected = [int(free[0])]
    while len(selected) < OTHERS:  # farthest-point sampling
        far = np.linalg.norm(model.bust_mean[free] - model.bust_mean[selected[-1]], axis=1)
        reach = np.minimum(reach, far.round(3))
        selected.append(int(free[np.argmax(reach)]))
    return np.concatenate([face, np.sort(np.array(selected))]).astype(np.int32)


@dataclass(frozen=True)
class _Patch:
    """The points with the triangles around them: all that their positions and normals depend on."""

    model: HeadModel
    """The head model with the vertices of these triangles only."""
    points: Ints
    """The points, as indices of these vertices."""


@lru_cache(maxsize=1)
def _patch() -> _Patch:
    model, points = HeadModel.load(), _vertices()
    faces = model.faces[np.isin(model.faces, points).any(1)]
    used = np.unique(np.concatenate([faces.ravel(), points]))
    part = replace(
        model,
        bust_mean=model.bust_mean[used],
        bust_identity=np.ascontiguousarray(model.bust_identity[:, used]),
        bust_expression=np.ascontiguousarray(model.bust_expression[:, used]),
        faces=np.searchsorted(used, faces).astype(np.int32),
        skinning=model.skinning[used],
    )
    return _Patch(part, np.searchsorted(used, points).astype(np.int32))


def _projected(posed: Floats) -> Floats:
    """Points [T, P, 3] in the camera's frame -> image positions float32[T, P, 2], -1..1 along x and y."""
    points = posed.astype(np.float64)
    return np.asarray(points[..., :2] / points[..., 2:] * (FOCAL / 128), np.float32)


@lru_cache(maxsize=1)
def rest_points() -> Floats:
    """Positions float32[P, 2] of the points of the mean head at rest, looking straight ahead; -1..1 along x and y."""
    model = HeadModel.load()
    posed = model.pose(model.bust_mean[None], np.eye(3, dtype=np.float32)[None], np.array([REST], np.float32))
    return np.asarray(_projected(posed[:, _vertices()])[0])


def points_in_frames(
    identity: npt.ArrayLike, expression: npt.ArrayLike, rotation: npt.ArrayLike, translation: npt.ArrayLike
) -> Floats:
    """Positions float32[T, P, 2] of a subject's points in motion, -1..1 along x and y; NaN if turned away.

    Arguments as for `Actor` and its `frames`. The lids follow the gaze, as in the picture.
    """
    points, facing = all_points_in_frames(identity, expression, rotation, translation)
    points[~facing] = np.nan
    return points


def all_points_in_frames(
    identity: npt.ArrayLike, expression: npt.ArrayLike, rotation: npt.ArrayLike, translation: npt.ArrayLike
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """As `points_in_frames`, but also the positions of points that are turned away, and bool[T, P]: whether they are
    not."""
    patch = _patch()
    posed = patch.model.pose(patch.model.bust(identity, expression), rotation, translation)
    depth = [vertex_normals(frame, patch.model.faces)[patch.points, 2] for frame in posed]
    return _projected(posed[:, patch.points]), np.stack(depth) <= FACING


def mean_points() -> Floats:
    """Positions float32[P, 3] of the points of the mean head, in mm, relative to the joint of head and neck."""
    return np.asarray(HeadModel.load().bust_mean[_vertices()] - PIVOT, np.float32)


def point_skinning() -> Floats:
    """Shares float32[P, 2] by which the points turn with the head and with the neck; the rest does not turn."""
    return np.asarray(HeadModel.load().skinning[_vertices()], np.float32)


def expression_weights() -> Floats:
    """How much facial actions move the points, float32[P] in 0..1.

    The sum over all actions of the squared distance that a point moves, relative to the point that the action moves
    most, so that a blink counts as much as an open jaw; divided by the largest sum.
    """
    model = HeadModel.load()
    actions = len(model.bust_expression_names)
    mean = np.zeros(len(model.identity), np.float32)
    neutral = model.bust(mean, np.zeros((1, actions), np.float32))[0, _vertices()]
    moved = np.linalg.norm(model.bust(mean, np.eye(actions, dtype=np.float32))[:, _vertices()] - neutral, axis=-1)
    relative = moved / np.maximum(moved.max(1, keepdims=True), 1e-3)
    total = (relative**2).sum(0)
    return np.asarray(total / total.max(), np.float32)
