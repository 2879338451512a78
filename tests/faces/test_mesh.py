"""Fits of real and rendered faces, from pixels: the extractor, the shipped correspondence, and the script behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench import Clip, Failed
from bcd_bench.assets.hashing import canonical_json
from bcd_bench.plugin.registry import load_registry
from bcd_bench.scoring.features import FeatureStore
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.fitting.extractor import FaceMesh, MediaPipeFaceMesh, dense_weight
from bcd_bench_faces.fitting.levenberg_marquardt import fit_clip
from bcd_bench_faces.head_model.correspondence import Correspondence
from bcd_bench_faces.head_model.face_region import IDENTITIES, head_model_sha256, load_face_model
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.metrics.mesh_errors import CrossError, MediaPipeShapeError, MotionError, ShapeError
from bcd_bench_faces.metrics.vertex_errors import Track, rotation_angles, shape_error
from bcd_bench_faces.synthesis.renderer import Actor
from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of
from tests.faces.real_clips import black, needs_clips, needs_landmarker, real, score
from tests.faces.scripts import script

PEOPLE = ("p001", "p002", "p003", "p004")


# the correspondence --------------------------------------------------------------------------------------------------


def test_the_shipped_correspondence_belongs_to_the_shipped_head_model_and_the_landmarker() -> None:
    shipped = Correspondence.load()
    assert shipped.landmarks.tolist() == list(range(468))
    assert shipped.barycentric.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (shipped.barycentric >= 0).all()
    assert shipped.vertices.max() < len(HeadModel.load().mean)
    assert shipped.provenance["head_model"] == head_model_sha256()
    assert shipped.provenance["landmarker"] == FACE_LANDMARKER.sha256
    assert shipped.provenance["with_a_face"] >= 100
    assert shipped.weight.mean() == pytest.approx(1)


def test_it_puts_landmarks_where_they_are_on_a_face() -> None:
    shipped, face = Correspondence.load(), load_face_model()
    basis = shipped.basis(face)
    assert basis.identity.shape == (IDENTITIES, 468, 3)
    x, y, z = basis.mean.T
    assert abs(x[1]) < 2  # nose tip: in the middle, and in front of everything else but a little
    assert z[1] < np.quantile(z, 0.03)
    assert x[33] < x[133] < 0 < x[362] < x[263]  # corners of the eyes, the right eye at the left of the picture
    assert y[10] < y[1] < y[13] < y[152]  # top of the forehead, nose tip, lips, chin
    jaw = basis.expression[face.expression_names.index("jawOpen")]
    assert jaw[152, 1] > 10 > 2 > abs(jaw[10, 1])  # opening the jaw moves the chin down and the forehead not at all
    oval = [10, 454, 152, 234, 172, 397, 127, 356]
    assert np.median(shipped.weight[oval]) < 0.5 * np.median(shipped.weight)  # it slides, so it counts less


def test_the_script_finds_the_points_that_landmarks_show() -> None:
    triangles = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    vertices, weights = script("fit_correspondence").candidates(triangles)
    assert len(vertices) == 4 + 5 + 4 * 2
    assert weights.sum(axis=1) == pytest.approx(1)
    square = np.array([[0.0, 0], [30, 0], [0, 30], [30, 30]])
    rng = np.random.default_rng(0)
    turned = [
        square @ np.array([[c, -s], [s, c]])
        for c, s in (np.array([np.cos(a), np.sin(a)]) for a in rng.normal(0, 1, 50))
    ]
    projected = np.stack([np.einsum("ck,ckd->cd", weights, corners[vertices]) for corners in turned])
    wanted = np.array([2, 5, 12])
    seen = projected[:, wanted] + rng.normal(0, 1, (50, 3, 2))
    seen[:10, 1] += 400  # missed in some renders
    best, sigma = script("fit_correspondence").assign(seen, projected)
    assert best.tolist() == wanted.tolist()
    assert sigma[[0, 2]] == pytest.approx([1, 1], abs=0.25)
    assert sigma[1] > 50  # and is hardly trusted


# from pixels ---------------------------------------------------------------------------------------------------------


WAYS = ("face-mesh", pytest.param("face-mesh-mediapipe", marks=needs_landmarker))


def meshes(clips: list[Any], root: Path, extractor: str = "face-mesh") -> list[Any]:
    """What an extractor gives in a run."""
    store = FeatureStore(load_registry(), device="cpu", root=root)
    return store.get(extractor, [Clip(frames, 25.0) for frames in clips])


def test_what_is_expected_to_be_off_weighs_less_and_no_weight_is_boundless() -> None:
    sigma = np.array([[0.0, 1.0, 4.0]])
    weight = dense_weight(sigma, (256, 256))[0]
    assert np.isfinite(weight).all()
    assert weight[0] > weight[1] > 5 * weight[2] > 0
    assert dense_weight(2 * sigma, (512, 300)) == pytest.approx(weight[None])  # in pixels of the same frame


def test_the_identities_of_the_extractors_are_plain_and_name_their_files() -> None:
    for extractor in (FaceMesh(), MediaPipeFaceMesh()):
        assert canonical_json(dict(extractor.identity))
        assert extractor.identity["head"] == head_model_sha256()
    assert MediaPipeFaceMesh().identity["correspondence"] == Correspondence.sha256()


@pytest.mark.parametrize("way", WAYS)
def test_a_rendered_head_gives_its_pose_and_its_expression_back(way: str, tmp_path: Path) -> None:
    motion = motion_of("test", 3, 30)
    chosen = slice(0, 30, 6)
    actor = Actor(identity_of("test", 3), look_of("test", 3))
    frames = actor.frames(motion.expression[chosen], motion.rotation[chosen], motion.translation[chosen], 256)
    [found] = meshes([frames], tmp_path, way)
    assert found["valid"].all()
    assert found["reprojection"].mean() < 2
    track = Track(found["expression"], found["rotation"])
    truth = motion.expression[chosen][:, HeadModel.load().expression_index].astype(np.float64)
    exact = Track(truth, motion.rotation[chosen].astype(np.float64))
    assert rotation_angles(track, exact).mean() < 6
    assert found["identity"].shape == (IDENTITIES,)


@needs_clips
@pytest.mark.parametrize("way", WAYS)
def test_real_faces_are_fitted_within_the_papers_error_and_people_told_apart(way: str, tmp_path: Path) -> None:
    clips = [real(person, frames=16) for person in PEOPLE]
    halves = [half for clip in clips for half in (clip[:8], clip[8:])]
    found = meshes(halves, tmp_path, way)
    assert not any(isinstance(one, Failed) for one in found)
    assert np.median([one["reprojection"].mean() for one in found]) < 1.5  # the paper: "less than 1.5 pixels"
    face = load_face_model()
    same = [shape_error(face, found[i]["identity"], found[i + 1]["identity"]) for i in range(0, 8, 2)]
    other = [
        shape_error(face, found[i]["identity"], found[j]["identity"])
        for i in range(8)
        for j in range(i)
        if i // 2 != j // 2
    ]
    assert np.mean([one < another for one in same for another in other]) >= 0.9


@needs_clips
@needs_landmarker
def test_scores_from_mediapipes_landmarks_have_names_of_their_own(tmp_path: Path) -> None:
    content, motion = real("p001", frames=4), real("p002", frames=4)
    cases = [(content, motion, content), (content, motion, motion)]
    [same, other] = score(MediaPipeShapeError(), "face-mesh-mediapipe", cases, tmp_path)
    assert same["shape-error-mediapipe"] == 0 < 0.5 < other["shape-error-mediapipe"]
    assert set(same) == {column.name for column in MediaPipeShapeError.columns}
    assert "from MediaPipe's landmarks" in MediaPipeShapeError.columns[0].definition


@needs_clips
def test_scores_from_pixels(tmp_path: Path) -> None:
    content, motion = real("p001", frames=4), real("p002", frames=4)
    faceless = motion.copy()
    faceless[:3] = 0
    cases = [
        (content, motion, content),
        (content, motion, motion),
        (content, motion, black(4)),
        (content, motion, faceless),
    ]
    shape = score(ShapeError(), "face-mesh", cases, tmp_path)
    moved = score(MotionError(), "face-mesh", cases, tmp_path)
    cross = score(CrossError(), "face-mesh", cases, tmp_path)
    assert shape[0]["shape-error"] == 0 < 0.5 < shape[1]["shape-error"]
    assert moved[1]["motion-error"] == moved[1]["motion-rotation"] == 0 < 5 < moved[0]["motion-error"]
    assert min(cross[0]["cross-error"], cross[1]["cross-error"]) > 0.5
    assert cross[1]["cross-error"] == pytest.approx(shape[1]["shape-error"], rel=1e-6)  # one motion, turned alike
    for rows in (shape, moved, cross):
        assert rows[2] == Failed("output: a face was found in 0 of 4 frames; a fit requires 50%")
        assert rows[3] == Failed("output: a face was found in 1 of 4 frames; a fit requires 50%")
        assert 0.2 < rows[0]["fit-reprojection"] < 2


@needs_clips
def test_company_and_order_change_no_bit(tmp_path: Path) -> None:
    clips = [real(person, frames=3) for person in PEOPLE[:2]]
    together, turned = meshes(clips, tmp_path / "a"), meshes(clips[::-1], tmp_path / "b")[::-1]
    [alone] = meshes(clips[:1], tmp_path / "c")
    for name in alone:
        assert together[0][name].tobytes() == turned[0][name].tobytes() == alone[name].tobytes()
        assert together[1][name].tobytes() == turned[1][name].tobytes()


def test_a_fit_needs_no_more_than_the_landmarks_of_one_frame() -> None:
    """The mean face, projected by hand and fitted with the shipped correspondence, stays the mean face."""
    basis = Correspondence.load().basis(load_face_model())
    placed = basis.mean + np.array([0, 0, 900.0])
    pixels = placed[None, :, :2] / placed[None, :, 2:] * 900 + 128
    found = fit_clip(basis, pixels, (256, 256))
    assert found.reprojection[0] < 0.05
    assert np.abs(found.identity).max() < 0.05
