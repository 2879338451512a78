"""Content on a canvas: how it is moved, what guides it, and what a model with one learns and keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.errors import UsageError
from bcd_bench_bcd.canvas import Displacements, moved, off_guide
from bcd_bench_bcd.configs import ModelConfig, SamplerConfig
from bcd_bench_bcd.model import BCD, load_model, save_model, to_unit
from bcd_bench_bcd.objective import Guide, training_loss
from bcd_bench_bcd.presets import resolve_preset
from bcd_bench_bcd.train import Trainer, train
from bcd_bench_bcd.training_view import training_view
from tests.bcd.conftest import TINY, BlockClips, TwoTakes

SMALL: dict[str, Any] = {
    **TINY,
    "model.encoder.content_tokens": 16,
    "model.encoder.stem_shrink": 8,
    "model.decoder.patch": 8,
    "model.quantizer.groups": 4,
    "model.quantizer.dim": 8,
    "model.canvas.fine": 4,
    "model.canvas.coarse": 6,
    "model.canvas.field": 4,
    "train.take_frames": 4,
    "train.take_stride": 1,
    "train.half_frames": 3,
    "objective.quantize_from": 0,
    "objective.canvas_from": 0,
    "objective.draw_from": 0,
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
    import bcd_bench_bcd.train

    clips = PointedClips()
    monkeypatch.setattr(
        bcd_bench_bcd.train, "open_training_clips", lambda preset, request: training_view(clips, preset.train)
    )
    return clips


def canvas_model(**changes: Any) -> BCD:
    torch.manual_seed(0)
    model = BCD(resolve_preset("heads-small", {**SMALL, **changes}).model).eval()
    for name, parameter in model.named_parameters():  # leave what everything starts from: nothing moves
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02 if "displacements" in name else 0.2)
    return model


def clips(count: int = 4) -> torch.Tensor:
    return torch.from_numpy(BlockClips().clips(range(count)))


def guide(count: int, frames: int) -> Guide:
    generator = torch.Generator().manual_seed(3)
    return Guide(
        torch.rand(count, frames, 5, 2, generator=generator) - 0.5, torch.rand(count, 5, 2, generator=generator) - 0.5
    )


# ---- moving ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("columns", "rows"), [(1, 0), (0, -2), (3, 2)])
def test_a_picture_moves_by_whole_places(columns: int, rows: int) -> None:
    picture = torch.rand(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    displacement = torch.tensor([columns * 2 / 16, rows * 2 / 8]).view(1, 2, 1, 1).expand(2, 2, 4, 4)
    there = moved(picture, displacement)
    row, column = np.meshgrid(np.arange(8), np.arange(16), indexing="ij")
    wanted = picture[:, :, np.clip(row + rows, 0, 7), np.clip(column + columns, 0, 15)]
    torch.testing.assert_close(there, wanted, atol=1e-5, rtol=0)


def test_nothing_moves_at_first() -> None:
    field = Displacements(6, 8, 4)(torch.rand(2, 3, 6))
    assert field.shape == (6, 2, 4, 4)
    assert not field.any()


def test_guidance_is_the_distance_by_which_points_are_missed() -> None:
    here = torch.tensor([[[0.0, 0.0], [0.5, -0.5], [float("nan"), 0.1]]])
    there = torch.tensor([[[0.3, 0.4], [0.5, -0.5], [0.0, 0.0]]])
    still = torch.zeros(1, 2, 4, 4)
    assert float(off_guide(still, here, there)) == pytest.approx(0.25, abs=1e-3)  # 0.5 and 0; the third is not seen
    right = torch.tensor([0.3, 0.4]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert float(off_guide(right, here, there)) == pytest.approx(0.25, abs=1e-3)  # 0 and 0.5
    assert float(off_guide(still, here * float("nan"), there)) == 0


def test_mirrored_guides_point_to_a_mirrored_canvas() -> None:
    once = guide(3, 2)
    other = once.mirrored(torch.tensor([True, False, True]))
    torch.testing.assert_close(other.points[0, ..., 0], -once.points[0, ..., 0])
    torch.testing.assert_close(other.rest[2, ..., 0], -once.rest[2, ..., 0])
    torch.testing.assert_close(other.points[..., 1], once.points[..., 1])
    torch.testing.assert_close(other.points[1], once.points[1])
    torch.testing.assert_close(other.rest[1], once.rest[1])


# ---- the model ---------------------------------------------------------------------------------------------------
def test_content_holds_tokens_and_then_the_canvas() -> None:
    model, x = canvas_model(), to_unit(clips(2))
    with torch.no_grad():
        content, motion = model.features(x)
        tokens, same = model.features(x, canvas=False)
    assert content.shape == (2, 16, 32 + 6 + 4 * 16)
    assert torch.equal(content[..., :32], tokens)
    assert torch.equal(motion, same)


def test_the_moved_canvas_follows_the_motion_of_its_frame() -> None:
    model, x = canvas_model(), to_unit(clips(2))
    with torch.no_grad():
        encoding = model.encode(x)
        motion = encoding.quantized.motion.clone()
        before = model.place(encoding.content, motion)
        motion[:, 3] += 1
        after = model.place(encoding.content, motion)
    assert before is not None
    assert after is not None
    changed = (before.picture - after.picture).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [frame == 3 for frame in range(8)]


def test_dropped_content_takes_the_canvas_with_it() -> None:
    model, x = canvas_model(), to_unit(clips(2))
    noise, sigma = torch.randn(2, *model.noise_shape(8)), torch.tensor([1.0, 2.0])
    with torch.no_grad():
        encoding = model.encode(x)
        drop = torch.ones(2, dtype=torch.bool)
        one = model.denoise(noise, sigma, encoding.content, encoding.quantized.motion, drop, drop)
        other = model.denoise(noise, sigma, -encoding.content, encoding.quantized.motion.roll(1, 0), drop, drop)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frames", [1, 3, 20])
def test_any_number_of_frames(frames: int) -> None:
    model = canvas_model(**{"model.window": 4})
    x = to_unit(clips(1)).repeat(1, 3, 1, 1, 1)[:, :frames]
    encoding = model.encode(x)
    sampler = SamplerConfig(name="euler", steps=2, guidance=1.0)
    out = model.decode(encoding.content, encoding.quantized.motion, sampler, torch.randn(1, *model.noise_shape(frames)))
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("compress", [False, True])
def test_weights_with_a_canvas_come_back(tmp_path: Path, compress: bool) -> None:
    model, x = canvas_model(), to_unit(clips(1))
    save_model(tmp_path / "w.safetensors", model, {}, compress=compress)
    again, _ = load_model(tmp_path / "w.safetensors")
    difference = (again.encode(x).content - model.encode(x).content).abs().max()
    assert difference < (0.2 if compress else 1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.encoder.stem": "linear"}, "stem=conv"),
        ({"model.encoder.content_dim": 4}, "never narrowed"),
        ({"model.encoder.stem_shrink": 16}, "stem_shrink"),
        ({"model.canvas.cell": 3}, "multiple of canvas.cell"),
        ({"model.canvas": None}, "objective.picture"),
        ({"train.patch_floor": 0.5}, "patch_floor"),
        ({"train.direction": "random"}, "objective.guide"),
    ],
)
def test_settings_that_do_not_fit_a_canvas_are_refused(changes: dict[str, Any], said: str) -> None:
    overrides = {
        key: value for key, value in SMALL.items() if changes != {"model.canvas": None} or "canvas." not in key
    }
    with pytest.raises(UsageError, match=said):
        resolve_preset("heads-small", {**overrides, **changes})


# ---- learning ----------------------------------------------------------------------------------------------------
def losses_at(model: BCD, step: int, **objective: Any) -> Any:
    settings = resolve_preset("heads-small", {**SMALL, **objective}).objective
    model.zero_grad()
    generator = torch.Generator().manual_seed(2)
    return training_loss(
        model, None, clips(4), settings, tau=1.0, step=step, direction="both", generator=generator, guide=guide(4, 8)
    )  # fmt: skip


def silent(model: BCD) -> set[str]:
    """The parts of the model that got no gradient."""
    return {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}


def test_first_points_guide_the_fields_then_the_canvas_is_painted_then_the_transformer_draws() -> None:
    stages = {"objective.canvas_from": 5, "objective.draw_from": 9, "objective.few_content": 0.0}
    model = canvas_model().train()
    first = losses_at(model, 4, **stages)
    first.total.backward()
    assert first.guidance > 0
    assert first.picture == first.diffusion == 0
    assert {"decoder.blocks", "decoder.patch_out"} <= silent(model)
    assert model.encoder.canvas.first.weight.grad is None  # type: ignore[union-attr]
    assert model.encoder.canvas.displacements.layers[-1].weight.grad.any()  # type: ignore[union-attr]
    assert model.decoder.canvas.displacements.layers[-1].weight.grad.any()  # type: ignore[union-attr]

    then = losses_at(model, 5, **stages)
    then.total.backward()
    assert then.picture > 0
    assert then.diffusion == 0
    assert model.encoder.canvas.first.weight.grad.any()  # type: ignore[union-attr]
    assert "decoder.blocks" in silent(model)

    last = losses_at(model, 9, **stages)
    last.total.backward()
    assert last.diffusion > 0
    assert not silent(model) & {"decoder.blocks", "decoder.patch_out", "encoder.canvas", "decoder.canvas"}


def test_edges_add_the_error_of_neighbouring_differences() -> None:
    model = canvas_model().train()
    plain, edged = (losses_at(model, 9, **{"objective.edges": weight}) for weight in (0.0, 1.0))
    assert edged.picture > plain.picture
    assert edged.diffusion > plain.diffusion


def test_a_guided_run_learns_where_things_are_and_resumes(request_for: Any, pointed: PointedClips) -> None:
    overrides = {**SMALL, "train.steps": 60, "train.log_every": 10, "objective.quantize_from": 5, "train.mirror": False}
    preset = resolve_preset("heads-small", overrides)
    trainer = Trainer(preset, training_view(pointed, preset.train, points=True), request_for().out, "cpu")
    trainer.start(resume=False)
    guidance = [trainer.step()[9] for _ in range(60)]
    assert np.mean(guidance[-10:]) < 0.7 * np.mean(guidance[:10])

    request = request_for(preset="heads-small", overrides={**overrides, "train.steps": 6}, max_steps=3, name="resumed")
    train(request)
    train(request_for(preset="heads-small", overrides={**overrides, "train.steps": 6}, resume=True, name="resumed"))
    whole = request_for(preset="heads-small", overrides={**overrides, "train.steps": 6}, name="whole")
    train(whole)
    stopped, straight = (load_model(out.out / "model.safetensors")[0].state_dict() for out in (request, whole))
    assert all(torch.equal(stopped[name], value) for name, value in straight.items())


def test_a_split_that_tells_no_points_is_refused() -> None:
    config = resolve_preset("heads-small", SMALL).train

    with pytest.raises(UsageError, match="does not say where points are"):
        training_view(TwoTakes(), config, points=True)


def test_older_weights_have_no_canvas() -> None:
    assert ModelConfig().canvas is None
