"""Content on a canonical map: how it is warped, what supervises it, and what a model with one learns and keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.base import Keypoints
from bcd_bench_bcd.extensions.canonical_features import COARSE, FINE, FlowField, keypoint_error, warp
from bcd_bench_bcd.extensions.loss import extended_loss
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.inference.weights import load_model, save_model
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training import trainer as trainer_module
from bcd_bench_bcd.training.data import fit_to_data
from bcd_bench_bcd.training.dataset import training_view
from bcd_bench_bcd.training.trainer import train
from tests.bcd.conftest import TINY, BlockClips, TwoTakes, description_of, take_step, trainer_of

SMALL: dict[str, Any] = {
    **TINY,
    "model.decoder.patch": 8,
    "model.quantizer.groups": 4,
    "model.quantizer.dim": 8,
    "extensions.conv_stem.stride": 8,
    "extensions.same_identity_pairs": {"frames": 4},
    "extensions.frame_subset.frames": 3,
    "extensions.vq_start": None,
    "extensions.canonical_features.warp_start": 0,
    "extensions.canonical_features.denoise_start": 0,
}


class PointedClips(TwoTakes):
    """Block clips whose takes say where the square's middle is, and of a point that is never seen."""

    rest_points = np.array([[0.0, 0.0], [0.5, 0.5]], np.float32)

    def take_points(self, indices: Any, frames: int, stride: int) -> np.ndarray:
        lit = self.takes(indices, frames, stride).any(-1)
        points = np.full((*lit.shape[:2], 2, 2), np.nan, np.float32)
        for index in np.ndindex(lit.shape[:2]):
            rows, columns = np.nonzero(lit[index])
            points[index][0] = (columns.mean() + 0.5) / 16 - 1, (rows.mean() + 0.5) / 16 - 1
        return points


@pytest.fixture
def pointed(monkeypatch: pytest.MonkeyPatch) -> PointedClips:
    clips = PointedClips()
    monkeypatch.setattr(trainer_module, "open_training_clips", lambda preset, request: training_view(clips, preset))
    return clips


def canonical_model(**changes: Any) -> ExtendedBCD:
    torch.manual_seed(0)
    model = fit_to_data(resolve_preset("heads-small", {**SMALL, **changes})).build().eval()
    assert isinstance(model, ExtendedBCD)
    for name, parameter in model.named_parameters():  # leave what everything starts from: nothing is warped
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02 if "flow" in name else 0.2)
    return model


def clips(count: int = 4) -> torch.Tensor:
    return torch.from_numpy(BlockClips().clips(range(count)))


def keypoints(count: int, frames: int) -> Keypoints:
    generator = torch.Generator().manual_seed(3)
    return Keypoints(
        torch.rand(count, frames, 5, 2, generator=generator) - 0.5, torch.rand(count, 5, 2, generator=generator) - 0.5
    )


# ---- warping -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("columns", "rows"), [(1, 0), (0, -2), (3, 2)])
def test_a_map_is_warped_by_whole_positions(columns: int, rows: int) -> None:
    maps = torch.rand(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    flow = torch.tensor([columns * 2 / 16, rows * 2 / 8]).view(1, 2, 1, 1).expand(2, 2, 4, 4)
    there = warp(maps, flow)
    row, column = np.meshgrid(np.arange(8), np.arange(16), indexing="ij")
    wanted = maps[:, :, np.clip(row + rows, 0, 7), np.clip(column + columns, 0, 15)]
    torch.testing.assert_close(there, wanted, atol=1e-5, rtol=0)


def test_flow_fields_start_as_the_identity() -> None:
    flow = FlowField(6)(torch.rand(2, 3, 6))
    assert flow.shape == (6, 2, 32, 32)
    assert not flow.any()


def test_the_keypoint_error_is_the_distance_by_which_keypoints_are_missed() -> None:
    here = torch.tensor([[[0.0, 0.0], [0.5, -0.5], [float("nan"), 0.1]]])
    there = torch.tensor([[[0.3, 0.4], [0.5, -0.5], [0.0, 0.0]]])
    still = torch.zeros(1, 2, 4, 4)
    assert float(keypoint_error(still, here, there)) == pytest.approx(
        0.25, abs=1e-3
    )  # 0.5 and 0; the third is not seen
    right = torch.tensor([0.3, 0.4]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert float(keypoint_error(right, here, there)) == pytest.approx(0.25, abs=1e-3)  # 0 and 0.5
    assert float(keypoint_error(still, here * float("nan"), there)) == 0


def test_keypoints_of_flipped_clips_are_on_a_flipped_canonical_map() -> None:
    once = keypoints(3, 2)
    other = once.flipped(torch.tensor([True, False, True]))
    torch.testing.assert_close(other.frames[0, ..., 0], -once.frames[0, ..., 0])
    torch.testing.assert_close(other.rest[2, ..., 0], -once.rest[2, ..., 0])
    torch.testing.assert_close(other.frames[..., 1], once.frames[..., 1])
    torch.testing.assert_close(other.frames[1], once.frames[1])
    torch.testing.assert_close(other.rest[1], once.rest[1])


# ---- the model ---------------------------------------------------------------------------------------------------
def test_content_holds_tokens_and_then_the_canonical_map() -> None:
    model = canonical_model()
    x = model.values(clips(2))
    with torch.no_grad():
        content, motion = model.encode(x)
        tokens, same = model.encode(x, canonical=False)
    assert content.shape == (2, 16, 32 + COARSE + FINE * 16)
    assert torch.equal(content[..., :32], tokens)
    assert torch.equal(motion, same)


def test_the_warped_map_follows_the_motion_of_its_frame() -> None:
    model = canonical_model()
    x = model.values(clips(2))
    with torch.no_grad():
        content, motion = model.encode_content(x), model.encode_motion(x).motion.clone()
        before = model.warp(content, motion)
        motion[:, 3] += 1
        after = model.warp(content, motion)
    assert before is not None
    assert after is not None
    changed = (before.rgb - after.rgb).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [frame == 3 for frame in range(8)]


def test_dropped_content_takes_the_canonical_map_with_it() -> None:
    model = canonical_model()
    x = model.values(clips(2))
    noise, sigma = torch.randn(2, *model.noise_shape(8)), torch.tensor([1.0, 2.0])
    with torch.no_grad():
        content, motion = model.encode_content(x), model.encode_motion(x).motion
        drop = torch.ones(2, dtype=torch.bool)
        one = model.denoise(noise, sigma, content, motion, drop, drop)
        other = model.denoise(noise, sigma, -content, motion.roll(1, 0), drop, drop)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frames", [1, 3, 20])
def test_any_number_of_frames(frames: int) -> None:
    model = canonical_model()
    pipeline = Pipeline(model, window=4)
    x = model.values(clips(1)).repeat(1, 3, 1, 1, 1)[:, :frames]
    sampler = SamplerConfig(name="euler", steps=2, guidance=1.0)
    with torch.no_grad():
        content, motion = pipeline.encode_content(x), pipeline.encode_motion(x).motion
    out = pipeline.sample(content, motion, sampler, torch.randn(1, *model.noise_shape(frames)))
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("compress", [False, True])
def test_weights_with_a_canonical_map_come_back(tmp_path: Path, compress: bool) -> None:
    model = canonical_model()
    x = model.values(clips(1))
    save_model(tmp_path / "w.safetensors", model, description_of(model), {}, compress=compress)
    again = load_model(tmp_path / "w.safetensors").model
    difference = (again.encode_content(x) - model.encode_content(x)).abs().max()
    assert difference < (0.2 if compress else 1e-6)


NO_CHANNELS = {"extensions.content_channels": None, "extensions.spatial_motion": None}
ODD = {"model.frame_size": [27, 27], "model.decoder.patch": 9, "extensions.conv_stem.stride": 9}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extensions.conv_stem": None}, "canonical_features requires conv_stem$"),
        (
            {"extensions.content_channels": None, "extensions.spatial_motion": None},
            "canonical_features requires content_ch",
        ),
        (
            {"extensions.content_bottleneck": {"dim": 4}},
            "content_bottleneck and canonical_features are mutually exclusive",
        ),
        ({"extensions.conv_stem.stride": 16}, r"canonical_features requires conv_stem\.stride = model\.decoder\.patch"),
        (ODD, "multiples of an even stride"),
        ({"extensions.canonical_features": None}, "keypoint_supervision requires canonical_features"),
        ({"extensions.same_identity_pairs": None}, "keypoint_supervision requires same_identity_pairs"),
        ({"extensions.gradient_loss": None, "extensions.patch_skipping": {}}, "patch_skipping and canonical_features"),
        ({"extensions.swap_cycle": {}}, "swap_cycle and canonical_features are mutually exclusive"),
        (
            {"extensions.symmetric_halves.mode": "random"},
            "keypoint_supervision cannot be combined with symmetric_halves.mode=random",
        ),
        (
            {"extensions.keypoint_supervision": None, "extensions.canonical_features.warp_start": 5},
            "warp_start requires keypoint_supervision",
        ),
    ],
)
def test_settings_that_do_not_fit_a_canonical_map_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_preset("heads-small", {**SMALL, **changes})


# ---- learning ----------------------------------------------------------------------------------------------------
def losses_at(model: ExtendedBCD, step: int, **changes: Any) -> dict[str, Any]:
    preset = resolve_preset("heads-small", {**SMALL, **changes})
    model.zero_grad()
    return extended_loss(
        model,
        clips(4),
        preset.objective,
        preset.extensions,
        tau=1.0,
        step=step,
        rng=torch.Generator().manual_seed(2),
        keypoints=keypoints(4, 8),
    )


def test_keypoints_are_split_as_the_clips_are() -> None:
    """With direction=same, content is encoded from the second half: so its keypoints are those of the second half."""
    model = canonical_model()
    preset = resolve_preset("heads-small", {**SMALL, "extensions.symmetric_halves": None})
    whole, points = clips(4), keypoints(4, 8)
    second, second_points = whole[:, 4:].repeat(1, 2, 1, 1, 1), points.frames[:, 4:].repeat(1, 2, 1, 1)

    def loss(frames: torch.Tensor, points: Keypoints, direction: Any) -> torch.Tensor:
        return extended_loss(
            model, frames, preset.objective, preset.extensions, tau=1.0, step=0,
            rng=torch.Generator().manual_seed(2), direction=direction, keypoints=points,
        )["keypoints"]  # fmt: skip

    wanted = loss(second, Keypoints(second_points, points.rest), "forward")
    torch.testing.assert_close(loss(whole, points, "same"), wanted)
    assert not torch.isclose(loss(whole, points, "forward"), wanted)


def silent(model: ExtendedBCD) -> set[str]:
    """The parts of the model that got no gradient."""
    return {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}


def test_keypoints_train_the_fields_first_then_the_rgb_image_is_learned_then_the_transformer() -> None:
    starts = {
        "extensions.canonical_features.warp_start": 5,
        "extensions.canonical_features.denoise_start": 9,
        "extensions.content_frame_dropout": None,
    }
    model: Any = canonical_model().train()
    first = losses_at(model, 4, **starts)
    first["loss"].backward()
    assert first["keypoints"] > 0
    assert first["canonical_rgb"] == 0
    assert first["diffusion"] == 0
    assert {"decoder.blocks", "decoder.patch_out"} <= silent(model)
    assert model.encoder.canonical.first.weight.grad is None
    assert model.encoder.canonical.flow.layers[-1].weight.grad.any()
    assert model.decoder.canonical.flow.layers[-1].weight.grad.any()

    then = losses_at(model, 5, **starts)
    then["loss"].backward()
    assert then["canonical_rgb"] > 0
    assert then["diffusion"] == 0
    assert model.encoder.canonical.first.weight.grad.any()
    assert "decoder.blocks" in silent(model)

    last = losses_at(model, 9, **starts)
    last["loss"].backward()
    assert last["diffusion"] > 0
    assert not silent(model) & {"decoder.blocks", "decoder.patch_out", "encoder.canonical", "decoder.canonical"}


def test_the_gradient_loss_adds_the_error_of_neighbouring_differences() -> None:
    model = canonical_model().train()
    plain, edged = (
        losses_at(model, 9, **{"extensions.gradient_loss": settings}) for settings in (None, {"weight": 1.0})
    )
    assert edged["canonical_rgb"] > plain["canonical_rgb"]
    assert edged["diffusion"] > plain["diffusion"]


def test_a_run_with_keypoints_learns_where_things_are_and_resumes(request_for: Any, pointed: PointedClips) -> None:
    changes = {
        "train.log_every": 10,
        "extensions.vq_start": {"step": 5},
        "extensions.horizontal_flip": None,
        "extensions.muon": None,
    }
    overrides = {**SMALL, **changes, "train.steps": 60}
    request = request_for(preset="heads-small", overrides=overrides)
    preset = resolve_preset("heads-small", overrides)
    trainer = trainer_of(request, training_view(pointed, preset))
    trainer.start(resume=False)
    missed = [take_step(trainer)["keypoints"] for _ in range(60)]
    assert np.mean(missed[-10:]) < 0.7 * np.mean(missed[:10])

    overrides["train.steps"] = 6
    request = request_for(preset="heads-small", overrides=overrides, max_steps=3, name="resumed")
    train(request)
    train(request_for(preset="heads-small", overrides=overrides, resume=True, name="resumed"))
    whole = request_for(preset="heads-small", overrides=overrides, name="whole")
    train(whole)
    stopped, straight = (load_model(out.out / "model.safetensors").model.state_dict() for out in (request, whole))
    assert all(torch.equal(stopped[name], value) for name, value in straight.items())


def test_a_split_without_keypoints_is_refused() -> None:
    with pytest.raises(UsageError, match=r"keypoint_supervision: .* has no keypoints"):
        training_view(TwoTakes(), resolve_preset("heads-small", SMALL))
