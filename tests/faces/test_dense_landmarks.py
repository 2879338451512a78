"""The shipped network: what it finds on test people and real clips, and what it leaves alone; and the extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench import Clip, Failed
from bcd_bench.assets.hashing import canonical_json, sha256_file
from bcd_bench.plugin.registry import load_registry
from bcd_bench.scoring.features import FeatureStore
from bcd_bench.types.errors import UsageError
from bcd_bench_faces.dense_landmarks.detector import SHIPPED, DenseLandmarker, network_path, network_sha256
from bcd_bench_faces.dense_landmarks.extractor import DenseLandmarks
from bcd_bench_faces.dense_landmarks.points import dense_points, project, with_mirror_images
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.synthesis.renderer import Actor
from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of
from tests.faces.real_clips import black, needs_clips, real

PEOPLE = (0, 9, 21, 40)


@pytest.fixture(scope="module")
def landmarker() -> DenseLandmarker:
    return DenseLandmarker()


def rendered(person: int, size: int = 256) -> tuple[Any, Any]:
    """Two frames of a test person, and where the points are in them."""
    motion, chosen = motion_of("test", person, 30), slice(0, 30, 15)
    expression, turn, shift = motion.expression[chosen], motion.rotation[chosen], motion.translation[chosen]
    identity = identity_of("test", person)
    frames = Actor(identity, look_of("test", person)).frames(expression, turn, shift, size)
    index = HeadModel.load().expression_index
    return frames, project(dense_points().vertices, identity, expression[:, index], turn, shift) * (size / 256)


def test_the_file_is_small_and_tells_where_it_comes_from(landmarker: DenseLandmarker) -> None:
    assert SHIPPED.stat().st_size < 8e6
    assert landmarker.card["renders_made_by"]["renderer"] == "1"
    assert landmarker.card["steps"] == landmarker.card["recipe"]["steps"]
    assert (landmarker.vertices == dense_points().vertices).all()


def test_points_have_mirror_images() -> None:
    points = dense_points(60)
    assert (points.mirror[points.mirror] == np.arange(len(points.vertices))).all()
    alone = points.vertices[points.mirror != np.arange(len(points.vertices))][1:]
    for vertices in (alone, np.array([-1, 3], np.int32), np.array([10**6], np.int32)):
        with pytest.raises(ValueError, match="closed under mirroring"):
            with_mirror_images(vertices)


@pytest.mark.parametrize("size", [256, 128])
def test_points_of_unseen_people_are_found(landmarker: DenseLandmarker, size: int) -> None:
    off, sigma = [], []
    for person in PEOPLE:
        frames, wanted = rendered(person, size)
        for frame, points in zip(frames, wanted, strict=True):
            found = landmarker.detect(frame)
            assert found is not None
            assert found.certainty > 0.9
            off.append(np.linalg.norm(found.points - points, axis=1) * 256 / size)
            sigma.append(found.sigma * 256 / size)
    assert np.mean(off) < 3  # pixels of a 256-pixel frame
    expected = np.sqrt(np.mean((np.array(off) ** 2) / 2 / np.array(sigma) ** 2))
    assert 0.5 < expected < 2  # the network knows about how wrong it is


@pytest.mark.parametrize("actions", [("eyeBlinkLeft", "eyeBlinkRight"), ("jawOpen",)])
def test_closed_lids_and_open_mouths_are_told_and_move_the_points(
    landmarker: DenseLandmarker, actions: tuple[str, ...]
) -> None:
    head = HeadModel.load()
    bust = [head.bust_expression_names.index(action) for action in actions]
    own = [len(head.identity) + head.expression_names.index(action) for action in actions]
    amounts, gains, moved = (0.0, 0.8), [], []
    for person in PEOPLE:
        motion = motion_of("test", person, 1)
        expression = np.repeat(motion.expression[:1], 2, 0)
        expression[:, bust] = np.array(amounts)[:, None]
        turn, shift = np.repeat(motion.rotation[:1], 2, 0), np.repeat(motion.translation[:1], 2, 0)
        frames = Actor(identity_of("test", person), look_of("test", person)).frames(expression, turn, shift, 256)
        true = np.diff(
            project(
                landmarker.vertices, identity_of("test", person), expression[:, head.expression_index], turn, shift
            ),
            axis=0,
        )[0]
        seen = [landmarker.detect(frame) for frame in frames]
        before, after = (found for found in seen if found is not None)
        gains.append((after.coefficients - before.coefficients)[own].mean())
        much = np.linalg.norm(true, axis=1) > 0.6 * np.linalg.norm(true, axis=1).max()
        moved.append(((after.points - before.points)[much] * true[much]).sum() / (true[much] ** 2).sum())
    assert np.mean(gains) > 0.3  # of 0.8
    assert np.mean(moved) > 0.5  # of the way


def test_a_face_off_the_middle_and_in_a_wide_frame_is_found(landmarker: DenseLandmarker) -> None:
    frames, wanted = rendered(PEOPLE[0])
    wide = np.full((256, 480, 3), 90, np.uint8)
    wide[:, 200:456] = frames[0]
    found = landmarker.detect(wide)
    assert found is not None
    assert np.linalg.norm(found.points - (wanted[0] + (200, 0)), axis=1).mean() < 4


def test_without_a_face_there_is_none(landmarker: DenseLandmarker) -> None:
    rng = np.random.default_rng(0)
    for frame in (
        black(1)[0],
        np.full((120, 200, 3), 200, np.uint8),
        rng.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        np.tile(np.linspace(0, 255, 128, dtype=np.uint8)[None, :, None], (128, 1, 3)),
    ):
        assert landmarker.detect(frame) is None


def test_any_size_of_frame_is_taken(landmarker: DenseLandmarker) -> None:
    for height, width in ((1, 1), (2, 300), (8, 8), (31, 17)):
        assert landmarker.detect(np.zeros((height, width, 3), np.uint8)) is None


# the extractor --------------------------------------------------------------------------------------------------------


def points(clips: list[Any], root: Path) -> list[Any]:
    store = FeatureStore(load_registry(), device="cpu", root=root)
    return store.get("dense-landmarks", [Clip(frames, 25.0) for frames in clips])


def test_the_extractor_names_its_weights() -> None:
    identity = DenseLandmarks().identity
    assert canonical_json(dict(identity))
    assert identity["weights"] == sha256_file(SHIPPED) == network_sha256()


def test_a_network_of_your_own_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(SHIPPED.read_bytes())
    monkeypatch.setenv("BCD_BENCH_DENSE_LANDMARKS", str(own))
    assert network_path() == own
    assert DenseLandmarks().identity["weights"] == sha256_file(own)
    monkeypatch.setenv("BCD_BENCH_DENSE_LANDMARKS", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="absent: cannot be read"):
        _ = DenseLandmarks().identity
    with pytest.raises(UsageError, match="absent: not a readable safetensors file"):
        DenseLandmarks().load("cpu")


def test_company_and_order_change_no_bit(tmp_path: Path) -> None:
    one, two = rendered(PEOPLE[0])[0], rendered(PEOPLE[1])[0]
    together, turned = points([one, two], tmp_path / "a"), points([two[::-1], one], tmp_path / "b")
    [alone] = points([one], tmp_path / "c")
    assert alone["points"].shape == (2, 320, 2)
    assert alone["sigma"].shape == (2, 320)
    for name in alone:
        assert together[0][name].tobytes() == turned[1][name].tobytes() == alone[name].tobytes()
        assert together[1][name].tobytes() == turned[0][name][::-1].tobytes()


def test_a_faceless_clip_has_nothing_and_fails_the_fit(tmp_path: Path) -> None:
    [found] = points([black(3)], tmp_path)
    assert np.isnan(found["points"]).all()
    assert np.isnan(found["sigma"]).all()
    assert (found["face"] == 0).all()
    [fit] = FeatureStore(load_registry(), device="cpu", root=tmp_path).get("face-mesh", [Clip(black(3), 25.0)])
    assert fit == Failed("a face was found in 0 of 3 frames; a fit requires 50%")


@needs_clips
def test_real_faces_are_found_though_it_never_saw_one(tmp_path: Path) -> None:
    found = points([real(person, frames=4) for person in ("p001", "p002", "p003", "p004")], tmp_path)
    assert sum(np.isfinite(one["points"]).all(axis=(1, 2)).sum() for one in found) == 16
