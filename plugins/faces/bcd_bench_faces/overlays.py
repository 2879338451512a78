"""Landmarks and fitted meshes as overlays of videos: from the features of a clip to positions in its frames."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bcd_bench import Overlay
from bcd_bench_faces.fitting.levenberg_marquardt import SIDE, FitOptions
from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.metrics.vertex_errors import FaceModel

__all__ = ["dense_points", "fitted_mesh", "mediapipe_contours"]

Lines = tuple[tuple[int, int], ...]


def mediapipe_contours(features: Mapping[str, Any], size: tuple[int, int]) -> Overlay:
    """The contours of eyes, irises, brows, lips and face, from the features of `mediapipe-landmarks`."""
    del size
    points, lines = _contours()
    return Overlay(features["points"][:, points, :2], lines)


def dense_points(features: Mapping[str, Any], size: tuple[int, int]) -> Overlay:
    """All points of `dense-landmarks`, as dots."""
    del size
    return Overlay(features["points"])


def fitted_mesh(features: Mapping[str, Any], size: tuple[int, int]) -> Overlay:
    """The head model as fitted to the clip, as a coarse mesh, from the features of `face-mesh`.

    NaN in frames without a fit.
    """
    mesh = _coarse_mesh()
    face = mesh.face.mean + np.tensordot(features["identity"], mesh.face.identity, 1)
    moved = np.einsum("te,evx->tvx", features["expression"], mesh.face.expression) + face
    posed = moved @ features["rotation"].transpose(0, 2, 1) + features["translation"][:, None]
    projected = posed[:, :, :2] * (FitOptions().focal / posed[:, :, 2:])
    centre = np.array([size[1], size[0]], np.float64) / 2
    return Overlay(projected * (max(size) / SIDE) + centre, mesh.lines)


@lru_cache(maxsize=1)
def _contours() -> tuple[npt.NDArray[np.intp], Lines]:
    """The landmarks on MediaPipe's contours, and the lines between them."""
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    groups = (
        FaceLandmarksConnections.FACE_LANDMARKS_CONTOURS,
        FaceLandmarksConnections.FACE_LANDMARKS_LEFT_IRIS,
        FaceLandmarksConnections.FACE_LANDMARKS_RIGHT_IRIS,
    )
    ends = np.array([(line.start, line.end) for group in groups for line in group])
    points = np.unique(ends)
    return points, _lines(np.searchsorted(points, ends))


class _Mesh(NamedTuple):
    face: FaceModel
    """The face model at the points of the mesh."""
    lines: Lines


@lru_cache(maxsize=1)
def _coarse_mesh() -> _Mesh:
    """The dense points on the head model's face, with a line between points whose neighbourhoods touch.

    The neighbourhood of a point are the vertices that are nearer to it, along the mesh, than to any other point.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    from bcd_bench_faces.dense_landmarks.points import dense_points as choose

    head, vertices = HeadModel.load(), choose().vertices
    edges = head.edges
    lengths = np.linalg.norm(head.mean[edges[:, 0]] - head.mean[edges[:, 1]], axis=1)
    graph = csr_matrix((lengths, edges.T), shape=(len(head.mean), len(head.mean)))
    _, _, nearest = dijkstra(graph, directed=False, indices=vertices, min_only=True, return_predecessors=True)
    touching = np.sort(np.searchsorted(vertices, nearest[edges][(nearest[edges] >= 0).all(axis=1)]), axis=1)
    face = load_face_model()
    part = FaceModel(
        mean=face.mean[vertices],
        identity=face.identity[:, vertices],
        expression=face.expression[:, vertices],
        expression_names=face.expression_names,
    )
    return _Mesh(part, _lines(np.unique(touching[touching[:, 0] != touching[:, 1]], axis=0)))


def _lines(ends: npt.NDArray[np.integer]) -> Lines:
    return tuple((int(start), int(end)) for start, end in ends)
