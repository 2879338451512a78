"""The parametric head: shapes, units, and that the face and the bust are one model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcd_bench_faces.head_model.model import PIVOT, HeadModel
from bcd_bench_faces.synthesis.hair import hair_shell

MODEL = HeadModel.load()


def test_shapes_and_types() -> None:
    count, components = 2138, 80
    assert MODEL.mean.shape == (count, 3)
    assert MODEL.identity.shape == (components, count, 3)
    assert MODEL.expression.shape == (43, count, 3)
    assert MODEL.mean.dtype == MODEL.identity.dtype == MODEL.expression.dtype == np.float32
    assert MODEL.triangles.shape[1] == 3
    assert MODEL.triangles.dtype == np.int32
    assert MODEL.triangles.min() == 0
    assert MODEL.triangles.max() == count - 1


def test_region_has_no_gaze_and_no_tongue() -> None:
    assert len(MODEL.bust_expression_names) == 52
    left_out = set(MODEL.bust_expression_names) - set(MODEL.expression_names)
    assert len(left_out) == 9
    assert left_out == {name for name in MODEL.bust_expression_names if name.startswith("eyeLook")} | {"tongueOut"}


def test_units_are_millimetres_of_an_adult() -> None:
    eyes = [MODEL.bust_mean[np.unique(MODEL.faces[MODEL.labels == eye])].mean(0) for eye in (1, 2)]
    assert 55 < np.linalg.norm(eyes[0] - eyes[1]) < 66
    np.testing.assert_allclose(np.mean(eyes, axis=0), 0, atol=1e-3)
    assert 115 < np.ptp(MODEL.mean[:, 0]) < 160  # the width of a face without its ears


def test_axes_are_right_down_away() -> None:
    tip = MODEL.mean[MODEL.mean[:, 2].argmin()]  # the tip of the nose is nearest to the camera
    assert abs(tip[0]) < 2
    assert 25 < tip[1] < 55
    jaw = MODEL.expression[MODEL.expression_names.index("jawOpen")]
    assert jaw[:, 1].max() > 20  # an opening jaw moves down
    left = MODEL.expression[MODEL.expression_names.index("mouthLeft")]
    assert left[np.abs(left[:, 0]).argmax(), 0] > 5  # the wearer's left is the picture's right


def test_front_faces_point_to_the_camera() -> None:
    a, b, c = (MODEL.mean[MODEL.triangles[:, corner]] for corner in range(3))
    assert np.mean(np.cross(b - a, c - a)[:, 2] < 0) > 0.85


def test_components_are_ordered_and_of_unit_variance() -> None:
    spread = np.sqrt((MODEL.identity**2).sum(2).mean(1))
    assert np.all(np.diff(spread[:40]) < 0.02)
    assert 1.5 < spread[0] < 4.0
    assert 3.0 < np.sqrt((spread**2).sum()) < 6.0  # rms distance in mm of a person from the mean
    flat = MODEL.identity.reshape(len(spread), -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, np.eye(len(unit)), atol=5e-3)  # stored in half precision


def test_face_is_part_of_the_bust() -> None:
    rng = np.random.default_rng(3)
    who = rng.standard_normal(80)
    what = rng.uniform(0, 1, (2, 52))
    what[:, [MODEL.bust_expression_names.index("tongueOut")]] = 0
    bust = MODEL.bust(who, what)
    face = MODEL.vertices(who, what[:, MODEL.expression_index])
    gaze = [i for i, name in enumerate(MODEL.bust_expression_names) if name.startswith("eyeLook")]
    lids = np.abs(MODEL.bust_expression[gaze][:, MODEL.region]).max(axis=(0, 2)) > 0  # lids follow the gaze a little
    np.testing.assert_allclose(bust[:, MODEL.region][:, ~lids], face[:, ~lids], atol=1e-4)
    assert lids.mean() < 0.4


def test_neutral_mean_is_the_mean() -> None:
    np.testing.assert_array_equal(MODEL.vertices(np.zeros(80), np.zeros((1, 43)))[0], MODEL.mean)
    one = np.zeros(80)
    one[4] = -2
    np.testing.assert_allclose(MODEL.vertices(one, np.zeros((1, 43)))[0], MODEL.mean - 2 * MODEL.identity[4], atol=1e-4)


def test_fewer_components_are_the_first_ones() -> None:
    who = np.zeros(80)
    who[:5] = 1
    silent = np.zeros((1, 43))
    np.testing.assert_array_equal(MODEL.vertices(who[:5], silent), MODEL.vertices(who, silent))


@pytest.mark.parametrize(("who", "what"), [(np.zeros(81), np.zeros((1, 43))), (np.zeros(80), np.zeros(43))])
def test_wrong_shapes_are_refused(who: np.ndarray, what: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        MODEL.vertices(who, what)


def test_face_moves_as_one_with_the_head() -> None:
    angle = 0.5
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    shift = np.array([3.0, -4.0, 1000.0])
    bust = MODEL.bust_mean[None]
    posed = MODEL.pose(bust, turn[None], shift[None])[0]
    rigid = (MODEL.mean - PIVOT) @ turn.T + PIVOT + shift
    np.testing.assert_allclose(posed[MODEL.region], rigid, atol=2e-3)
    still = MODEL.skinning.sum(1) == 0
    assert still.sum() > 50
    np.testing.assert_allclose(posed[still], MODEL.bust_mean[still] + shift, atol=1e-3)


def test_no_turn_leaves_everything_in_place() -> None:
    posed = MODEL.pose(MODEL.bust_mean[None], np.eye(3)[None], np.zeros((1, 3)))[0]
    np.testing.assert_allclose(posed, MODEL.bust_mean, atol=1e-3)


def test_another_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", format=np.array(99))
    with pytest.raises(ValueError, match="format 1"):
        HeadModel.load(tmp_path / "other.npz")


def test_hair_wraps_the_skull_and_follows_the_person() -> None:
    shell = hair_shell(MODEL)
    np.testing.assert_allclose(shell.shares.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(shell.outward, axis=1), 1, atol=1e-5)
    still, bare = np.zeros_like(MODEL.bust_mean), np.zeros(len(shell.vertices), np.float32)
    np.testing.assert_allclose(shell.worn(still, bare), shell.vertices, atol=1e-4)
    moved = shell.worn(still + np.float32([0, 0, 7]), bare + 5)
    np.testing.assert_allclose(moved - shell.vertices, shell.outward * 5 + (0, 0, 7), atol=1e-3)
