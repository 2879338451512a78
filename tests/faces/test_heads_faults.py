"""Perturbed heads: the fault is the one asked for, its truth is computed by hand here, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from bcd_bench.metric_validation.perturbations import GENERAL, TRUTH_KEY
from bcd_bench_faces.suites.synthetic_heads import FAULTS, heads_suite, true_parameters
from bcd_bench_faces.suites.synthetic_perturbations import true_errors, wrong_expression, wrong_identity, wrong_pose

PAIR = heads_suite(64).pairs[3]


@pytest.fixture(autouse=True, scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory) -> object:
    patch = pytest.MonkeyPatch()
    patch.setenv("BCD_BENCH_HOME", str(tmp_path_factory.mktemp("home")))
    yield
    patch.undo()


def truth(clip: object) -> dict[str, float]:
    return dict(clip.info[TRUTH_KEY])  # type: ignore[attr-defined]


def test_a_wrong_identity_errs_in_shape_alone_and_by_the_square_of_the_dose() -> None:
    half, whole = (truth(wrong_identity(PAIR, dose, 0)) for dose in (0.5, 1.0))
    assert whole["shape-error"] > 5
    assert half["shape-error"] == pytest.approx(whole["shape-error"] / 4, rel=1e-4)
    assert whole["cross-error"] == pytest.approx(whole["shape-error"], rel=0.02), (
        "turning a difference keeps its length"
    )
    for column in ("motion-error", "motion-rotation", "motion-expression", "ard"):
        assert whole[column] == 0


def test_a_wrong_pose_errs_by_its_angle() -> None:
    found = truth(wrong_pose(PAIR, 10.0, 0))
    assert found["motion-rotation"] == pytest.approx(10.0, abs=1e-3)
    assert found["ard"] == found["motion-rotation"]
    assert found["motion-expression"] == 0
    assert found["shape-error"] == 0
    assert found["motion-error"] > 20


def test_a_wrong_expression_errs_in_the_expression_alone() -> None:
    half, whole = (truth(wrong_expression(PAIR, dose, 0)) for dose in (0.5, 1.0))
    assert whole["motion-expression"] > 0.1
    assert half["motion-expression"] == pytest.approx(whole["motion-expression"] / 4, rel=1e-4)
    assert whole["motion-error"] == pytest.approx(whole["motion-expression"], rel=1e-6), "a turn keeps lengths"
    assert whole["motion-rotation"] == 0
    assert whole["shape-error"] == 0


def test_pixels_change_with_the_dose_and_come_out_the_same_twice() -> None:
    assert PAIR.target is not None
    target = PAIR.target.load().frames.astype(int)
    clips = [wrong_pose(PAIR, dose, 0) for dose in (2.0, 20.0)]
    near, far = (np.abs(clip.frames.astype(int) - target).mean() for clip in clips)
    assert 0 < near < far
    again = wrong_pose(PAIR, 20.0, 0)  # from the cache
    assert again.sha256 == clips[1].sha256
    assert wrong_pose(PAIR, 20.0, 1).sha256 != again.sha256, "another seed turns about another axis"


def test_no_fault_is_no_error() -> None:
    assert PAIR.target is not None
    true = true_parameters(PAIR.target)
    assert set(true_errors(true, true).values()) == {0.0}
    assert wrong_identity(PAIR, 0.0, 0).sha256 == PAIR.target.load().sha256


def test_the_suite_offers_the_faults() -> None:
    assert heads_suite(64).perturbations == FAULTS
    assert not {fault.name for fault in FAULTS} & {fault.name for fault in GENERAL}
