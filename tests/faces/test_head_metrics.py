"""ard and auh: the head's rotation and the action units of the output against those of the driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench import Failed
from bcd_bench_faces.landmarks.mediapipe import BLENDSHAPES
from bcd_bench_faces.metrics.action_units import ACTION_UNITS, AUH, ON, SHAPES
from bcd_bench_faces.metrics.head_rotation import ARD, angle_between
from tests.faces.real_clips import black, item, needs_clips, needs_landmarker, real, score

LANDMARKS = "mediapipe-landmarks"


def turned(*degrees: float | None) -> dict[str, Any]:
    """Heads that are turned about the vertical; None for a frame without a face."""
    made = [
        np.full((3, 3), np.nan) if one is None else Rotation.from_euler("y", one, degrees=True).as_matrix()
        for one in degrees
    ]
    return {"rotation": np.array(made, np.float32)}


def shaped(*frames: dict[str, float] | None) -> dict[str, Any]:
    """Faces with these blendshapes and no others; None for a frame without a face."""
    rows = [np.full(52, np.nan) if one is None else [one.get(name, 0.0) for name in BLENDSHAPES] for one in frames]
    return {"blendshapes": np.array(rows, np.float32)}


def row_of(metric: Any, output: Any, motion: Any) -> Any:
    [row] = metric.score([item(LANDMARKS, output=output, motion=motion)])
    return row


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 0.5, 90.0, 179.9, 180.0])
def test_angles_are_exact_from_the_smallest_to_the_largest(degrees: float) -> None:
    axis = np.array([2.0, -1.0, 2.0]) / 3
    a = Rotation.from_euler("xyz", [20, -40, 10], degrees=True).as_matrix()
    b = a @ Rotation.from_rotvec(axis * degrees, degrees=True).as_matrix()
    assert angle_between(a[None], b[None])[0] == pytest.approx(degrees, abs=1e-9)


def test_ard_is_the_mean_angle_over_the_frames_that_both_have() -> None:
    row = row_of(ARD(), turned(0, 10, 20, None), turned(0, 15, 50, 90))
    assert row == {"ard": pytest.approx(35 / 3, abs=1e-4), "ard-frames": 75.0}
    # of the driver's three faces the output has two; what it shows where the driver shows nobody is no gain
    row = row_of(ARD(), turned(0, 10, None, 40), turned(0, 15, 50, None))
    assert row == {"ard": pytest.approx(2.5, abs=1e-4), "ard-frames": pytest.approx(200 / 3)}
    assert row_of(ARD(), turned(5, -5), turned(5, -5))["ard"] == pytest.approx(0, abs=1e-3)


def test_auh_counts_the_states_that_differ() -> None:
    assert len(SHAPES) == len(set(SHAPES)) == 31
    assert len(ACTION_UNITS) == 18
    output = shaped({"jawOpen": 0.9, "mouthSmileLeft": ON}, {"eyeLookInLeft": 1.0}, None)
    driver = shaped({"jawOpen": 0.3, "mouthSmileLeft": ON - 0.01}, {"mouthPucker": 0.5, "browInnerUp": 0.8}, {})
    row = row_of(AUH(), output, driver)
    assert row == {"auh": pytest.approx(100 * (1 + 2) / 62), "auh-frames": pytest.approx(200 / 3)}


@pytest.mark.parametrize(("metric", "made"), [(ARD(), turned), (AUH(), shaped)])
def test_too_few_faces_fail_with_their_counts(metric: Any, made: Any) -> None:
    face = 0 if made is turned else {}
    assert row_of(metric, made(face, None, None), made(face, face, None)) == Failed(
        "1 of 3 output frames and 2 driving frames show a face, 1 of them in common: fewer than half"
    )
    assert isinstance(row_of(metric, made(face, None), made(None, face)), Failed)
    assert row_of(metric, made(face), made(face, face)) == Failed("the output has 1 frames, its driving clip 2")
    assert row_of(metric, Failed("torn"), made(face)) == Failed("torn")
    assert row_of(metric, made(face), Failed("gone")) == Failed("gone")


@needs_landmarker
@needs_clips
def test_real_clips(tmp_path: Path) -> None:
    face, other = real("p001"), real("p004")
    roll = cv2.getRotationMatrix2D((112, 112), 15, 1.0)
    rolled = np.stack([cv2.warpAffine(one, roll, (224, 224), borderMode=cv2.BORDER_REPLICATE) for one in face])
    cases = [(face, face, out) for out in (face, rolled, other, black(3))] + [(face[:1], face[:1], face[:1])]
    ard, auh = (score(metric, LANDMARKS, cases, tmp_path) for metric in (ARD(), AUH()))
    assert [row["ard"] for row in ard[:2]] == [pytest.approx(0, abs=1e-3), pytest.approx(15, abs=1)]
    assert [row["auh"] for row in auh[:1]] == [0]
    assert auh[1]["auh"] < auh[2]["auh"]
    assert ard[2]["ard"] == pytest.approx(6.59, abs=0.5)
    assert auh[2]["auh"] == pytest.approx(8.60, abs=2.2)
    assert ard[4] == {"ard": pytest.approx(0, abs=1e-3), "ard-frames": 100.0}
    for rows in (ard, auh):
        assert rows[3] == Failed(
            "0 of 3 output frames and 3 driving frames show a face, 0 of them in common: fewer than half"
        )
