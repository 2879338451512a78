"""The script that compares landmarks: its correction, its ranks and its table, on numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.metrics.vertex_errors import Track
from tests.faces.scripts import script


def test_a_correction_takes_away_an_error_that_follows_from_the_shape() -> None:
    rng = np.random.default_rng(0)
    mean, modes = rng.normal(0, 40, (30, 3)), rng.normal(0, 4, (5, 30, 3))
    bias = rng.normal(0, 1, (5, 30, 2))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        who = rng.normal(0, 1, (count, 5))
        seen = mean + np.tensordot(who, modes, 1)
        seen[:, :, :2] += rng.normal(0, 5, (count, 1, 2))  # where a face is does not matter
        return seen, seen[:, :, :2] + 2 + np.tensordot(who, bias, 1)

    correction = script("compare_landmarks").Correction(*draw(400))
    seen, true = draw(50)
    before, after = (np.abs(points - true).mean() for points in (seen[:, :, :2], correction(seen)))
    assert before > 2 > 0.5 > after


def test_fits_that_are_true_rank_perfectly() -> None:
    face, rng = load_face_model(), np.random.default_rng(1)
    fitted = []
    for _ in range(4):
        who = rng.normal(0, 1, len(face.identity))
        track = Track(
            rng.uniform(0, 1, (3, len(face.expression))), Rotation.from_rotvec(rng.normal(0, 0.2, (3, 3))).as_matrix()
        )
        fitted.append((who, track, who, track, np.array([True, False, True, True])))
    found = script("compare_landmarks")._ranks(face, fitted)
    assert found["shape"] == found["motion"] == found["expression"] == found["all"] == pytest.approx(1)


def test_the_table_has_a_column_for_each_way() -> None:
    ranks = dict.fromkeys(("shape", "motion", "rotation", "expression", "all"), 0.5)
    way = {"points_px": 1.5, "shape_to_truth_mm2": 2.0, "rotation_to_truth_deg": 3.0, "expression_to_truth_mm2": 4.0}
    ways = {name: {**way, "spearman": ranks} for name in script("compare_landmarks").WAYS}
    result = {
        "renders": {"clips": 2, "frames": 50, "frames_used": 49, "ways": ways},
        "made_by": {"network": "0123456789abcdef", "steps": 7, "correction_renders": 30},
    }
    written = script("compare_landmarks").table(result)
    assert "| points to their true places (px) | 1.5 | 1.5 | 1.5 |" in written
    assert "| Spearman, expression | 0.5 | 0.5 | 0.5 |" in written
    assert "network sha256 0123456789ab…, 7 training steps" in written
