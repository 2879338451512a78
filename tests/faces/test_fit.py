"""The fit on landmarks projected from a head with known parameters, where the answer is exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest

from bcd_bench.types.failed import Failed
from bcd_bench_faces.fitting.extractor import MAX_REPROJECTION, fit_or_fail
from bcd_bench_faces.fitting.levenberg_marquardt import Expected, FitOptions, HeadFit, LandmarkBasis, fit_clip
from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.metrics.vertex_errors import FaceModel, Track, motion_errors, rotation_angles, shape_error

Floats = npt.NDArray[np.float64]

POINTS = 240
EXACT = FitOptions(identity_prior=1e-4, expression_l1=0, expression_l2=1e-4, iterations=60, tolerance=1e-9)
"""As good as no priors, so that the true parameters are the answer."""


@dataclass(frozen=True)
class Head:
    """True parameters of a clip."""

    identity: Floats
    expression: Floats
    rotation: Floats
    translation: Floats

    @property
    def track(self) -> Track:
        return Track(self.expression, self.rotation)


@lru_cache(maxsize=1)
def face() -> FaceModel:
    return load_face_model()


@lru_cache(maxsize=1)
def basis() -> LandmarkBasis:
    """Vertices of the face spread evenly over the file's order; those at the back of the jaw are left out."""
    whole = face()
    front = np.flatnonzero(whole.mean[:, 2] < 20)
    chosen = front[np.linspace(0, len(front) - 1, POINTS).astype(int)]
    return LandmarkBasis(whole.mean[chosen], whole.identity[:, chosen], whole.expression[:, chosen], np.ones(POINTS))


def turns(vectors: Floats) -> Floats:
    """Rotation matrices of rotation vectors, by SciPy."""
    from scipy.spatial.transform import Rotation

    matrices: Floats = Rotation.from_rotvec(vectors).as_matrix()
    return matrices


def head(seed: int, frames: int = 5) -> Head:
    rng = np.random.default_rng(seed)
    used = rng.random((frames, len(face().expression))) < 0.2
    return Head(
        identity=rng.normal(0, 1, len(face().identity)),
        expression=rng.uniform(0, 0.6, used.shape) * used,
        rotation=turns(rng.normal(0, [0.1, 0.25, 0.1], (frames, 3))),
        translation=np.array([0, 10, 900]) + rng.normal(0, [15, 15, 60], (frames, 3)),
    )


def project(truth: Head, size: tuple[int, int] = (256, 256)) -> Floats:
    """Pixels [T, N, 2] of the landmarks in frames of `size`."""
    points = basis()
    moved = points.mean + np.tensordot(truth.identity, points.identity, 1)
    moved = moved + np.tensordot(truth.expression, points.expression, 1)
    placed = np.einsum("tij,tnj->tni", truth.rotation, moved) + truth.translation[:, None]
    focal = 900 * max(size) / 256
    pixels: Floats = placed[:, :, :2] / placed[:, :, 2:] * focal + np.array([size[1], size[0]]) / 2
    return pixels


def same(one: HeadFit, other: HeadFit) -> bool:
    """Whether two fits are equal in every bit."""
    names = ("identity", "expression", "rotation", "translation", "reprojection", "valid")
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in names)


@pytest.mark.parametrize("seed", [0, 1])
def test_true_parameters_are_recovered(seed: int) -> None:
    truth = head(seed)
    found = fit_clip(basis(), project(truth), (256, 256), EXACT)
    assert found.reprojection.max() < 1e-3
    assert shape_error(face(), found.identity, truth.identity) < 1e-2  # mm^2
    assert rotation_angles(Track(found.expression, found.rotation), truth.track).max() < 0.05
    assert np.abs(found.expression - truth.expression).max() < 0.05
    assert np.abs(found.translation - truth.translation).max() < 1
    assert found.valid.all()


def test_the_size_of_frames_does_not_matter() -> None:
    truth = head(2, frames=3)
    square = fit_clip(basis(), project(truth), (256, 256))
    small = fit_clip(basis(), project(truth, (64, 64)), (64, 64))
    wide = fit_clip(basis(), project(truth, (1080, 1920)), (1080, 1920))
    for other in (small, wide):
        assert other.identity == pytest.approx(square.identity, abs=1e-6)
        assert other.translation == pytest.approx(square.translation, abs=1e-4)
        assert other.reprojection == pytest.approx(square.reprojection, abs=1e-6)


def test_noise_is_averaged_and_gross_errors_count_little() -> None:
    truth = head(3, frames=12)
    seen = project(truth) + np.random.default_rng(0).normal(0, 0.5, (12, POINTS, 2))
    clean = fit_clip(basis(), seen, (256, 256))
    assert 0.4 < clean.reprojection.mean() < 0.75  # a two-dimensional error of 0.5 px an axis has mean 0.63
    flat = shape_error(face(), np.zeros_like(truth.identity), truth.identity)
    error = shape_error(face(), clean.identity, truth.identity)
    assert error < 0.35 * flat
    seen[:, ::20] += 40
    robust = fit_clip(basis(), seen, (256, 256))
    pulled = fit_clip(basis(), seen, (256, 256), FitOptions(huber=1e6))
    assert shape_error(face(), robust.identity, truth.identity) < 0.5 * flat
    assert shape_error(face(), robust.identity, truth.identity) < shape_error(face(), pulled.identity, truth.identity)


def test_priors_pull_to_what_is_expected() -> None:
    truth, other = head(3, frames=6), head(6, frames=6)
    seen = project(truth)
    seen[2] = np.nan
    plain = fit_clip(basis(), seen, (256, 256))
    nothing = Expected(np.zeros_like(truth.identity), np.zeros_like(truth.expression))
    assert same(plain, fit_clip(basis(), seen, (256, 256), expected=nothing))
    told = fit_clip(basis(), seen, (256, 256), expected=Expected(truth.identity, truth.expression))
    assert shape_error(face(), told.identity, truth.identity) < 0.2 * shape_error(
        face(), plain.identity, truth.identity
    )
    strong = FitOptions(identity_prior=1e6, expression_l1=0, expression_l2=1e8)
    held = fit_clip(basis(), seen, (256, 256), strong, expected=Expected(other.identity, other.expression))
    assert held.identity == pytest.approx(other.identity, abs=0.02)
    assert held.expression[held.valid] == pytest.approx(other.expression[held.valid], abs=0.03)


def test_identity_and_motion_are_told_apart() -> None:
    one, other = head(4, frames=8), head(5, frames=8)
    fits = [
        fit_clip(basis(), project(replace(motion, identity=who.identity)), (256, 256), EXACT)
        for who, motion in ((one, one), (one, other), (other, one))
    ]
    same_person = shape_error(face(), fits[0].identity, fits[1].identity)
    other_person = shape_error(face(), fits[0].identity, fits[2].identity)
    assert same_person < 1e-2 < 5 < other_person
    tracks = [Track(found.expression, found.rotation) for found in fits]
    assert motion_errors(face(), tracks[0], tracks[2]).max() < 1e-1
    assert motion_errors(face(), tracks[0], tracks[1]).mean() > 50


def test_expression_stays_within_its_bounds_and_reaches_them() -> None:
    truth = head(6, frames=4)
    beyond = replace(truth, expression=truth.expression * 4 - 0.4)  # no mixture of actions looks like this
    found = fit_clip(basis(), project(beyond), (256, 256))
    assert found.expression.min() == 0
    assert found.expression.max() == 1
    assert np.isfinite(found.reprojection).all()


def test_twice_is_bit_for_bit_the_same_and_no_clip_touches_another() -> None:
    clips = [project(head(seed, frames)) for seed, frames in ((7, 4), (8, 9), (9, 1))]
    alone = [fit_clip(basis(), points, (256, 256)) for points in clips]
    again = [fit_clip(basis(), points, (256, 256)) for points in reversed(clips)]
    assert all(same(one, other) for one, other in zip(alone, reversed(again), strict=True))


def test_long_clips_keep_no_equations_and_come_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points = project(head(12, frames=20))
    kept = fit_clip(basis(), points, (256, 256))
    monkeypatch.setattr("bcd_bench_faces.fitting.levenberg_marquardt.KEPT", 19)
    assert same(kept, fit_clip(basis(), points, (256, 256)))


def test_frames_without_landmarks_are_left_out_and_change_nothing() -> None:
    points = project(head(10, frames=6))
    gaps = np.insert(points, [0, 3, 3], np.nan, axis=0)
    gaps[-1, 7, 1] = np.inf  # one point of a frame is enough
    found = fit_clip(basis(), gaps, (256, 256))
    assert found.valid.tolist() == [False, True, True, True, False, False, True, True, False]
    whole = fit_clip(basis(), points[:5], (256, 256))
    assert found.identity.tobytes() == whole.identity.tobytes()
    assert found.expression[found.valid].tobytes() == whole.expression.tobytes()
    for rows in (found.expression, found.rotation, found.translation, found.reprojection):
        assert np.isnan(rows[~found.valid]).all()
        assert np.isfinite(rows[found.valid]).all()


def test_one_frame_is_enough() -> None:
    truth = head(11, frames=1)
    found = fit_clip(basis(), project(truth), (256, 256))
    assert found.reprojection[0] < 0.6
    assert rotation_angles(Track(found.expression, found.rotation), truth.track)[0] < 3


def test_a_third_coordinate_is_not_looked_at_and_wrong_shapes_are_refused() -> None:
    points = project(head(12, frames=2))
    deep = np.concatenate([points, np.full((2, POINTS, 1), np.nan)], axis=2)
    assert same(fit_clip(basis(), deep, (256, 256)), fit_clip(basis(), points, (256, 256)))
    with pytest.raises(ValueError, match=r"points must be \[T, 240, 2\], not \[2, 239, 2\]"):
        fit_clip(basis(), points[:, 1:], (256, 256))
    with pytest.raises(ValueError, match="no frame has landmarks"):
        fit_clip(basis(), np.full((3, POINTS, 2), np.nan), (256, 256))


def test_clips_with_few_faces_or_a_bad_fit_are_failed_with_a_reason() -> None:
    points = project(head(13, frames=5))
    points[1:4] = np.nan
    few = fit_or_fail(basis(), points, (256, 256))
    assert few == Failed("a face was found in 2 of 5 frames; a fit requires 50%")
    none = fit_or_fail(basis(), np.full((5, POINTS, 2), np.nan), (256, 256))
    assert none == Failed("a face was found in 0 of 5 frames; a fit requires 50%")
    half = fit_or_fail(basis(), points[:4][[0, 0, 1, 2]], (256, 256))
    assert isinstance(half, HeadFit)
    nonsense = np.random.default_rng(0).uniform(40, 210, (3, POINTS, 2))
    bad = fit_or_fail(basis(), nonsense, (256, 256))
    assert isinstance(bad, Failed)
    assert bad.reason.endswith(f"px from the landmarks; the limit is {MAX_REPROJECTION:g} px")


def test_weights_of_a_frame_stand_for_those_of_the_basis() -> None:
    truth = head(14, frames=4)
    points = project(truth)
    same_weight = np.broadcast_to(basis().weight, points.shape[:2])
    assert same(fit_clip(basis(), points, (256, 256), weight=same_weight), fit_clip(basis(), points, (256, 256)))
    wrong, weight = points.copy(), np.ones(points.shape[:2])
    wrong[1, :80] += 25  # a third of one frame's points, which are said to be worth little
    weight[1, :80] = 1e-6
    trusted, doubted = (fit_clip(basis(), wrong, (256, 256), EXACT, one) for one in (None, weight))
    exact = truth.track
    assert shape_error(face(), doubted.identity, truth.identity) < 0.05
    assert rotation_angles(Track(doubted.expression, doubted.rotation), exact).max() < 0.2
    assert rotation_angles(Track(trusted.expression, trusted.rotation), exact)[1] > 0.5


def test_frames_without_weights_are_left_out_and_wrong_shapes_refused() -> None:
    points = project(head(15, frames=3))
    weight = np.ones(points.shape[:2])
    weight[1] = np.nan
    assert fit_clip(basis(), points, (256, 256), weight=weight).valid.tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"weight must be \[3, 240\], not \[2, 240\]"):
        fit_clip(basis(), points, (256, 256), weight=weight[:2])
