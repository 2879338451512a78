"""Codes of identity and expression: distances are displacements, mirror images are those of the mesh."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest

from bcd_bench_faces.dense_landmarks.displacements import Displacements
from bcd_bench_faces.dense_landmarks.points import dense_points
from bcd_bench_faces.dense_landmarks.renders import coefficient_count, shoot
from bcd_bench_faces.head_model.model import HeadModel

POINTS = dense_points(60)


@lru_cache(maxsize=1)
def faces() -> npt.NDArray[np.float32]:
    index = HeadModel.load().expression_index
    shots = [shoot(number) for number in range(256)]
    return np.stack([np.concatenate([shot.identity, shot.expression[index]]) for shot in shots])


def moved(coefficients: npt.NDArray[np.floating]) -> list[npt.NDArray[np.float64]]:
    """Displacements of the points in mm, by identity and by expression, [n, N, 3]."""
    head = HeadModel.load()
    count = len(head.identity)
    return [
        np.tensordot(part.astype(np.float64), basis[:, POINTS.vertices].astype(np.float64), 1)
        for part, basis in zip(np.split(coefficients, [count], axis=1), (head.identity, head.expression), strict=True)
    ]


def codes(coefficients: npt.NDArray[np.floating], *, mirrored: bool = False) -> npt.NDArray[np.float64]:
    return Displacements(POINTS, faces()).codes(coefficients, np.full(len(coefficients), mirrored))


def test_the_decoder_gives_the_coefficients_back() -> None:
    assert codes(faces()).shape == (256, coefficient_count())
    assert codes(faces()) @ Displacements(POINTS, faces()).decoder.T == pytest.approx(faces(), abs=1e-4)


def test_distances_of_codes_are_displacements_in_deviations() -> None:
    found = ((codes(faces()[:40]) - codes(faces()[40:80])) ** 2).sum(axis=1)
    wanted = np.zeros(40)
    for part in moved(faces()):
        deviation = part.std(axis=0)
        deviation = (deviation + deviation[POINTS.mirror]) / 2
        deviation = np.maximum(deviation, 0.15 * deviation.mean())
        wanted += (((part[:40] - part[40:80]) / deviation) ** 2).mean(axis=(1, 2)) / 2
    assert found == pytest.approx(wanted, rel=1e-5)
    assert 1 < found.mean() < 3  # two random faces


def test_codes_of_mirror_images_move_the_points_as_a_mirror_does() -> None:
    back = codes(faces(), mirrored=True) @ Displacements(POINTS, faces()).decoder.T
    for mine, theirs in zip(moved(back), moved(faces()), strict=True):
        wanted = theirs[:, POINTS.mirror] * (-1, 1, 1)
        assert np.abs(mine - wanted).mean() < 0.03 * np.abs(wanted).mean()
        assert np.abs(mine - wanted).mean() < 0.4 * np.abs(theirs - wanted).mean(), "faces are nearly symmetric"


def test_a_closed_eye_is_far_from_an_open_one() -> None:
    names = HeadModel.load().expression_names
    blink = np.zeros((2, coefficient_count()), np.float32)
    blink[1, len(HeadModel.load().identity) + names.index("eyeBlinkLeft")] = 1
    apart = np.linalg.norm(np.diff(codes(blink), axis=0))
    right = np.zeros_like(blink)
    right[1, len(HeadModel.load().identity) + names.index("eyeBlinkRight")] = 1
    assert apart > 0.3  # of 1.4 between random faces, though the points move by 0.2 mm on average
    assert codes(blink, mirrored=True)[1] == pytest.approx(codes(right)[1], abs=0.05 * float(apart))
