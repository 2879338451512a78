"""`pca-motion`: the algebra of landmarks, the warp, and a real head that ends up looking where the driver looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench import Clip, Failed
from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.executor import Work, load_method
from bcd_bench.scoring.features import FeatureStore, needed_extractors
from bcd_bench.testing import practice_pairs
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench_baselines.pca_motion.method import PcaMotion
from bcd_bench_baselines.pca_motion.motion import FLIP, Track, best_frame, linear_model, retarget
from bcd_bench_baselines.pca_motion.warp import INNER_LIPS, FaceMesh, mouth_opening, newly_open, warp

SETTINGS: dict[str, Any] = {"mode": "absolute", "components": 12, "expression": 1.0}
POINTS = 478


def features(seed: int, frames: int = 6, centre: tuple[float, float] = (32.0, 30.0)) -> dict[str, Any]:
    """A cloud of points that turns and changes its shape, as the extractor would give it."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(POINTS, 3)) * [0.5, 0.6, 0.3]
    modes = rng.normal(size=(2, POINTS, 3)) * 0.05
    weights = rng.uniform(0, 1, (frames, 52))
    turned = Rotation.from_rotvec(rng.normal(size=(frames, 3)) * 0.2).as_matrix()
    points = 12 * (shape + np.einsum("tk,knd->tnd", weights[:, :2], modes)) @ turned.transpose(0, 2, 1)
    points += [*centre, 0]
    rotation = FLIP @ turned @ FLIP
    return {"points": points.astype(np.float32), "rotation": rotation, "blendshapes": weights, "faces": np.ones(frames)}


def test_a_shape_apart_from_its_pose_comes_back() -> None:
    track = Track.of(features(1))
    back = track.centre[:, None] + track.scale[:, None, None] * (track.shape @ track.rotation.transpose(0, 2, 1))
    assert np.allclose(back, track.points)
    turned, moved = features(1), features(1)
    extra = Rotation.from_rotvec([0.1, -0.2, 0.3]).as_matrix()
    turned["points"] = 3 * turned["points"] @ extra.T
    turned["rotation"] = FLIP @ extra @ FLIP @ turned["rotation"]
    moved["points"] = moved["points"] + 5
    for other in (Track.of(turned), Track.of(moved)):
        assert np.allclose(other.shape, track.shape, atol=1e-5), "pose, size and place are no part of the shape"


def test_frames_without_a_face_take_the_nearest() -> None:
    found = features(2)
    found["points"][[0, 3]] = np.nan
    track = Track.of(found)
    assert track.seen.tolist() == [False, True, True, False, True, True]
    assert np.array_equal(track.points[0], found["points"][1].astype(np.float64))
    assert np.array_equal(track.points[3], found["points"][2].astype(np.float64))
    found["points"][:] = np.nan
    with pytest.raises(ValueError, match="none of 6 frames shows a face"):
        Track.of(found)


def test_the_linear_model_is_a_pca() -> None:
    driver = Track.of(features(3))
    flat = driver.shape.reshape(6, -1)
    mean, basis, scores = linear_model(driver, 5)
    assert np.allclose(basis @ basis.T, np.eye(5))
    assert np.allclose(mean + scores @ basis, flat), "five components are all of six frames"
    _, two, kept = linear_model(driver, 2)
    assert np.allclose(two, basis[:2])
    assert np.allclose(((flat - mean - kept @ two) ** 2).sum(), (scores[:, 2:] ** 2).sum())
    assert linear_model(Track.of(features(3, 1)), 12)[1].shape == (0, 3 * POINTS)


def test_absolute_motion_is_the_drivers_pose_on_the_contents_shape() -> None:
    content, driver = Track.of(features(4)), Track.of(features(5))
    moved = retarget(content, 2, driver, mode="absolute", components=12, gain=0.0)
    assert np.allclose(moved.shape, content.shape[2])
    own = retarget(content, 2, content, mode="absolute", components=12, gain=0.0)
    assert np.allclose(own.points[2], content.points[2]), "a frame that drives itself stays"
    shifted = features(5, centre=(40.0, 30.0))
    there = retarget(content, 2, Track.of(shifted), mode="absolute", components=12, gain=1.0).points
    here = retarget(content, 2, driver, mode="absolute", components=12, gain=1.0).points
    assert np.allclose(there - here, [8, 0, 0], atol=1e-4)


def test_the_expression_counts_from_that_of_the_content() -> None:
    """Blendshapes that explain the shape: where the driver's are the content's, the shape is the content's own."""
    content, driver = features(4), features(6, 20)
    content["blendshapes"][2] = driver["blendshapes"][7]
    face, other = Track.of(content), Track.of(driver)
    moved = retarget(face, 2, other, mode="absolute", components=12, gain=1.0)
    change = np.abs(moved.shape - face.shape[2]).mean((1, 2))
    assert change[7] == change.min()
    assert change[7] < 0.5 * np.median(change)


def test_relative_motion_begins_with_the_content_frame() -> None:
    content, driver = Track.of(features(7)), Track.of(features(8))
    moved = retarget(content, 1, driver, mode="relative", components=12, gain=1.0)
    assert np.allclose(moved.points[0], content.points[1])
    assert not np.allclose(moved.points[3], content.points[1], atol=1)


def test_the_frame_to_warp_is_seen_turned_alike_and_awake() -> None:
    found, driver = features(9), Track.of(features(10))
    found["rotation"][:] = FLIP @ Rotation.from_rotvec([0, 1.2, 0]).as_matrix() @ FLIP
    found["blendshapes"][:] = 0
    mean = FLIP @ Rotation.from_matrix(driver.rotation).mean().as_matrix() @ FLIP
    found["rotation"][[1, 3, 4]] = mean
    found["points"][1] = np.nan  # turned alike, but not seen
    found["blendshapes"][3, 9:11] = 1.0  # turned alike, but asleep
    assert best_frame(Track.of(found), driver) == 4


def picture(seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (64, 72, 3), dtype=np.uint8)


def test_a_face_that_does_not_move_leaves_the_picture_as_it_is() -> None:
    track = Track.of(features(11))
    mesh = FaceMesh.build(picture(), track.points[0], track.rotation[0], float(track.scale[0]))
    still = mesh.bend(track.points[:1], track.rotation[:1], track.scale[:1], np.zeros(1))
    assert np.abs(still[0].astype(int) - picture()).max() <= 1
    moved = mesh.bend(track.points[:1] + np.array([4, 0, 0]), track.rotation[:1], track.scale[:1], np.zeros(1))[0]
    assert np.array_equal(moved[:, 0], picture()[:, 0]), "the border is pinned"
    assert np.abs(moved.astype(int) - picture())[20:40, 24:40].mean() > 20


def test_a_face_outside_the_picture_is_no_face() -> None:
    track = Track.of(features(12, centre=(90.0, 30.0)))
    with pytest.raises(ValueError, match="most of the face is outside"):
        FaceMesh.build(picture(), track.points[0], track.rotation[0], float(track.scale[0]))


def quad(target: list[list[float]], out: npt.NDArray[np.uint8], dark: float = 0.0) -> None:
    """The left half of the picture as one square of two triangles, the right half as another, before or behind it."""
    source = np.array([[0, 0], [8, 0], [8, 16], [0, 16], [16, 0], [16, 16]], float)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [1, 4, 5], [1, 5, 2]], np.int32)
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8], image[:, 8:] = 100, 200
    warp(image, source, np.array(target, float), triangles, np.full(4, dark), np.zeros(3), out)


def test_the_nearest_triangle_shows_and_turned_ones_do_not() -> None:
    near, far = [[0, 0, 1], [8, 0, 1], [8, 16, 1], [0, 16, 1]], [[16, 0, 5], [16, 16, 5]]
    out = np.empty((16, 16, 3), np.uint8)
    quad(near + far, out)
    assert set(out[:, :7].ravel()) == {100}
    assert set(out[:, 9:].ravel()) == {200}
    over = [[0, 0, 5], [12, 0, 1], [12, 16, 1], [0, 16, 5], [4, 0, 0], [4, 16, 0]]  # the right half folded back
    quad(over, out)
    assert 200 not in out[:, :11], "what is turned over is not to be seen"
    assert (out[:, 13:, 0] == 200).all(), "what nothing covers stays"
    quad(near + far, out, dark=1.0)
    assert not out.any()


def test_an_opening_mouth_is_dark_as_far_as_it_was_closed() -> None:
    shape = np.zeros((2, POINTS, 3))
    angles = -np.pi + 2 * np.pi * np.arange(len(INNER_LIPS)) / len(INNER_LIPS)
    shape[1, INNER_LIPS, 0], shape[1, INNER_LIPS, 1] = 0.5 * np.cos(angles), 0.5 * np.sin(angles)
    closed, opened = mouth_opening(shape)
    assert closed == 0
    assert opened == pytest.approx(np.pi / 4, rel=0.03)
    assert newly_open(0.0, np.array([0.0, 0.01, 0.09])) == pytest.approx([0, 0.5, 0.9])
    assert newly_open(0.5, np.array([0.2, 0.5])) == pytest.approx([0, 0])


def test_pairs_without_faces_fail_with_a_reason() -> None:
    pairs = practice_pairs(4)
    nobody, blinking = features(13, 8), features(14, 8)
    nobody["points"][:], blinking["points"][:5] = np.nan, np.nan
    inputs = [(nobody, features(1)), (features(1), nobody), (features(1), blinking), (Failed("no model"), features(1))]
    given = [{"mediapipe-landmarks": {"content": content, "motion": motion}} for content, motion in inputs]
    method = PcaMotion(SETTINGS)
    method.load(None, "cpu")
    assert [str(result.reason) for result in method.transfer(pairs, seed=0, features=given)] == [
        "content: none of 8 frames shows a face",
        "driving clip: none of 8 frames shows a face",
        "driving clip: only 3 of 8 frames show a face",
        "content: no model",
    ]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mode": "both"}, "mode='both': must be absolute or relative"),
        ({"components": -1}, "components=-1 must be a non-negative integer"),
        ({"expression": "much"}, r"expression='much' must be a number between 0 and 10"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        PcaMotion({**SETTINGS, **changes})
    with pytest.raises(UsageError, match="does not accept weights"):
        PcaMotion(SETTINGS).load(Path("x"), "cpu")


@pytest.mark.slow
def test_a_head_looks_where_the_driver_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    if "heads-cross-64" not in registry.suites:
        pytest.skip("bcd-bench-faces is not installed")
    try:
        AssetStore(registry).find("face-landmarker")
    except MissingAssetError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path))
    spec = registry.methods["pca-motion"]
    pair = load_suite(registry, "heads-cross-64").pairs[1]
    needed = tuple(needed_extractors(registry, spec.extractors))
    method = load_method(Work(spec.name, spec.factory, spec.config, None, "cpu", 0, (64, 64), needed))
    [result] = method.transfer([pair], seed=0)
    [again] = method.transfer([pair], seed=1)
    assert isinstance(result, Clip)
    assert isinstance(again, Clip)
    assert result.sha256 == again.sha256
    content, driver = pair.content.load(), pair.motion.load()
    store = FeatureStore(registry, device="cpu", root=tmp_path / "features")
    turned = [Track.of(one).rotation for one in store.get("mediapipe-landmarks", [result, content, driver])]  # type: ignore[arg-type]

    def angle(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
        return float(np.degrees((Rotation.from_matrix(a).inv() * Rotation.from_matrix(b)).magnitude()).mean())

    output, before, wanted = turned
    assert angle(output, wanted) < 0.6 * angle(before, wanted)
    assert pair.target is not None
    target = pair.target.load().frames.astype(float)
    assert ((result.frames - target) ** 2).mean() < ((content.frames - target) ** 2).mean()
