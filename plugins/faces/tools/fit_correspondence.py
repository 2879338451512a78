"""Build `bcd_bench_faces/head/correspondence.npz`: where on the head model the landmarker's points are.

    python plugins/faces/tools/fit_correspondence.py --renders 400

Random people with random expressions and poses are rendered and given to the landmarker. Each of its points gets the
point of the model's surface whose projection is nearest to it over all renders, by the mean truncated squared distance,
and the root mean square distance along an image axis as its sigma. The ten points of the irises are left out, since the
face of the model has no eyeballs. The same seed gives the same file on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.head.model import HeadModel
from bcd_bench_faces.landmarker import FaceLandmarker

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

SEED = 478
LANDMARKS = 468
"""The first 468 points are on the skin."""
TRUNCATE = 10.0
"""mm beyond which a distance is not larger: a landmark that missed a face altogether says no more than that."""
SHORTLIST = 1500
"""Candidates per landmark that are looked at in all renders: the nearest in the first `FIRST` of them."""
FIRST = 40


@dataclass(frozen=True)
class Shot:
    """What one render tells: landmarks float64[468, 2] and vertices of the face [V, 2], both in mm at its depth."""

    landmarks: Floats
    vertices: Floats


def candidates(triangles: Ints) -> tuple[Ints, Floats]:
    """Points of the surface as vertices int32[C, 3] and weights float64[C, 3]: corners, middles of edges, and four
    points inside every triangle. A corner is its own vertex three times over."""
    corners = np.unique(triangles)
    edges = np.unique(
        np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])), axis=0
    )
    groups = [
        (np.stack([corners] * 3, axis=1), (1.0, 0.0, 0.0)),
        (np.stack([edges[:, 0], edges[:, 1], edges[:, 0]], axis=1), (0.5, 0.5, 0.0)),
        *((triangles, inside) for inside in ((1, 1, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4))),
    ]
    vertices = np.concatenate([points for points, _ in groups])
    weights = np.concatenate([np.tile(np.array(w, float) / sum(w), (len(points), 1)) for points, w in groups])
    return vertices.astype(np.int32), weights


def assign(landmarks: Floats, projected: Floats) -> tuple[Ints, Floats]:
    """The nearest candidate int32[N] and the sigma float64[N] in mm, for landmarks [S, N, 2] and candidates [S, C, 2]."""
    best, sigma = np.empty(landmarks.shape[1], np.int32), np.empty(landmarks.shape[1])
    for index in range(landmarks.shape[1]):
        offsets = projected[:FIRST] - landmarks[:FIRST, index, None]
        rough = np.minimum((offsets**2).sum(axis=2), TRUNCATE**2).mean(axis=0)
        near = np.argsort(rough, kind="stable")[:SHORTLIST]
        square = ((projected[:, near] - landmarks[:, index, None]) ** 2).sum(axis=2)
        chosen = int(np.argmin(np.minimum(square, TRUNCATE**2).mean(axis=0)))
        best[index], sigma[index] = near[chosen], np.sqrt(square[:, chosen].mean() / 2)
    return best, sigma
