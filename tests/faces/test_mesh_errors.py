"""Vertex errors on meshes small enough to work out by hand, and the rows of the three metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bcd_bench.plugin.protocols import Scored
from bcd_bench.testing.synthetic import practice_pairs
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench_faces.metrics import mesh_errors
from bcd_bench_faces.metrics.mesh_errors import EXTRACTOR, REPROJECTION, CrossError, MotionError, ShapeError
from bcd_bench_faces.metrics.vertex_errors import (
    FaceModel,
    MotionErrors,
    Track,
    cross_errors,
    expression_errors,
    motion_errors,
    rotation_angles,
    shape_error,
)

Floats = npt.NDArray[np.float64]

CROSS = FaceModel(
    mean=np.array([[11.0, 5, 7], [9, 5, 7], [10, 7, 7], [10, 3, 7]]),  # +-1 in x and +-2 in y about (10, 5, 7)
    identity=np.array([[[1.0, 0, 0]] * 4, [[0, 0, 2.0]] * 2 + [[0, 0, 0]] * 2]),
    expression=np.array([[[0.0, 3, 0]] + [[0, 0, 0]] * 3]),
    expression_names=("up",),
)
"""Four vertices; identity 0 shifts all by 1 mm in x, identity 1 two of them by 2 in z; the expression moves one."""


def about_z(*degrees: float) -> Floats:
    angles = np.radians(degrees)
    cos, sin, zero, one = np.cos(angles), np.sin(angles), np.zeros(len(angles)), np.ones(len(angles))
    return np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)


def track(degrees: list[float], expression: list[float]) -> Track:
    return Track(np.array(expression)[:, None], about_z(*degrees))


def test_meshes_are_identity_and_expression_turned_about_the_centroid() -> None:
    assert CROSS.centre.tolist() == [10, 5, 7]
    meshes = CROSS.meshes(np.array([2.0, 1.0]), np.array([[0.0], [1.0]]), about_z(0, 90))
    assert meshes[0] == pytest.approx(np.array([[3.0, 0, 2], [1, 0, 2], [2, 2, 0], [2, -2, 0]]))
    assert meshes[1] == pytest.approx(np.array([[-3.0, 3, 2], [0, 1, 2], [-2, 2, 0], [2, 2, 0]]))


def test_shape_error_by_hand() -> None:
    origin = np.zeros(2)
    assert shape_error(CROSS, np.array([3.0, 0]), origin) == pytest.approx(9)  # every vertex 3 mm off
    assert shape_error(CROSS, np.array([0, 1.0]), origin) == pytest.approx(2)  # two of four are 2 mm off
    assert shape_error(CROSS, np.array([1.0, -1]), np.array([0, 1.0])) == pytest.approx((2 * 17 + 2 * 1) / 4)
    assert shape_error(CROSS, np.array([0.3, 0.7]), np.array([0.3, 0.7])) == 0


@pytest.mark.parametrize("degrees", [0.001, 1.0, 30.0, 90.0, 179.0])
def test_a_pure_rotation_has_the_analytic_error(degrees: float) -> None:
    # a point at radius r moves by the chord 2 r sin(angle / 2); the radii are 1, 1, 2, 2
    one, other = track([10.0], [0.0]), track([10.0 + degrees], [0.0])
    expected = 4 * np.sin(np.radians(degrees) / 2) ** 2 * (1 + 1 + 4 + 4) / 4
    assert motion_errors(CROSS, one, other) == pytest.approx([expected], rel=1e-9)
    assert rotation_angles(one, other) == pytest.approx([degrees], rel=1e-9)
    assert expression_errors(CROSS, one, other) == pytest.approx([0])


def test_a_pure_expression_has_the_same_error_whatever_the_pose() -> None:
    one, other = track([25.0, -40.0], [0.2, 0.0]), track([25.0, -40.0], [0.7, 1.0])
    expected = [(3 * 0.5) ** 2 / 4, 9 / 4]
    assert motion_errors(CROSS, one, other) == pytest.approx(expected)
    assert expression_errors(CROSS, one, other) == pytest.approx(expected)
    assert rotation_angles(one, other) == pytest.approx([0, 0])
    assert MotionErrors.between(CROSS, one, other).motion == pytest.approx(np.mean(expected))


def test_the_motion_error_knows_no_identity_and_the_cross_error_does() -> None:
    one, other = track([0.0, 90.0], [0.0, 1.0]), track([0.0, 90.0], [0.0, 1.0])
    far, near = np.array([3.0, 0]), np.zeros(2)
    assert motion_errors(CROSS, one, other) == pytest.approx([0, 0])
    assert cross_errors(CROSS, far, one, near, other) == pytest.approx([9, 9])
    assert cross_errors(CROSS, far, one, far, other) == pytest.approx([0, 0])
    still = track([0.0, 0.0], [0.0, 0.0])
    turned = CROSS.meshes(far, one.expression, one.rotation) - CROSS.meshes(near, still.expression, still.rotation)
    assert cross_errors(CROSS, far, one, near, still) == pytest.approx((turned**2).sum(-1).mean(-1))


def test_chunks_of_frames_change_nothing() -> None:
    rng = np.random.default_rng(0)
    long = [Track(rng.random((150, 1)), about_z(*rng.normal(0, 20, 150))) for _ in range(2)]
    frame_by_frame = [
        motion_errors(CROSS, long[0].at(slice(t, t + 1)), long[1].at(slice(t, t + 1)))[0] for t in range(150)
    ]
    assert motion_errors(CROSS, *long) == pytest.approx(frame_by_frame, abs=1e-12)


# the metrics --------------------------------------------------------------------------------------------------------


def fit(identity: list[float], motion: Track, valid: list[bool] | None = None, reprojection: float = 0.5) -> Any:
    """What `face-mesh` gives for a clip, NaN where there is no fit."""
    seen = np.array([True] * len(motion) if valid is None else valid)
    return {
        "identity": np.array(identity),
        "expression": np.where(seen[:, None], motion.expression, np.nan),
        "rotation": np.where(seen[:, None, None], motion.rotation, np.nan),
        "translation": np.where(seen[:, None], np.array([0.0, 0, 900]), np.nan),
        "reprojection": np.where(seen, reprojection, np.nan),
        "valid": seen,
    }


class Roles(Mapping[str, Any]):
    """Features by role that note which were looked at."""

    def __init__(self, **fits: Any) -> None:
        self.fits, self.seen = fits, set[str]()

    def __getitem__(self, role: str) -> Any:
        self.seen.add(role)
        return self.fits[role]

    def __iter__(self) -> Any:
        return iter(self.fits)

    def __len__(self) -> int:
        return len(self.fits)


def score(metric: type[Any], roles: Roles, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(mesh_errors, "load_face_model", lambda: CROSS)
    instance = metric()
    instance.load("cpu")
    output = Clip(np.zeros((2, 8, 8, 3), np.uint8), 25.0)
    [row] = instance.score([Scored(practice_pairs(1)[0], output, {EXTRACTOR: roles})])
    return row


STILL = track([0.0, 0.0], [0.0, 0.0])
NODDING = track([0.0, 90.0], [0.0, 1.0])


def test_rows_of_a_copy_of_the_content_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(output=fit([1, 0], STILL), content=fit([1, 0], STILL), motion=fit([0, 0], NODDING))
    assert score(ShapeError, roles, monkeypatch) == {
        "shape-error": 0,
        "fit-reprojection": 0.5,
        "shape-error-frames": 100,
    }
    assert roles.seen == {"output", "content"}
    roles.seen.clear()
    # a quarter turn moves (1,0) and (0,2) as above; the moved vertex stands at (1,3), turned (-3,1), for (1,0)
    quarter = (17 + 2 + 8 + 8) / 4
    row = score(MotionError, roles, monkeypatch)
    assert row == {
        "motion-error": pytest.approx(quarter / 2),
        "motion-rotation": pytest.approx(45),
        "motion-expression": pytest.approx(9 / 8),
        "fit-reprojection": 0.5,
        "motion-error-frames": 100,
    }
    assert roles.seen == {"output", "motion"}
    roles.seen.clear()
    # both are 1 mm to the right: (2,0) (0,0) (1,2) (1,-2) against (2,3) (0,0) (1,2) (1,-2) after the quarter turn
    expected = (29 + 0 + 10 + 10) / 4 / 2
    row = score(CrossError, roles, monkeypatch)
    assert row == {"cross-error": pytest.approx(expected), "fit-reprojection": 0.5, "cross-error-frames": 100}
    assert roles.seen == {"output", "content", "motion"}


def test_rows_of_a_copy_of_the_motion_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(output=fit([0, 0], NODDING), content=fit([3, 0], STILL), motion=fit([0, 0], NODDING))
    assert score(ShapeError, roles, monkeypatch)["shape-error"] == pytest.approx(9)
    assert score(MotionError, roles, monkeypatch)["motion-error"] == 0
    assert score(CrossError, roles, monkeypatch)["cross-error"] == pytest.approx(9)


def test_an_exact_transfer_has_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(output=fit([3, 0], NODDING), content=fit([3, 0], STILL), motion=fit([0, 1], NODDING))
    assert score(ShapeError, roles, monkeypatch)["shape-error"] == 0
    assert score(MotionError, roles, monkeypatch)["motion-error"] == 0
    assert score(CrossError, roles, monkeypatch)["cross-error"] == 0


def test_frames_without_a_fit_in_either_clip_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    four = track([0.0, 90.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0])
    still = track([0.0] * 4, [0.0] * 4)
    roles = Roles(
        output=fit([0, 0], still, [True, True, True, False]),
        content=fit([1, 0], STILL),
        motion=fit([0, 0], four, [False, True, True, True]),
    )
    row = score(MotionError, roles, monkeypatch)
    assert row["motion-rotation"] == pytest.approx(45)  # frames 1 and 2
    assert np.isfinite(list(row.values())).all()
    for metric, name in ((MotionError, "motion-error"), (CrossError, "cross-error"), (ShapeError, "shape-error")):
        # frame 3 counts against the output, and frame 0, in which the driver has no face, does not
        assert score(metric, roles, monkeypatch)[f"{name}-frames"] == pytest.approx(200 / 3)
    roles.fits["motion"] = Failed("a face was found in 1 of 4 frames")
    assert score(ShapeError, roles, monkeypatch)["shape-error-frames"] == 75  # no driver to go by


def test_mediapipes_columns_rest_on_a_share_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_errors, "load_face_model", lambda: CROSS)
    metric = mesh_errors.MediaPipeMotionError()
    metric.load("cpu")
    still = track([0.0] * 4, [0.0] * 4)
    roles = Roles(output=fit([0, 0], still, [True, False, True, True]), motion=fit([0, 0], still))
    output = Clip(np.zeros((4, 8, 8, 3), np.uint8), 25.0)
    [row] = metric.score([Scored(practice_pairs(1)[0], output, {EXTRACTOR + "-mediapipe": roles})])
    assert row["motion-error-mediapipe-frames"] == 75
    assert set(row) == {column.name for column in metric.columns}
    named = {column.name: column.frames for column in metric.columns}
    assert named["motion-rotation-mediapipe"] == named["motion-error-mediapipe"] == "motion-error-mediapipe-frames"


def test_what_cannot_be_compared_is_failed_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    good, three = fit([0, 0], STILL), fit([0, 0], track([0.0] * 3, [0.0] * 3))
    missing = Failed("a face was found in 0 of 2 frames; a fit requires 50%")
    for metric in (ShapeError, MotionError, CrossError):
        roles = Roles(output=missing, content=good, motion=good)
        assert score(metric, roles, monkeypatch) == Failed(f"output: {missing.reason}")
    roles = Roles(output=good, content=missing, motion=good)
    assert score(MotionError, roles, monkeypatch)["motion-error"] == 0  # the content clip is none of its business
    assert score(CrossError, roles, monkeypatch) == Failed(f"content: {missing.reason}")
    roles = Roles(output=three, content=good, motion=good)
    for metric in (MotionError, CrossError):
        assert score(metric, roles, monkeypatch) == Failed("the output has 3 frames, the motion clip has 2")
    early, late = fit([0, 0], STILL, [True, False]), fit([0, 0], STILL, [False, True])
    apart = Failed("0 of 2 frames have a face in both output and motion clip: fewer than half")
    assert score(MotionError, Roles(output=early, content=good, motion=late), monkeypatch) == apart
    four = track([0.0] * 4, [0.0] * 4)
    half = fit([0, 0], four, [True, True, False, False]), fit([0, 0], four, [False, True, True, True])
    overlap = Roles(output=half[0], content=good, motion=half[1])
    few = Failed("1 of 4 frames have a face in both output and motion clip: fewer than half")
    assert score(MotionError, overlap, monkeypatch) == few  # one frame says nothing of a clip
    assert score(CrossError, overlap, monkeypatch) == few


def test_every_column_says_what_it_is_and_that_the_paper_measured_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for metric in (ShapeError, MotionError, CrossError):
        first, *others = metric.columns
        assert "not comparable with the paper" in first.definition
        assert "anny" in first.definition
        assert first.unit == "mm²"
        assert others[-2] == replace(REPROJECTION, frames=others[-1].name)
        assert others[-1].name == f"{first.name}-frames"
        assert all(column.frames == others[-1].name for column in (first, *others[:-1]))
        assert not any(column.headline for column in others[-2:])
        assert all(column.higher_is_better is False for column in (first, *others[:-1]))
    monkeypatch.setattr(mesh_errors, "FLOORS", {"shape-error": "1.2 mm² on 40 pairs"})
    assert mesh_errors._column("shape-error", "mm²", "It").definition == "It. Floor: 1.2 mm² on 40 pairs."
    assert mesh_errors._column("cross-error", "mm²", "It").definition == "It."
