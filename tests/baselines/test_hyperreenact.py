"""HyperReenact's networks give what the original gave, from weights of the same seed, piece by piece.

Whole files are never made, since they hold 600 million numbers: of each network the tensors that a check needs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench import Clip, Failed, Suite
from bcd_bench.plugin.registry import Registry
from bcd_bench.run.plan import make_plan
from bcd_bench.testing import practice_pairs
from bcd_bench.types.errors import UsageError
from bcd_bench_baselines import plugin
from bcd_bench_baselines.hyperreenact.checkout import Checkout
from bcd_bench_baselines.hyperreenact.encoders import E4E, ArcFaceIRSE, DecaEncoder
from bcd_bench_baselines.hyperreenact.generator import ChangedConv2d, Generator
from bcd_bench_baselines.hyperreenact.geometry import aligned_face, arcface_affine, pose_crop, square_crop
from bcd_bench_baselines.hyperreenact.hypernetwork import Hypernetwork
from bcd_bench_baselines.hyperreenact.method import HyperReenactMethod, to_uint8
from bcd_bench_baselines.hyperreenact.model import TRUNCATION, HyperReenact, to_signed
from bcd_bench_baselines.hyperreenact.specs import FILES
from tests.baselines.parity import Reference, close, reference

NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "e4e-voxceleb.pt": ("e", E4E),
    "insight_face.pth": ("arcface", ArcFaceIRSE),
    "deca_model.tar": ("E_flame", DecaEncoder),
    "stylegan-voxceleb.pt": ("g_ema", Generator),
    "hypernetwork.pt": ("state_dict", Hypernetwork),
}
CODES = {"most": 3e-4, "mean": 2e-5}
"""2e-4 relative, for values of about 1.5."""


def keys_of(found: Reference, file: str) -> dict[str, Any]:
    keys: dict[str, Any] = found.manifest["files"][file]["sections"][NETWORKS[file][0]]["keys"]
    return keys


def filled(found: Reference, file: str, wanted: Callable[[str], bool] = lambda key: True) -> Any:
    """The network with the seeded tensors whose keys are `wanted`; the others have no values at all."""
    section, make = NETWORKS[file]
    with torch.device("meta"):
        network = make()
    keys = {key: spec for key, spec in keys_of(found, file).items() if wanted(key)}
    state = found.seeding.build_section(section, keys, int(found.arrays["seed"]), "")
    network.load_state_dict(state, strict=False, assign=True)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("file", NETWORKS)
def test_every_key_and_shape_is_that_of_the_published_file(file: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[file][1]()
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == {key: spec["shape"] for key, spec in keys_of(reference("hyperreenact"), file).items()}


def test_a_face_is_aligned_as_the_original_does() -> None:
    arrays = reference("hyperreenact").arrays
    affine = arcface_affine(arrays["source_landmarks68"].astype(np.float64))
    close(affine, arrays["arcface_affine"], most=1e-6, mean=1e-6)


def signed(arrays: dict[str, Any]) -> Tensor:
    return to_signed(torch.from_numpy(arrays["source_u8"])[None])


@pytest.mark.slow
def test_appearance_and_identity() -> None:
    found = reference("hyperreenact")
    arrays, network = found.arrays, filled(found, "insight_face.pth")
    features = network(aligned_face(signed(arrays), torch.from_numpy(arrays["arcface_affine"])))
    close(features[:, ::4], arrays["f_app"], most=5e-4, mean=2e-5)
    close(features.mean((0, 2, 3)), arrays["f_app_stats"][0], most=3e-4, mean=2e-5)
    close(network.identity(features), arrays["id_embedding"], most=3e-5, mean=3e-6)


@pytest.mark.slow
def test_pose_features() -> None:
    found = reference("hyperreenact")
    arrays, network = found.arrays, filled(found, "deca_model.tar")
    driving = torch.from_numpy(arrays["driving_u8"]).permute(0, 3, 1, 2).float() / 255
    features = network(F.interpolate(driving, size=224, mode="bilinear", align_corners=False))
    close(features[:, ::16], arrays["f_pose_sub"], most=5e-3, mean=2e-5)
    close(network.parameters_of(features), arrays["deca_params"], most=2e-3, mean=2e-5)


@pytest.mark.slow
def test_inversion_of_the_first_style_of_each_kind() -> None:
    """Heads 0, 3 and 7: one of each size. Each is added to head 0."""
    found = reference("hyperreenact")
    heads = (0, 3, 7)
    wanted = tuple(f"styles.{head}." for head in heads)
    network = filled(found, "e4e-voxceleb.pt", lambda key: not key.startswith("styles.") or key.startswith(wanted))
    c1, c2, c3 = network.taps(signed(found.arrays))
    p2 = F.interpolate(c3, scale_factor=2, mode="bilinear", align_corners=True) + network.latlayer1(c2)
    p1 = F.interpolate(p2, scale_factor=2, mode="bilinear", align_corners=True) + network.latlayer2(c1)
    first, fourth, eighth = (network.styles[head](x) for head, x in zip(heads, (c3, p2, p1), strict=True))
    codes = torch.stack([first, first + fourth, first + eighth], 1)
    close(codes, found.arrays["e4e_codes"][:, heads], **CODES)


@pytest.mark.slow
def test_the_generator() -> None:
    found = reference("hyperreenact")
    arrays, network = found.arrays, filled(found, "stylegan-voxceleb.pt")
    close(network.style(torch.from_numpy(arrays["mapping_z"])), arrays["mapping_w"], most=1e-3, mean=2e-5)
    mean = torch.from_numpy(arrays["trunc"])[:, None]
    codes = mean + TRUNCATION * (torch.from_numpy(arrays["e4e_codes"]) - mean)
    plain = network(codes)
    close(plain[:, :, 1::4, 2::4], arrays["inversion_only_sub"], most=2e-3, mean=2e-4)
    # nothing changed is the same as no change, by the other way to compute it
    nothing = {0: torch.zeros(1, 512, 512), 2: torch.zeros(1, 512, 512), 11: torch.zeros(1, 256, 512)}
    close(network(codes, nothing), plain.numpy(), most=1e-3, mean=1e-4)
    assert torch.equal(network.mean_code(3, 64), network.mean_code(3, 64))


@pytest.mark.slow
def test_a_face_in_another_pose() -> None:
    """The hypernetwork, a layer at a time so that memory stays small, and what the generator draws with its changes."""
    found = reference("hyperreenact")
    arrays, file = found.arrays, "hypernetwork.pt"
    shared = ("conv_transf", "blend_module", "shared_weight_hypernet")
    network = filled(found, file, lambda key: key.startswith(shared))
    deca, arcface = filled(found, "deca_model.tar"), filled(found, "insight_face.pth")
    driving = torch.from_numpy(arrays["driving_u8"][1:2]).permute(0, 3, 1, 2).float() / 255
    pose = deca(F.interpolate(driving, size=224, mode="bilinear", align_corners=False))
    appearance = arcface(aligned_face(signed(arrays), torch.from_numpy(arrays["arcface_affine"])))
    narrow, features = network.combined(pose, appearance)
    close(narrow, arrays["f_pose512"], most=1e-3, mean=2e-5)
    close(features, arrays["f_combined"], most=1e-2, mean=2e-5)
    layers = [int(layer) for layer, tuned in enumerate(arrays["delta_mask"]) if tuned]
    assert layers == sorted(map(int, network.refinement_blocks))
    changes = {}
    for layer, (low, high) in zip(layers, arrays["delta_stats1"][:, 2:], strict=True):
        keys = {
            key: spec for key, spec in keys_of(found, file).items() if key.startswith(f"refinement_blocks.{layer}.")
        }
        own = {key: spec for key, spec in keys.items() if ".hypernet." not in key}
        state = found.seeding.build_section("state_dict", own, int(arrays["seed"]), "")
        network.load_state_dict(state, strict=False, assign=True)
        change = changes[layer] = network.refinement_blocks[str(layer)](features)
        rows, columns = (slice(None, None, max(1, side // 16)) for side in change.shape[1:])
        close(change[0, rows, columns], arrays[f"delta{layer}_sub"], most=2e-4, mean=2e-5)
        assert [float(change.min()), float(change.max())] == pytest.approx([low, high], abs=2e-4)
    mean = torch.from_numpy(arrays["trunc"])[:, None]
    codes = mean + TRUNCATION * (torch.from_numpy(arrays["e4e_codes"]) - mean)
    frame = filled(found, "stylegan-voxceleb.pt")(codes, changes)[0]
    close(frame, arrays["reenacted_full1"], most=2e-3, mean=2e-4)


@pytest.mark.parametrize("upsample", [False, True])
def test_changed_weights_are_those_of_a_convolution_of_its_own(upsample: bool) -> None:
    torch.manual_seed(0)
    layer = ChangedConv2d(5, 6, 3, 512, upsample=upsample).requires_grad_(False)
    x, latent, change = torch.randn(2, 5, 7, 7), torch.randn(2, 512), 0.3 * torch.randn(2, 6, 5)
    assert torch.allclose(layer.changed(x, latent, torch.zeros_like(change)), layer(x, latent), atol=1e-5)
    found, weight = layer.changed(x, latent, change), layer.weight.clone()
    for index in range(2):
        layer.weight.copy_(weight * (1 + change[index, :, :, None, None]))
        alone = layer(x[index : index + 1], latent[index : index + 1])
        assert torch.allclose(found[index : index + 1], alone, atol=1e-5)


def landmarks(box: tuple[float, float, float, float]) -> npt.NDArray[np.float64]:
    """68 points with this box (left, top, right, bottom)."""
    points = np.random.default_rng(0).uniform(box[:2], box[2:], (68, 2))
    points[:2] = box[:2], box[2:]
    return points


def test_a_crop_is_twice_the_face_and_a_little_higher() -> None:
    columns, rows = np.meshgrid(np.arange(200, dtype=np.uint8), np.arange(150, dtype=np.uint8))
    picture = np.stack([columns, rows, np.zeros_like(rows)], -1)
    crop, points = square_crop(picture, landmarks((80, 60, 120, 96)))  # a face of 40: from (60, 32) to (140, 112)
    assert crop.shape == (256, 256, 3)
    assert np.allclose(crop[128, 128, :2], [100, 72], atol=1)
    assert np.allclose(crop[:, :, 0].min(), 60, atol=1)
    assert np.allclose(crop[:, :, 1].max(), 111, atol=1)
    assert np.allclose(points[:2], [[64, 89.6], [192, 204.8]])
    with pytest.raises(ValueError, match="no extent"):
        square_crop(picture, np.full((68, 2), 3.0))


def test_a_crop_beyond_the_picture_fades() -> None:
    picture = np.full((100, 100, 3), 50, np.uint8)
    picture[:, :10] = 250
    crop, _ = square_crop(picture, landmarks((10, 40, 50, 80)))  # a square from (-10, 14) to (70, 94)
    assert abs(int(crop[128, 0, 0]) - 50) < 12, "the median colour at the outer edge"
    assert crop[128, 40, 0] > 200, "the picture itself is as it was"
    assert crop[128, 128, 0] == 50


def test_the_crop_for_the_pose_is_centred_on_the_face() -> None:
    columns, rows = np.meshgrid(np.arange(256.0), np.arange(256.0))
    picture = torch.tensor(np.stack([columns, rows, 0 * rows])[None], dtype=torch.float32)
    crop = pose_crop(picture, landmarks((80, 100, 160, 180))) * 255
    assert crop.shape == (1, 3, 224, 224)
    middle = crop[0, :2, 111:113, 111:113].mean((1, 2))
    assert middle.tolist() == pytest.approx([120, 140], abs=0.6)
    assert float(crop[0, 0, 112, -1] - crop[0, 0, 112, 0]) == pytest.approx(110, abs=1)  # 80 x 1.1 x 1.25


def test_levels_are_rounded_down() -> None:
    values = torch.tensor([-7.0, -1.0, 0.0, 0.999, 1.0, 9.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 127, 254, 254, 254]


class Stub(nn.Module):
    """Stands for the networks: gives the pose crops back, darkened by the source."""

    generator = SimpleNamespace(mean_code=lambda seed: torch.full((1, 512), float(seed)))

    def source(self, picture: Tensor, face: Tensor, mean: Tensor) -> float:
        assert (picture.shape, face.shape, float(mean[0, 0])) == ((1, 3, 256, 256), (1, 3, 112, 112), 5.0)
        return float(picture.mean())

    def frames(self, source: float, poses: Tensor) -> Tensor:
        return F.interpolate(poses, 256) * 2 - 1 + 0 * source


def mesh(frames: int) -> dict[str, Any]:
    points = np.random.default_rng(1).uniform(20, 44, (frames, 478, 3)).astype(np.float32)
    return {"points": points}


def test_pairs_go_through_crops_networks_and_back_to_the_suites_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HyperReenact, "load", lambda folder: Stub())
    method = HyperReenactMethod({"batch_frames": 3, "mean_seed": 5})
    method.load(Path(), "cpu")
    pairs = practice_pairs(4)
    blind, half, late = mesh(8), mesh(8), mesh(8)
    blind["points"][:], half["points"][:5], late["points"][:3] = np.nan, np.nan, np.nan
    inputs = [(late, late), (blind, mesh(8)), (mesh(8), half), (Failed("no model"), mesh(8))]
    given = [{"mediapipe-landmarks": {"content": content, "motion": motion}} for content, motion in inputs]
    first, *others = method.transfer(pairs, seed=0, features=given)
    assert isinstance(first, Clip)
    assert first.frames.shape == (8, 64, 64, 3)
    [again] = method.transfer(pairs[:1], seed=1, features=given[:1])
    assert isinstance(again, Clip)
    assert again.sha256 == first.sha256
    assert [result.reason for result in others if isinstance(result, Failed)] == [
        "content: none of 8 frames shows a face",
        "driving clip: only 3 of 8 frames show a face",
        "content: no model",
    ]


def test_what_lacks_or_is_something_else_is_refused(tmp_path: Path) -> None:
    method = HyperReenactMethod({"batch_frames": 3, "mean_seed": 5})
    with pytest.raises(UsageError, match="requires the original's folder pretrained_models"):
        method.load(None, "cpu")
    with pytest.raises(UsageError, match=r"e4e-voxceleb\.pt, .*data/deca_model\.tar.* missing"):
        method.load(tmp_path, "cpu")
    with pytest.raises(UsageError, match="batch_frames=0 must be a whole number of at least 1"):
        HyperReenactMethod({"batch_frames": 0, "mean_seed": 5})
    (tmp_path / "data").mkdir()
    for name in FILES:
        torch.save({"something": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UsageError, match=r"e4e-voxceleb\.pt is not a checkpoint of e4e for VoxCeleb"):
        HyperReenact.load(tmp_path)


FAKE = """
import argparse, pathlib, sys
import cv2
parser = argparse.ArgumentParser()
for name in ("source_path", "target_path", "output_path"):
    parser.add_argument("--" + name)
parser.add_argument("--save_video", action="store_true")
args = parser.parse_args()
print("loading models")
assert args.save_video and cv2.imread(args.source_path) is not None
frames = [cv2.imread(str(path)) for path in sorted(pathlib.Path(args.target_path).glob("*.png"))]
if len(frames) == 7:
    sys.exit("CUDA error: no kernel image")
video = cv2.VideoWriter(args.output_path + "/reenacted_video.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 25, (256, 256))
for frame in frames:
    video.write(cv2.resize(frame, (256, 256)))
video.release()
"""


def test_the_original_is_driven_in_its_checkout(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    registry, suite = Registry.from_modules([plugin]), Suite("s", "1", practice_pairs(1), (64, 64), 8.0)
    with pytest.raises(UsageError, match="a checkout of StelaBou/HyperReenact is required"):
        make_plan(registry, "hyperreenact-checkout", suite, config={"checkout": str(tmp_path)})
    (tmp_path / "run_inference.py").write_text(FAKE)
    config = {"checkout": str(tmp_path), "python": sys.executable, "timeout": 120}
    before = make_plan(registry, "hyperreenact-checkout", suite, config=config)
    assert str(tmp_path.parent) not in str(before.identity)
    method = Checkout(config)
    [good] = method.transfer(suite.pairs, seed=0)
    [bad] = method.transfer(practice_pairs(1, frames=7), seed=0)
    method.close()
    assert isinstance(good, Clip), good
    assert np.abs(good.frames.astype(int) - suite.pairs[0].motion.load().frames).mean() < 12
    assert bad == Failed("the worker reported an error: RuntimeError: run_inference.py ended with exit code 1")
    (tmp_path / "model.py").write_text("changed = True")
    assert make_plan(registry, "hyperreenact-checkout", suite, config=config).run_id != before.run_id
