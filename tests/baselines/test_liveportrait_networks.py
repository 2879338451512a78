"""LivePortrait's networks: the original's outputs from seeded weights, and their parts against plain statements."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.checkpoints import blank, load_published
from bcd_bench_baselines.liveportrait.appearance import AppearanceExtractor
from bcd_bench_baselines.liveportrait.generator import SPADE, SpadeGenerator, SpectralConv2d
from bcd_bench_baselines.liveportrait.keypoints import Motion, absolute_keypoints, keypoints
from bcd_bench_baselines.liveportrait.method import LivePortrait
from bcd_bench_baselines.liveportrait.motion_extractor import GlobalResponseNorm, MotionExtractor
from bcd_bench_baselines.liveportrait.retargeting import Retargeting
from bcd_bench_baselines.liveportrait.specs import FILES
from bcd_bench_baselines.liveportrait.warping import Warping, coordinates, gaussians, sample_many
from tests.baselines.parity import Reference, close, reference
from tests.baselines.published import statistics, write_published

NETWORKS = dict(zip(FILES, (AppearanceExtractor, MotionExtractor, Warping, SpadeGenerator, Retargeting), strict=True))
KEYPOINT, MEAN = 5e-5, 5e-6


@pytest.fixture(scope="module")
def parity() -> Reference:
    return reference("liveportrait")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> object:
    return tmp_path_factory.mktemp("liveportrait")


def filled(parity: Reference, folder: object, file: str) -> nn.Module:
    """A network from its file as published."""
    path = write_published(parity, file.rpartition("/")[2], folder / file)  # type: ignore[operator]
    network = blank(NETWORKS[file])
    flat = not isinstance(network, Retargeting)
    load_published({"": network} if flat else dict(network.named_children()), path, model="it", flat=flat)
    return network


def unit(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().contiguous() / 255


@pytest.fixture(scope="module")
@torch.inference_mode()
def motions(parity: Reference, folder: object) -> tuple[Motion, Motion, dict[str, Tensor]]:
    """Of the source and of the driving frames, a frame at a time as the original computes them; the source's heads."""
    network = filled(parity, folder, FILES[1])
    assert isinstance(network, MotionExtractor)
    source = unit(parity.arrays["source_u8"][None])
    driving = Motion.cat([network(frame) for frame in unit(parity.arrays["driving_u8"]).split(1)])
    together = network(unit(parity.arrays["driving_u8"]))
    close(keypoints(together), keypoints(driving).numpy(), most=KEYPOINT, mean=MEAN)
    return network(source), driving, network.detector(source)


@pytest.fixture(scope="module")
def retargeting(parity: Reference, folder: object) -> Retargeting:
    network = filled(parity, folder, FILES[4])
    assert isinstance(network, Retargeting)
    return network


@pytest.mark.parametrize("file", FILES)
def test_the_published_layout_is_ours(parity: Reference, file: str) -> None:
    sections = parity.manifest["files"][file.rpartition("/")[2]]["sections"]
    prefixed = "stitching" in file
    wanted = {
        f"{section}.{key}" if prefixed else key: entry["shape"]
        for section, body in sections.items()
        for key, entry in body["keys"].items()
    }
    with torch.device("meta"):
        state = NETWORKS[file]().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == wanted


@torch.inference_mode()
def test_appearance_is_the_originals(parity: Reference, folder: object) -> None:
    volume = filled(parity, folder, FILES[0])(unit(parity.arrays["source_u8"][None]))
    close(statistics(volume), parity.arrays["source_feature3d_stats"], most=1e-4, mean=1e-5)
    close(volume[:, ::8, ::5, ::8, ::8], parity.arrays["source_feature3d_sub"], most=1e-4, mean=1e-5)


def test_poses_and_keypoints_are_the_originals(
    parity: Reference, motions: tuple[Motion, Motion, dict[str, Tensor]]
) -> None:
    source, driving, heads = motions
    for name in ("pitch", "yaw", "roll"):
        close(heads[name], parity.arrays[f"source_{name}_bins"], most=KEYPOINT, mean=MEAN)
        close(getattr(source, name), parity.arrays[f"source_{name}"], most=1e-3, mean=1e-3)
    for name in ("t", "exp", "scale", "kp"):
        close(getattr(source, name), parity.arrays[f"source_{name}"], most=KEYPOINT, mean=MEAN)
        close(getattr(driving, name), parity.arrays[f"driving_{name}"], most=KEYPOINT, mean=MEAN)
    close(source.rotation, parity.arrays["source_R"], most=KEYPOINT, mean=MEAN)
    close(driving.rotation, parity.arrays["driving_R"], most=KEYPOINT, mean=MEAN)
    close(keypoints(source), parity.arrays["source_x_s"], most=KEYPOINT, mean=MEAN)
    close(keypoints(driving), parity.arrays["driving_x_s"], most=KEYPOINT, mean=MEAN)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rel", {}),
        ("rel_nostitch", {"stitching": False}),
        ("rel_pose_friendly", {"driving": "pose-friendly"}),
        ("rel_pose_friendly_nostitch", {"driving": "pose-friendly", "stitching": False}),
        ("rel_multiplier1.5", {"multiplier": 1.5}),
        ("rel_region_exp", {"region": "exp"}),
        ("rel_region_pose", {"region": "pose"}),
        ("rel_region_lip", {"region": "lip"}),
        ("rel_region_eyes", {"region": "eyes"}),
        ("rel_normlip", {"normalize_lip": True}),
        ("abs", {"mode": "absolute"}),
        ("abs_nostitch", {"mode": "absolute", "stitching": False}),
    ],
)
def test_every_setting_brings_keypoints_where_the_original_does(
    parity: Reference,
    motions: tuple[Motion, Motion, dict[str, Tensor]],
    retargeting: Retargeting,
    name: str,
    settings: dict[str, object],
) -> None:
    method = LivePortrait(settings)
    method.retargeting = retargeting
    _, x_d = method.carry_over(*motions[:2], float(parity.arrays["lip_ratio"][0, 0]))
    close(x_d, parity.arrays[f"{name}_x_d"], most=KEYPOINT, mean=MEAN)


@torch.inference_mode()
def test_retargeting_is_the_originals(
    parity: Reference, motions: tuple[Motion, Motion, dict[str, Tensor]], retargeting: Retargeting
) -> None:
    x_s = keypoints(motions[0])
    lips = retargeting.lips(x_s, torch.from_numpy(parity.arrays["lip_ratio"]), torch.zeros(1, 1))
    close(lips, parity.arrays["lip_norm_delta"], most=KEYPOINT, mean=MEAN)
    eyes = retargeting.eyes(x_s, torch.from_numpy(parity.arrays["eye_ratio"]), torch.full((1, 1), 0.3))
    close(eyes, parity.arrays["eye_delta_0.3"], most=KEYPOINT, mean=MEAN)


@pytest.mark.slow
@torch.inference_mode()
def test_flow_and_frames_are_the_originals(
    parity: Reference,
    folder: object,
    motions: tuple[Motion, Motion, dict[str, Tensor]],
    retargeting: Retargeting,
) -> None:
    """Two relative frames and an absolute one at once: each is what the original made of it alone."""
    for file in FILES:
        write_published(parity, file.rpartition("/")[2], folder / file)  # type: ignore[operator]
    method = LivePortrait({"crop": False})
    method.load(folder, "cpu")  # type: ignore[arg-type]
    source, driving, _ = motions
    features = method.appearance(unit(parity.arrays["source_u8"][None]))
    x_s, relative = method.carry_over(source, driving)
    absolute = retargeting.stitch(x_s, absolute_keypoints(source, driving))
    warped = method.warping(features, torch.stack([relative[2], relative[0], absolute[1]]), x_s)
    deformation, mask, occlusion = (part[:1] for part in warped.dense)
    close(deformation[:, ::3, ::4, ::4], parity.arrays["rel2_deformation_sub"], most=1e-4, mean=1e-5)
    close(mask[:, :, ::5, ::16, ::16], parity.arrays["rel2_mask_sub"], most=1e-4, mean=1e-5)
    close(occlusion, parity.arrays["rel2_occlusion"], most=1e-4, mean=1e-5)
    volume = sample_many(features, deformation[:, None])[:, 0].flatten(1, 2)
    close(statistics(volume), parity.arrays["rel2_warped512_stats"], most=1e-4, mean=1e-5)
    close(statistics(warped.features[:1]), parity.arrays["rel2_warp_out_stats"], most=1e-4, mean=1e-5)
    pictures = method.generator(warped.features)
    some = pictures[:, :, 1::4, 2::4]
    close(some[[1, 0]], parity.arrays["rel_out_sub"], most=1e-3, mean=3e-5)
    close(some[2:], parity.arrays["abs1_out_sub"], most=1e-3, mean=3e-5)
    close(pictures[0, :, 192:320, 192:320], parity.arrays["rel_out_mid2"], most=1e-3, mean=3e-5)
    levels = some[0].mul(255).clamp(0, 255).floor().permute(1, 2, 0)
    close(levels, parity.arrays["rel2_uint8_sub"].astype(float), most=1, mean=0.1)
    alone = method.warping(features, relative[2:], x_s)
    close(alone.features, warped.features[:1].numpy(), most=1e-4, mean=1e-5)


@torch.inference_mode()
def test_both_large_steps_can_be_compiled_whole() -> None:
    """Traced without numbers: nothing in them keeps a compiler from making one program of each."""
    method = LivePortrait({"crop": False})
    with torch.device("meta"):
        method.warping, method.generator, motion = Warping().eval(), SpadeGenerator().eval(), MotionExtractor()
        images, volume, points = torch.empty(2, 3, 256, 256), torch.empty(1, 32, 16, 64, 64), torch.empty(2, 21, 3)
    heads = torch.compile(motion.detector, backend="eager", fullgraph=True)(images)
    assert heads["kp"].shape == (2, 63)
    pictures = torch.compile(method.draw, backend="eager", fullgraph=True)(volume, points, points[:1])
    assert pictures.shape == (2, 3, 512, 512)


# parts --------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(11)


def test_sampling_in_many_places_is_sampling_in_each() -> None:
    volume, places = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 7, 4, 5, 6, 3) * 2.4 - 1.2
    for sources in (volume, volume[:1]):
        got = sample_many(sources, places)
        assert got.shape == (2, 7, 3, 4, 5, 6)
        for k in range(7):
            wanted = F.grid_sample(sources.expand(2, -1, -1, -1, -1), places[:, k], align_corners=False)
            torch.testing.assert_close(got[:, k], wanted)


def test_bumps_are_gaussians_around_the_points() -> None:
    grid, points = coordinates(4, 5, 6, torch.device("cpu")), torch.rand(2, 3, 3) * 2 - 1
    assert grid[0, 0, 0].tolist() == [-1, -1, -1]
    assert grid[0, 0, -1].tolist() == [1, -1, -1]  # x runs along the columns
    distance = (grid - points[:, :, None, None, None]).square().sum(-1)
    torch.testing.assert_close(gaussians(grid, points), torch.exp(-distance / 0.02))


def test_responses_are_weighted_against_those_of_the_other_channels() -> None:
    norm, x = GlobalResponseNorm(3), torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(norm(x), x)  # as it begins
    nn.init.normal_(norm.gamma)
    nn.init.normal_(norm.beta)
    strength = x.square().sum(dim=(1, 2)).sqrt()
    relative = strength / (strength.mean(dim=1, keepdim=True) + 1e-6)
    wanted = norm.gamma * x * relative[:, None, None] + norm.beta + x
    torch.testing.assert_close(norm(x), wanted)


def test_spectral_norm_is_that_of_torch_in_evaluation() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = nn.utils.spectral_norm(nn.Conv2d(4, 6, 3, padding=1))
    theirs(torch.randn(1, 4, 5, 5))
    theirs.eval()
    ours = SpectralConv2d(4, 6)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 7, 7)
    torch.testing.assert_close(ours(x), theirs(x))
    ours.fold()
    torch.testing.assert_close(ours(x), theirs(x))


def test_estimated_vectors_give_the_largest_singular_value() -> None:
    conv = SpectralConv2d(4, 6)
    nn.init.normal_(conv.weight_orig)
    nn.init.normal_(conv.weight_u)
    conv.estimate(steps=200)
    norm = torch.linalg.matrix_norm(conv.weight().flatten(1), 2)
    assert norm.item() == pytest.approx(1, abs=1e-3)


def test_spade_normalises_each_channel_and_takes_scale_and_shift_from_the_condition() -> None:
    spade = SPADE(4, condition=3, hidden=5)
    x, condition = 7 + 3 * torch.randn(2, 4, 8, 8), torch.randn(2, 3, 4, 4)
    for conv in (spade.mlp_gamma, spade.mlp_beta):
        nn.init.zeros_(conv.weight)
    nn.init.constant_(spade.mlp_gamma.bias, 1.0)
    nn.init.constant_(spade.mlp_beta.bias, 0.5)
    out = spade(x, condition)
    torch.testing.assert_close(out.mean(dim=(2, 3)), torch.full((2, 4), 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(dim=(2, 3), unbiased=False), torch.full((2, 4), 2.0), atol=1e-3, rtol=0)


def test_stitching_moves_all_points_by_one_shift_and_each_by_its_own() -> None:
    network, x_s, x_d = Retargeting(), torch.randn(1, 21, 3), torch.randn(2, 21, 3)
    last = network.retarget_shoulder.mlp[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    with torch.no_grad():
        last.bias[5] = 0.25  # z of the second point
        last.bias[63:] = torch.tensor([2.0, -3.0])
    moved = network.stitch(x_s, x_d) - x_d
    wanted = torch.tensor([2.0, -3.0, 0.0]).expand(2, 21, 3).clone()
    wanted[:, 1, 2] = 0.25
    torch.testing.assert_close(moved, wanted)
