"""What `faces-landmarks` adds for real people: corrected poses, enlarged expressions, and the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import resolve_weights, verify_weights
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench_bcd.extensions.expression_gain import ExpressionGain, enlarged
from bcd_bench_bcd.extensions.field_smoothing import FieldSmoothing, smoothed
from bcd_bench_bcd.extensions.fusion_damping import FusionDamping
from bcd_bench_bcd.extensions.head_pose import projected
from bcd_bench_bcd.extensions.landmark_motion import EXTRACTOR
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.motion_smoothing import MotionSmoothing, smoothed_over_time
from bcd_bench_bcd.extensions.pixel_path import GRID, PixelPath
from bcd_bench_bcd.extensions.pose_correction import PoseCorrection
from bcd_bench_bcd.extensions.steady_sources import SteadySources
from bcd_bench_bcd.inference import export_pretrained as exporting
from bcd_bench_bcd.inference import pipeline as pipelines
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.export_pretrained import WEIGHTS
from bcd_bench_bcd.inference.landmarks import LandmarkReader
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.inference.pose_correction import READ, SECOND, PoseCorrector, mean_turn
from bcd_bench_bcd.inference.recipe import describe_weights
from bcd_bench_bcd.inference.weights import TENSORS_OF, load_model
from tests.bcd.landmark_toy import KNOWN, HeadClips
from tests.bcd.test_landmark_motion import network


def turns(*vectors: tuple[float, float, float]) -> np.ndarray:
    """Rotations by vectors in degrees."""
    return np.asarray(Rotation.from_rotvec(np.array(vectors), degrees=True).as_matrix())


def vector_of(turn: Any) -> np.ndarray:
    return np.asarray(Rotation.from_matrix(np.asarray(turn, np.float64)).as_rotvec(degrees=True))


def shipped(weights: str) -> ExtendedBCD:
    model = BCD.from_pretrained(weights).model
    assert isinstance(model, ExtendedBCD)
    return model


# ---- the rotation ------------------------------------------------------------------------------------------------
def test_the_mean_rotation_between_two_fits_is_in_the_axes_of_the_head() -> None:
    read = turns((0, 30, 0), (0, -20, 5), (10, 0, 0), (0, 0, 0))
    off = turns((6, -2, 1))[0]
    second = read @ off
    second[2] = read[2] @ turns((50, 0, 0))[0]  # the median ignores one bad fit
    second[3] = np.nan
    np.testing.assert_allclose(vector_of(mean_turn(read, second, PoseCorrection())), (6, -2, 1), atol=1e-6)
    half = mean_turn(read, second, PoseCorrection(share=0.5))
    np.testing.assert_allclose(vector_of(half), (3, -1, 0.5), atol=1e-6)
    limited = mean_turn(read, second, PoseCorrection(limit=4))
    np.testing.assert_allclose(vector_of(limited), (4, -2, 1), atol=1e-6)


def test_without_a_common_frame_nothing_is_turned() -> None:
    read, second = turns((0, 0, 0), (5, 0, 0)), turns((9, 0, 0), (9, 0, 0))
    read[0], second[1] = np.nan, np.nan
    np.testing.assert_array_equal(mean_turn(read, second, PoseCorrection()), np.eye(3))


class Fit:
    """An extractor whose rotations are about x by the brightness of the frames plus `more` degrees."""

    def __init__(self, more: float, needs: str) -> None:
        self.more, self.needs, self.frames = more, needs, 0

    def extract(self, clips: list[Clip], features: Any) -> list[Any]:
        [clip], [row] = clips, features[self.needs]
        self.frames = len(clip)
        assert len(row["points"]) == len(clip)
        return [{"rotation": turns(*[(float(frame.mean()) + self.more, 0, 0) for frame in clip.frames])}]


class Points:
    def extract(self, clips: list[Clip]) -> list[Any]:
        return [{"points": np.zeros((len(clips[0]), 4, 3), np.float32)}]


class NoFit:
    def extract(self, clips: list[Clip], features: Any) -> list[Any]:
        return [Failed("no face")]


def corrector(second: Any) -> PoseCorrector:
    extractors = {"points": (Points(), ()), READ: (Fit(0, EXTRACTOR), (EXTRACTOR,)), SECOND: (second, ("points",))}
    return PoseCorrector(extractors)


def test_some_frames_of_a_clip_are_fitted_and_a_failed_fit_turns_nothing() -> None:
    frames = np.repeat(np.arange(20, dtype=np.uint8), 3 * 16).reshape(20, 4, 4, 3)
    read = {"points": np.zeros((20, 5, 2), np.float32), "face": np.ones(20, np.float32)}
    second = Fit(7, "points")
    turn = corrector(second).turn(frames, read, PoseCorrection(frames=6))
    assert second.frames == 6
    assert turn.dtype == torch.float32
    np.testing.assert_allclose(vector_of(turn), (7, 0, 0), atol=1e-4)
    assert corrector(Fit(1, "points")).turn(frames[:2], {"points": read["points"][:2]}, PoseCorrection()).shape == (
        3,
        3,
    )
    torch.testing.assert_close(corrector(NoFit()).turn(frames, read, PoseCorrection()), torch.eye(3))


# ---- encoder and fields ------------------------------------------------------------------------------------------
@torch.no_grad()
def test_a_turned_pose_is_that_of_a_head_turned_about_its_centre() -> None:
    net = network()
    shape, focal = net.decoder.mean[:KNOWN], net.settings.focal
    rotation = torch.from_numpy(turns((4, 20, -3), (-6, -10, 2))).float()
    position = torch.tensor([[0.4, 0.1, 10.5], [-0.3, 0.0, 9.0]])
    turn = torch.from_numpy(turns((8, -5, 3))).float()
    seen = projected(shape, rotation, position, focal)
    centre = shape.mean(0)
    turned = projected((shape - centre) @ turn[0].mT + centre, rotation, position, focal)
    pose, left = net.pose_and_rest(seen, turn.expand(2, 3, 3))
    expected, _ = net.pose_and_rest(turned)
    torch.testing.assert_close(pose, expected, atol=5e-3, rtol=0)
    assert left.abs().max() < 1e-3
    assert (pose - net.pose_and_rest(seen)[0]).abs().max() > 0.1
    encoded, exact = net.encode(seen[None], turn)[0], net.encode(turned[None])[0]
    torch.testing.assert_close(encoded[..., :9], exact[..., :9], atol=5e-3, rtol=0)  # latents begin with the pose


@torch.no_grad()
def test_no_turn_changes_nothing_and_turns_of_content_and_motion_cancel() -> None:
    net, path = network(), PixelPath(sources=2, gap=2, mirrored=True)
    points, _ = HeadClips().random_points([3], [3], 9)
    landmarks = torch.from_numpy(points[0, :, :KNOWN])
    latents = net.encode(landmarks[None])[0][0, [4, 7]]
    plain = net.geometry(landmarks, latents, path, 16)
    same = net.geometry(landmarks, latents, path, 16, torch.eye(3))
    torch.testing.assert_close(same.displacements, plain.displacements, atol=1e-4, rtol=0)
    turn = torch.from_numpy(turns((7, 3, -2))).float()
    both = net.encode(landmarks[None], turn)[0][0, [4, 7]]
    cancelled = net.geometry(landmarks, both, path, 16, turn[0])
    assert cancelled.displacements[:, 0].abs().max() < 1e-3
    assert cancelled.sources[:, 0].tolist() == [4, 7]
    only_motion = net.geometry(landmarks, both, path, 16)
    assert only_motion.displacements[:, 0].abs().max() > 0.02


def test_the_pipeline_turns_every_clip_by_its_own_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    bcd = BCD.from_pretrained("faces-landmarks")
    reader = LandmarkReader(Points())
    monkeypatch.setattr(reader, "read", lambda frames: np.zeros((len(frames), 320, 2), np.float32))
    monkeypatch.setattr(pipelines, "landmark_reader", lambda network: reader)

    class Brightness:
        def turn(self, frames: np.ndarray, read: Any, settings: PoseCorrection) -> torch.Tensor:
            assert "points" in read
            return torch.eye(3) * round(float(frames.mean()))

    monkeypatch.setattr(pipelines, "pose_corrector", Brightness)
    values = torch.stack([torch.full((2, 3, 128, 128), -1.0), torch.full((2, 3, 128, 128), 1.0)])
    found = Pipeline(bcd.model).turns(values)
    assert found is not None
    assert found[:, 0, 0].tolist() == [0, 255]
    plain = BCD.from_pretrained("heads-landmarks")
    assert Pipeline(plain.model).turns(values) is None


@torch.no_grad()
def test_expressions_are_enlarged_about_the_mean_of_a_clip_and_poses_are_not() -> None:
    values = torch.tensor([[[1.0, 5.0], [3.0, 5.0]], [[0.0, 2.0], [0.0, 6.0]]])
    expected = torch.tensor([[[0.0, 5.0], [4.0, 5.0]], [[0.0, 0.0], [0.0, 8.0]]])
    torch.testing.assert_close(enlarged(values, 2.0), expected)
    net = network()
    points, _ = HeadClips().random_points([3], [3], 9)
    landmarks = torch.from_numpy(points[:, :, :KNOWN])
    seen: list[torch.Tensor] = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    net.encode(landmarks)
    net.expression_gain = 3.0
    net.encode(landmarks)
    plain, larger = seen
    torch.testing.assert_close(larger[..., :9], plain[..., :9])
    torch.testing.assert_close(larger[..., 9:], enlarged(plain[..., 9:], 3.0))
    assert (larger - plain).abs().max() > 0.1


def test_weights_with_the_extension_enlarge_by_its_factor() -> None:
    faces, heads = (shipped(f"{name}-landmarks") for name in ("faces", "heads"))
    settings = faces.extensions.get(ExpressionGain)
    assert settings is not None
    assert faces.landmarks is not None
    assert heads.landmarks is not None
    assert faces.landmarks.expression_gain == settings.factor > 1
    assert heads.landmarks.expression_gain == 1


def test_weights_with_damped_fusion_fuse_by_its_settings() -> None:
    faces, heads = (shipped(f"{name}-landmarks") for name in ("faces", "heads"))
    settings = faces.extensions.get(FusionDamping)
    assert settings is not None
    assert settings.drawn < 0
    assert settings.corrections < 1
    assert faces.pixels is not None
    assert heads.pixels is not None
    assert faces.pixels.damping == settings
    assert heads.pixels.damping is None


@torch.no_grad()
def test_weights_with_smooth_fields_average_them_over_their_window() -> None:
    model = shipped("heads-landmarks")
    settings = model.extensions.get(FieldSmoothing)
    assert settings is not None
    assert settings.window > 1
    network, pixels = model.landmarks, model.pixels
    assert network is not None
    assert pixels is not None
    shape, focal = network.decoder.mean[: network.settings.landmarks], network.settings.focal
    poses = [torch.from_numpy(turns(*[(0, first + 5 * t, 0) for t in range(4)])).float() for first in (-10, 5)]
    content, driving = (projected(shape, pose, network.decoder.rest.expand(4, -1), focal) for pose in poses)
    motion = network.encode(driving[None])[0][0]
    plain = network.geometry(content, motion, pixels.settings, GRID)
    smooth = model.geometry(pixels, torch.zeros(0), content, motion)
    assert torch.equal(smooth.sources, plain.sources)
    torch.testing.assert_close(smooth.displacements, smoothed(plain.displacements, settings.window))
    assert (smooth.displacements - plain.displacements).abs().max() > 1e-3


def test_pixels_are_carried_by_smoothed_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(WEIGHTS / "heads-pixels.safetensors", tmp_path)
    monkeypatch.setattr(exporting, "WEIGHTS", tmp_path)
    smooth, plain = BCDMethod({}), BCDMethod({})
    smooth.load(exporting.extend("heads-pixels", ["motion_smoothing"]), "cpu")
    plain.load(WEIGHTS / "heads-pixels.safetensors", "cpu")
    rng = np.random.default_rng(0)
    content, driving, drawn = (rng.integers(0, 256, (count, 128, 128, 3), np.uint8) for count in (2, 8, 8))
    tokens, motion = plain.encode_content([content])[0], plain.encode_motion([driving]).motion[0]
    shown = smooth.render(drawn, (128, 128), content, tokens, motion)
    np.testing.assert_array_equal(
        shown, plain.render(drawn, (128, 128), content, tokens, smoothed_over_time(motion, MotionSmoothing().window))
    )
    assert (shown != plain.render(drawn, (128, 128), content, tokens, motion)).any()


def test_weights_with_steady_sources_select_by_their_window() -> None:
    faces, heads = (shipped(f"{name}-landmarks") for name in ("faces", "heads"))
    settings = faces.extensions.get(SteadySources)
    assert settings is not None
    assert faces.landmarks is not None
    assert heads.landmarks is not None
    assert faces.landmarks.steady_window == settings.window > 1
    assert heads.landmarks.steady_window == 1


# ---- weights -----------------------------------------------------------------------------------------------------
def test_the_shipped_weights_are_those_of_heads_landmarks_with_the_extension() -> None:
    faces, heads = (load_model(WEIGHTS / f"{name}-landmarks.safetensors") for name in ("faces", "heads"))
    assert set(faces.description.recipe) - set(heads.description.recipe) == {
        "pose_correction",
        "expression_gain",
        "fusion_damping",
        "steady_sources",
    }
    assert "motion_smoothing" in heads.description.recipe
    assert faces.model.state_dict().keys() == heads.model.state_dict().keys()
    assert all(torch.equal(value, faces.model.state_dict()[name]) for name, value in heads.model.state_dict().items())
    assert faces.codes_sha256 == heads.codes_sha256
    assert faces.sha256 != heads.sha256
    assert "expression_gain" in describe_weights(WEIGHTS / "faces-landmarks.safetensors").parts


def test_extensions_are_added_to_a_shipped_file_without_changing_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    shutil.copy(WEIGHTS / "heads-pixels.safetensors", tmp_path)
    monkeypatch.setattr(exporting, "WEIGHTS", tmp_path)
    written = exporting.extend("heads-pixels", ["field_smoothing"])
    before, after = (load_file(folder / written.name) for folder in (WEIGHTS, tmp_path))
    assert before.keys() == after.keys()
    assert all(value.dtype == after[name].dtype and torch.equal(value, after[name]) for name, value in before.items())
    old, new = (load_model(folder / written.name) for folder in (WEIGHTS, tmp_path))
    assert set(new.description.recipe) - set(old.description.recipe) == {"field_smoothing"}
    assert new.card == old.card
    assert new.codes_sha256 == old.codes_sha256


def test_a_variant_needs_the_file_with_its_tensors(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    shutil.copy(WEIGHTS / "faces-landmarks.safetensors", tmp_path)
    variant = tmp_path / "faces-landmarks.safetensors"
    with pytest.raises(UsageError, match=r"its tensors are in 'heads-landmarks\.safetensors'.* not beside it"):
        load_model(variant)
    (tmp_path / "heads-landmarks.safetensors").write_bytes(b"another file")
    with pytest.raises(UsageError, match="not beside it"):
        load_model(variant)
    with safe_open(variant, "np") as file:
        header = dict(file.metadata())
    outside = json.dumps({**json.loads(header[TENSORS_OF]), "file": "../heads-landmarks.safetensors"})
    shutil.copy(WEIGHTS / "heads-landmarks.safetensors", tmp_path)
    (tmp_path / "inner").mkdir()
    for named, reason in ((outside, "not beside it"), ("[]", "does not name"), ("{", "does not name")):
        save_file({}, tmp_path / "inner" / "x.safetensors", {**header, TENSORS_OF: named})
        with pytest.raises(UsageError, match=reason):
            load_model(tmp_path / "inner" / "x.safetensors")
    assert load_model(variant).description.recipe


def test_real_faces_get_the_correction_if_its_landmarker_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bcd_bench_home: Path
) -> None:
    registry = load_registry()
    spec = registry.method("bcd")

    class Present(AssetStore):
        def find(self, name: str) -> Path:
            assert name == "face-landmarker"
            return tmp_path

    for suite, expected in (
        ("lrs3-cross", "faces-landmarks"),
        ("clips-self", "faces-landmarks"),
        ("heads-cross", "heads-landmarks"),
    ):
        chosen = resolve_weights(spec, suite, None, Present(registry))
        assert chosen is not None
        assert chosen.name == expected
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    missing = AssetStore(registry)
    chosen = resolve_weights(spec, "lrs3-cross", None, missing)
    assert chosen is not None
    assert chosen.name == "heads-landmarks"
    [named] = [one for one in spec.weights if one.name == "faces-landmarks"]
    with pytest.raises(MissingAssetError, match=r"weights 'faces-landmarks' need an asset: .*face_landmarker"):
        verify_weights(named, missing)
