"""theval-*: the formulas by hand, the score of all pairs, and rows for outputs."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench import Failed
from bcd_bench_faces.metrics.face_dynamics import (
    BROWS,
    EYES,
    LIPS,
    BrowDynamics,
    HeadDynamics,
    LipDynamics,
    brow_dynamics,
    head_dynamics,
    lip_dynamics,
)
from tests.faces.real_clips import item

LANDMARKS = "mediapipe-landmarks"


def face(frames: int) -> Any:
    """Points [T, 478, 3] with the eyes 10 apart and the brows 3 above them."""
    points = np.zeros((frames, 478, 3))
    for side, x in enumerate((0, 10)):
        points[:, EYES[side], 0] = points[:, BROWS[side], 0] = x
        points[:, BROWS[side], 1] = -3
    return points


def test_the_groups_of_points_are_those_of_the_face_mesh() -> None:
    assert len(set(LIPS)) == 40
    assert [len(set(side)) for side in (*BROWS, *EYES)] == [10, 10, 16, 16]
    connections = pytest.importorskip("mediapipe").tasks.vision.FaceLandmarksConnections

    def ends(group: str) -> set[int]:
        edges = getattr(connections, f"FACE_LANDMARKS_{group}")
        return {end for edge in edges for end in (edge.start, edge.end)}

    assert set(LIPS) == ends("LIPS")
    assert [set(side) for side in BROWS] == [ends("LEFT_EYEBROW"), ends("RIGHT_EYEBROW")]
    assert [set(side) for side in EYES] == [ends("LEFT_EYE"), ends("RIGHT_EYE")]


def test_lip_dynamics_by_hand() -> None:
    """Two groups of lip points whose distance is 4 and 10: its deviation is 3, for pairs of one group it is 0."""
    points = np.zeros((2, 478, 3))
    lower = LIPS[:10]
    points[0, lower, 0], points[1, lower, 0] = 4, 10
    across = 10 * 30
    assert lip_dynamics(points, (256, 256)) == pytest.approx(3 * across / len(list(combinations(LIPS, 2))))
    assert lip_dynamics(points, (128, 512)) == pytest.approx(1.5 * across / 780), "x in pixels of 256 of 512"
    assert lip_dynamics(points + 17, (256, 256)) == pytest.approx(3 * across / 780)


def test_brow_dynamics_by_hand() -> None:
    """One brow rises by 2 and falls by 1, a fifth and a tenth of the distance of the eyes; the other rests."""
    points = face(3)
    points[1, BROWS[0], 1] -= 2
    points[2, BROWS[0], 1] -= 1
    assert brow_dynamics(points) == pytest.approx((0.2 + 0.1) / 4)
    assert brow_dynamics(5 * points) == pytest.approx((0.2 + 0.1) / 4)


def test_head_dynamics_by_hand() -> None:
    """Yaw 0, 6, 0: deviation sqrt(8), changes 6 and -6 with variance 36. The centre has variances 2/3 and 0."""
    angles = np.array([[0, 5, 0], [6, 5, 0], [0, 5, 0]], float)
    centre = np.array([[1, 7], [2, 7], [3, 7]], float)
    assert head_dynamics(angles, centre) == pytest.approx(np.sqrt(np.sqrt(8) / 3 * 36 / 3 + (2 / 3) / 2))


def features(points: Any, yaw: Any = None) -> dict[str, Any]:
    degrees = np.zeros(len(points)) if yaw is None else np.asarray(yaw, float)
    rotation = Rotation.from_euler("y", degrees[:, None], degrees=True).as_matrix()
    rotation[~np.isfinite(points[:, 0, 0])] = np.nan
    return {"points": points, "rotation": rotation}


def test_rows_have_the_output_and_the_driver_and_skip_frames_without_a_face() -> None:
    moving, still = face(4), face(4)
    moving[1, BROWS[0], 1] -= 2
    still[3] = np.nan
    [row] = BrowDynamics().score([item(LANDMARKS, output=features(still), motion=features(moving))])
    assert row == {
        "theval-brows-mediapipe": 0,
        "theval-brows-mediapipe-driver": pytest.approx((0.2 + 0.2) / 4),
        "theval-brows-mediapipe-frames": 75.0,
    }
    turning = features(face(3), (0, 6, 0))
    [row] = HeadDynamics().score([item(LANDMARKS, output=turning, motion=features(face(3)))])
    assert isinstance(row, dict)
    assert row["theval-head-mediapipe"] == pytest.approx(np.sqrt(np.sqrt(8) / 3 * 36 / 3))
    assert row["theval-head-mediapipe-driver"] == 0
    [row] = LipDynamics().score([item(LANDMARKS, output=features(face(1)), motion=features(face(1)))])
    assert row == Failed("one frame shows no motion")


def test_the_score_compares_the_means_of_all_pairs() -> None:
    rows = [
        {"theval-lips-mediapipe": 1.0, "theval-lips-mediapipe-driver": 2.0},
        {"theval-lips-mediapipe": 2.0, "theval-lips-mediapipe-driver": 2.0},
    ]
    assert LipDynamics().derive(rows) == {"theval-lips-mediapipe-score": pytest.approx(0.75)}
    more = [{"theval-lips-mediapipe": 5.0, "theval-lips-mediapipe-driver": 4.0}]
    assert LipDynamics().derive(more) == {"theval-lips-mediapipe-score": pytest.approx(0.75)}
    none = [{"theval-lips-mediapipe": 1.0, "theval-lips-mediapipe-driver": 0.0}]
    assert LipDynamics().derive(none) == {}
