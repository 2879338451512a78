"""Overlays of faces: contours, dense points, and the fitted mesh projected as the fit does."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bcd_bench_faces.dense_landmarks.points import dense_points as choose
from bcd_bench_faces.fitting.extractor import DENSE_FIT, dense_basis
from bcd_bench_faces.fitting.levenberg_marquardt import fit_clip
from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.overlays import dense_points, fitted_mesh, mediapipe_contours


def test_the_mesh_lies_on_the_landmarks_that_it_was_fitted_to() -> None:
    rng = np.random.default_rng(3)
    face, vertices, size = load_face_model(), choose().vertices, (96, 128)
    identity = rng.normal(0, 0.7, len(face.identity))
    mesh = face.mean[vertices] + np.tensordot(identity, face.identity[:, vertices], 1)
    shifts = np.array([[0.0, 20.0, 1100.0], [15.0, 12.0, 1140.0]])
    posed = mesh[None] + shifts[:, None]
    # a pinhole camera with the fit's focal length, in pixels of a frame whose longer side is 256
    points = posed[..., :2] / posed[..., 2:] * 900.0 * (128 / 256) + [64.0, 48.0]
    fit = fit_clip(dense_basis(face, vertices), points, size, DENSE_FIT)
    features = {name: getattr(fit, name) for name in ("identity", "expression", "rotation", "translation")}
    overlay = fitted_mesh(features, size)
    assert overlay.points.shape == (2, len(vertices), 2)
    assert np.abs(overlay.points - points).max() < 0.5
    assert np.abs(overlay.points - points).mean() < 0.1
    features["rotation"] = np.stack([fit.rotation[0], np.full((3, 3), np.nan)])
    second = fitted_mesh(features, size).points
    assert np.isfinite(second[0]).all()
    assert np.isnan(second[1]).all()


def test_the_mesh_is_one_surface_of_short_lines() -> None:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    face, vertices = load_face_model(), choose().vertices
    identity, expression = np.zeros(len(face.identity)), np.zeros((1, len(face.expression)))
    pose = {"rotation": np.eye(3)[None], "translation": np.array([[0.0, 0.0, 1000.0]])}
    lines = np.array(fitted_mesh({"identity": identity, "expression": expression, **pose}, (256, 256)).lines)
    n = len(vertices)
    assert 2 * n < len(lines) < 3 * n  # as a mesh of triangles
    graph = csr_matrix((np.ones(len(lines)), lines.T), shape=(n, n))
    assert connected_components(graph, directed=False)[0] == 1
    ends = face.mean[vertices][lines]
    assert np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).max() < 50  # mm; at the edge


def test_dense_points_are_those_of_the_extractor() -> None:
    points = np.random.default_rng(0).uniform(0, 128, (3, 320, 2))
    overlay = dense_points({"points": points}, (128, 128))
    assert overlay.points is points
    assert overlay.lines == ()


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="needs mediapipe")
def test_contours_connect_eyes_lips_and_oval() -> None:
    points = np.arange(478 * 3, dtype=float).reshape(1, 478, 3)
    overlay = mediapipe_contours({"points": points}, (128, 128))
    chosen = (overlay.points[0, :, 0] / 3).astype(int)
    assert overlay.points[0, :, 1] == pytest.approx(3 * chosen + 1)
    ends = {tuple(sorted((int(chosen[a]), int(chosen[b])))) for a, b in overlay.lines}
    assert {(61, 146), (10, 338), (33, 246)} <= {tuple(sorted(pair)) for pair in ends}  # lips, oval, right eye
    assert chosen.max() > 467  # the irises
