"""The points of the dense landmarks: vertices of the head model's region, closed under mirroring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.head_model.model import PIVOT, HeadModel

__all__ = ["COUNT", "DensePoints", "dense_points", "displacements_of", "project", "with_mirror_images"]

Ints = npt.NDArray[np.int32]
COUNT: Final = 320
_NOSE: Final = np.array([0.0, 38.0, -44.0])
"""Near the tip of the nose, in mm: where the sampling starts."""
_FACING: Final = -0.1
"""Maximum z of a normal of the mean face: surfaces facing further away (inside of lips and nostrils) are never
visible."""


@dataclass(frozen=True)
class DensePoints:
    """N vertices of the region, and for each the index (in this list) of its mirror image."""

    vertices: Ints
    mirror: Ints


@lru_cache(maxsize=4)
def dense_points(count: int = COUNT) -> DensePoints:
    """At least `count` vertices (one more if the last has a mirror image), spread by farthest-point sampling.

    Distances run along the mesh and use the square root of an edge's length, so that points are denser where the mesh
    is: at eyes, brows, nose and lips.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    from bcd_bench_faces.synthesis.rasterizer import vertex_normals  # compiles, which detection does not need

    head = HeadModel.load()
    mean, edges, mirrored = head.mean, head.edges, _mirror_images()
    lengths = np.sqrt(np.linalg.norm(mean[edges[:, 0]] - mean[edges[:, 1]], axis=1).round(3))
    graph = csr_matrix((lengths, edges.T), shape=(len(mean), len(mean)))
    allowed = np.flatnonzero(vertex_normals(mean, head.triangles)[:, 2] < _FACING)
    allowed = allowed[np.isin(mirrored[allowed], allowed)]
    reach = np.full(len(mean), np.inf)
    selected: list[int] = []
    following = int(allowed[np.argmin(np.linalg.norm(mean[allowed] - _NOSE, axis=1))])
    while len(selected) < count:
        pair = [following] if mirrored[following] == following else [following, int(mirrored[following])]
        selected += pair
        reach = np.minimum(reach, dijkstra(graph, directed=False, indices=pair).min(axis=0))
        following = int(allowed[np.argmax(reach[allowed].round(3))])
    return with_mirror_images(np.sort(np.array(selected, np.int32)))


def with_mirror_images(vertices: Ints) -> DensePoints:
    """Points at `vertices` [N], in ascending order. Raises `ValueError` if they are not vertices of the region that are
    closed under mirroring."""
    mirrored = _mirror_images()
    known = (vertices >= 0) & (vertices < len(mirrored))
    if not known.all() or not np.array_equal(np.unique(mirrored[vertices]), vertices):
        raise ValueError("the points are not vertices of this head model that are closed under mirroring")
    return DensePoints(vertices, np.searchsorted(vertices, mirrored[vertices]).astype(np.int32))


@lru_cache(maxsize=1)
def _mirror_images() -> npt.NDArray[np.intp]:
    """For every vertex of the region, the one nearest to its mirror image."""
    from scipy.spatial import cKDTree

    mean = HeadModel.load().mean
    return np.asarray(cKDTree(mean).query(mean * (-1, 1, 1))[1])


def displacements_of(points: DensePoints) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """For identity, then expression: displacements of the points, and of their mirror images, by a coefficient of 1.

    Each is float64[C, N, 3] in mm, for C coefficients of `HeadModel`.
    """
    head = HeadModel.load()
    for basis in (head.identity, head.expression):
        moved = basis[:, points.vertices].astype(np.float64)
        yield moved, moved[:, points.mirror] * (-1, 1, 1)


def project(
    vertices: Ints, identity: npt.ArrayLike, expression: npt.ArrayLike, rotation: npt.ArrayLike, shift: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """Positions float32[T, N, 2] of vertices of the region, in pixels of a frame 256 wide.

    `identity` [K], `expression` [T, E] (`HeadModel.expression_names`), `rotation` [T, 3, 3] and `translation` [T, 3]
    are those that clips are rendered from. Gaze does not move points: the fitted face has no gaze, so where the lids
    follow the eyes, points stay where they would be with the eyes straight.
    """
    from bcd_bench_faces.synthesis.renderer import FOCAL

    faces = HeadModel.load().vertices(identity, expression)[:, vertices].astype(np.float64)
    posed = (faces - PIVOT) @ np.asarray(rotation, np.float64).transpose(0, 2, 1)
    posed += PIVOT + np.asarray(shift, np.float64)[:, None]
    return np.asarray(posed[:, :, :2] / posed[:, :, 2:] * FOCAL + 128, np.float32)
