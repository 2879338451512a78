"""Encoder, decoder and the whole: shapes, what depends on what, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.clips import Clip, ClipRef, Failed, Generated, Pair
from bcd_bench.errors import UsageError
from bcd_bench.identity import pair_seed
from bcd_bench_bcd.configs import ModelConfig, ObjectiveConfig, SamplerConfig
from bcd_bench_bcd.data import fitted_model_config, lit_shares
from bcd_bench_bcd.method import BCDMethod
from bcd_bench_bcd.model import BCD, load_model, save_model, to_frames, to_unit
from bcd_bench_bcd.objective import (
    ContentAdversary,
    Losses,
    content_price,
    cross_driven_halves,
    swap_cycle,
    training_loss,
)
from bcd_bench_bcd.presets import PRESETS, resolve_preset
from tests.bcd.conftest import TINY, BlockClips


def tiny_config(**changes: Any) -> ModelConfig:
    return fitted_model_config(resolve_preset("sprites-small", {**TINY, **changes}), lit_shares(BlockClips(), 8))


def tiny_model(**changes: Any) -> BCD:
    torch.manual_seed(0)
    model = BCD(tiny_config(**changes)).eval()
    for parameter in model.decoder.parameters():  # leave the identity that adaLN-Zero starts from
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def frames(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(BlockClips().clips(range(count)))


def test_frames_survive_the_unit_range() -> None:
    every = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 1, 16, 16, 3)
    assert torch.equal(to_frames(to_unit(every)), every)
    assert to_unit(every).min() == -1
    assert to_unit(every).max() == 1


def test_patches_come_back_and_the_rest_is_black() -> None:
    model, x = tiny_model(), to_unit(frames())
    assert torch.equal(model.decoder.unpatchify(model.decoder.patchify(x), -1.0), x)
    whole = tiny_model(**{"model.decoder.skip_static_patches": False})
    assert len(whole.decoder.drawn) == 16
    assert torch.equal(whole.decoder.unpatchify(whole.decoder.patchify(x), 5.0), x)


@pytest.mark.parametrize("content", ["tokens", "channels"])
def test_motion_acts_on_its_frame_and_content_on_all(content: str) -> None:
    model = tiny_model(**{"model.decoder.content": content, "model.decoder.temporal_blocks": []})
    encoded = model.encode(to_unit(frames(1)))
    x, noise = torch.randn(1, *model.noise_shape(8)), torch.zeros(1)
    motion = encoded.quantized.motion.clone()
    before = model.decoder(x, noise, encoded.content, motion)
    motion[:, 3] += 1.0
    changed = (model.decoder(x, noise, encoded.content, motion) - before).abs().amax((0, 2, 3))
    assert (changed > 0).tolist() == [False] * 3 + [True] + [False] * 4
    other = model.decoder(x, noise, encoded.content + 1.0, encoded.quantized.motion)
    assert ((other - before).abs().amax((0, 2, 3)) > 0).all()


def test_temporal_blocks_carry_motion_over_frames_and_start_as_identity() -> None:
    torch.manual_seed(0)
    fresh = BCD(tiny_config()).eval()
    x = torch.randn(2, 8, 3, 32)
    assert torch.equal(fresh.decoder.temporal["1"](x, torch.randn(2, 8, 32), over_time=True), x)
    model = tiny_model()
    encoded = model.encode(to_unit(frames(1)))
    noisy, motion = torch.randn(1, *model.noise_shape(8)), encoded.quantized.motion.clone()
    before = model.decoder(noisy, torch.zeros(1), encoded.content, motion)
    motion[:, 3] += 1.0
    after = model.decoder(noisy, torch.zeros(1), encoded.content, motion)
    assert ((after - before).abs().amax((0, 2, 3)) > 0).all()


def test_dropped_conditions_do_not_matter() -> None:
    model = tiny_model()
    x, drop = torch.randn(2, *model.noise_shape(8)), torch.tensor([True, True])
    a, b = (model.encode(to_unit(clip)) for clip in (frames(2), frames(4)[2:]))
    first = model.decoder(x, torch.zeros(2), a.content, a.quantized.motion, drop, drop)
    second = model.decoder(x, torch.zeros(2), b.content, b.quantized.motion, drop, drop)
    assert torch.equal(first, second)


def test_guidance_combines_null_and_condition() -> None:
    model = tiny_model()
    encoded = model.encode(to_unit(frames(2)))
    noise = torch.randn(2, *model.noise_shape(8), generator=torch.Generator().manual_seed(0))
    config = SamplerConfig(name="euler", steps=1, guidance=1.5, sigma_max=4.0)
    sigma = torch.full((2,), 4.0)
    keep = torch.tensor([True, True])
    conditional = model.denoise(4 * noise, sigma, encoded.content, encoded.quantized.motion)
    null = model.denoise(4 * noise, sigma, encoded.content, encoded.quantized.motion, keep, keep)
    expected = model.decoder.unpatchify(null + 1.5 * (conditional - null), -1.0)
    got = model.decode(encoded.content, encoded.quantized.motion, config, noise)
    assert torch.allclose(got, expected, atol=1e-4)


def test_content_does_not_depend_on_how_many_frames_there_are_to_fit() -> None:
    model = tiny_model()
    for count in (1, 4, 8):
        encoded = model.encode(to_unit(frames(1)[:, :count]))
        assert encoded.content.shape == (1, 3, 8)
        assert encoded.quantized.codes.shape == (1, count, 1)


def test_halves_are_disjoint_and_swap_roles() -> None:
    clips, g = torch.arange(16).view(2, 8), torch.Generator().manual_seed(0)
    content, driving = cross_driven_halves(clips, "forward", g)
    assert content.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert driving.tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]
    content, driving = cross_driven_halves(clips, "both", g)
    assert content.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11], [4, 5, 6, 7], [12, 13, 14, 15]]
    assert driving.tolist() == [[4, 5, 6, 7], [12, 13, 14, 15], [0, 1, 2, 3], [8, 9, 10, 11]]
    many = torch.arange(800).view(100, 8)
    content, driving = cross_driven_halves(many, "random", g)
    assert 20 < (content[:, 0] % 8 == 4).sum() < 80
    assert ((content + driving).sort().values == (many[:, :4] + many[:, 4:]).sort().values).all()


def test_the_price_of_content_follows_its_points() -> None:
    config = ObjectiveConfig(content_price=((10, 0.0), (14, 8.0), (19, 8.0), (20, 0.5)))
    assert [content_price(step, config) for step in (0, 9, 10, 11, 14, 19, 20, 99)] == [0, 0, 0, 2, 8, 8, 0.5, 0.5]
    assert content_price(3, ObjectiveConfig(content_price=((0, 2.0),))) == 2.0
    assert content_price(3, ObjectiveConfig()) == 0.0


@pytest.mark.parametrize("normalize", ["none", "batch"])
@pytest.mark.parametrize("direction", ["forward", "random", "both"])
def test_the_loss_reaches_every_parameter(direction: Any, normalize: str) -> None:
    model = tiny_model(**{"objective.content_drop": 0.3, "model.quantizer.normalize": normalize}).train()
    losses = training_loss(
        model,
        None,
        frames(6),
        ObjectiveConfig(content_price=((0, 1e-3),), condition_drop=0.5, target_bits=3),
        tau=1.0,
        step=5,
        direction=direction,
        generator=torch.Generator().manual_seed(2),
    )
    losses.total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []
    assert losses.content_bits > 0


@pytest.mark.parametrize(("step", "dropped"), [(9, True), (10, False)])
def test_content_is_dropped_until_its_step(step: int, dropped: bool) -> None:
    model = tiny_model().train()
    objective = ObjectiveConfig(content_drop=0.9, content_drop_until=10, condition_drop=0.0)
    generator = torch.Generator().manual_seed(2)
    training_loss(
        model, None, frames(6), objective, tau=1.0, step=step, direction="both", generator=generator
    ).total.backward()  # fmt: skip
    null = model.decoder.null_content.grad
    assert null is not None
    assert bool(null.abs().sum() > 0) is dropped


def test_recomputing_blocks_changes_no_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        model = tiny_model(**{"model.decoder.content": "tokens"}).train()
        model.decoder.recompute = recompute
        generator = torch.Generator().manual_seed(2)
        training_loss(
            model, None, frames(3), ObjectiveConfig(), tau=1.0, step=0, direction="both", generator=generator
        ).total.backward()  # fmt: skip
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items() if value is not None)


def test_some_places_get_what_all_places_would_get_without_attention() -> None:
    model = tiny_model()
    for block in [*model.decoder.blocks, *model.decoder.temporal.values()]:
        torch.nn.init.zeros_(block.attention.out.weight)  # then patches do not see each other
        torch.nn.init.zeros_(block.attention.out.bias)
    encoded = model.encode(to_unit(frames(2)))
    x, places = torch.randn(2, *model.noise_shape(8)), torch.tensor([2, 0])
    rest = (torch.zeros(2), encoded.content, encoded.quantized.motion)
    whole = model.decoder(x, *rest)
    some = model.decoder(x[:, :, places], *rest, places=places)
    assert torch.allclose(some, whole[:, :, places], atol=1e-5)


def test_the_loss_over_some_patches_is_that_over_all_in_expectation() -> None:
    model = tiny_model().train()
    config = ObjectiveConfig(condition_drop=0.0)

    def diffusion(seed: int, chances: torch.Tensor | None) -> float:
        # The same noise for all seeds would need the same draws; an average over many does as well.
        generator = torch.Generator().manual_seed(seed)
        clips = frames(8)
        with torch.no_grad():
            losses = training_loss(
                model, None, clips, config, tau=1.0, step=0, direction="both", generator=generator,
                patch_chances=chances,
            )  # fmt: skip
        return losses.diffusion.item()

    all_of_them = np.mean([diffusion(seed, None) for seed in range(60)])
    some = np.mean([diffusion(seed, torch.tensor([1.0, 0.5, 0.4])) for seed in range(60)])
    assert some == pytest.approx(all_of_them, rel=0.1)


def test_the_swap_cycle_teaches_the_encoder_alone_and_codes_that_come_back_cost_nothing() -> None:
    model, generator = tiny_model().train(), torch.Generator().manual_seed(2)
    tokens, latents = model.features(to_unit(frames(6)))
    assert model.bottleneck is not None
    content, _ = model.bottleneck.sample(tokens, generator)
    quantized = model.quantizer(latents, 1.0, generator)
    cycle, off = swap_cycle(model, content, tokens, quantized, torch.tensor([0, 3, 4]), generator)
    assert cycle > 0
    assert off > 0
    (cycle + off).backward()
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"encoder", "bottleneck"}
    drawn = model.eval().quantizer(latents)
    with torch.no_grad():
        model.quantizer.codebook.mul_(50)  # entries far apart: an encoding near its own entry is sure of it
        own = model.quantizer.code_nats(model.quantizer.codebook[:, :4].clone(), torch.arange(4).view(1, 4, 1))
    assert own.item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(drawn.sampled, drawn.codes)  # inference draws nothing


def test_the_swap_cycle_waits_for_its_step_and_adds_to_the_total() -> None:
    def losses(step: int, weight: float) -> Losses:
        model = tiny_model().train()
        config = ObjectiveConfig(cycle=weight, cycle_content=weight / 2, cycle_from=4)
        generator = torch.Generator().manual_seed(2)
        return training_loss(
            model, None, frames(6), config, tau=1.0, step=step, direction="both", generator=generator
        )  # fmt: skip

    assert losses(3, 0.1).cycle == 0
    plain, cycled = losses(4, 0.0), losses(4, 0.1)
    added = 0.1 * cycled.cycle + 0.05 * cycled.cycle_content
    assert added > 0
    assert cycled.total.item() == pytest.approx((plain.total + added).item(), rel=1e-5)


def test_the_adversary_pushes_the_encoder_away_from_what_it_can_guess() -> None:
    torch.manual_seed(0)
    adversary = ContentAdversary(6, 1, 4)
    content = torch.randn(5, 2, 3, requires_grad=True)
    codes = torch.randint(0, 4, (5, 4, 1))
    loss = adversary(content, codes, 0.5)
    loss.backward()
    reversed_gradient = content.grad.clone()
    plain = content.detach().clone().requires_grad_()
    guess = adversary.net(plain.flatten(1)).view(5, 1, 4).log_softmax(-1)
    histogram = torch.nn.functional.one_hot(codes, 4).float().mean(1)
    (histogram * (histogram.clamp_min(1e-9).log() - guess)).sum(-1).mean().backward()
    assert torch.allclose(reversed_gradient, -0.5 * plain.grad, atol=1e-6)
    assert loss.item() > 0


def test_table_a8_is_what_the_preset_says() -> None:
    preset = PRESETS["sprites"]
    encoder, decoder, vq = preset.model.encoder, preset.model.decoder, preset.model.quantizer
    assert (encoder.width, encoder.feed_forward, encoder.layers, encoder.heads) == (384, 1536, 12, 6)
    assert (decoder.patch, decoder.width, decoder.depth, decoder.heads) == (8, 384, 12, 6)
    assert decoder.temporal_blocks == (0, 2, 4, 6, 8, 10)
    assert (vq.groups, vq.dim, vq.entries, vq.tau_start, vq.tau_end) == (1, 384, 64, 2.0, 0.5)
    assert (vq.tau_decay, vq.alpha, vq.straight_through, vq.normalize) == (0.9999972, 5.0, "assignment", "none")
    assert (decoder.content, preset.model.diffusion.prediction) == ("tokens", "edm")
    assert preset.train.direction == "forward"
    assert (preset.sampler.name, preset.sampler.steps, preset.sampler.guidance) == ("heun", 50, 1.5)
    assert (preset.train.lr, preset.train.batch, preset.train.weight_decay) == (5e-5, 128, 0.01)
    assert preset.train.betas == (0.9, 0.999)
    assert preset.objective == ObjectiveConfig()  # nothing of ours
    assert preset.objective.target_bits == 6.0


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.batchs", "train.batch"),
        ("train.stepps", "train.steps"),
        ("steps", "train.steps or sampler.steps"),
        ("lr", "train.lr"),
        ("model.decoder.dept", "model.decoder.depth"),
        ("objective.rate_wieght", "objective.rate_weight"),
    ],
)
def test_a_misspelt_field_is_answered_with_the_nearest_ones(key: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_preset("sprites-small", {key: 3})
    assert all(name in str(caught.value) for name in meant.split(" or "))


def test_settings_that_a_preset_on_pixels_would_ignore_are_refused() -> None:
    for key, value in (("train.frame_step", 2), ("train.clip_frames", 8)):
        with pytest.raises(UsageError, match="are about videos"):
            resolve_preset("sprites-small", {key: value})


# ---- files -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stem", ["linear", "conv"])
@pytest.mark.parametrize("compress", [False, True])
def test_weights_come_back(tmp_path: Path, compress: bool, stem: str) -> None:
    model, path = tiny_model(**{"model.encoder.stem": stem}), tmp_path / "w.safetensors"
    save_model(path, model, {"suite": "x"}, compress=compress)
    again, extra = load_model(path)
    assert extra == {"suite": "x"}
    for name, value in model.state_dict().items():
        found = again.state_dict()[name]
        if compress and value.ndim >= 2:
            allowed = value.abs().amax((1, 2, 3) if value.ndim == 4 else -1, keepdim=True) / 254 + 1e-7
            assert ((found - value).abs() <= allowed).all(), name
        else:
            assert torch.equal(found, value), name


def test_compressed_weights_are_a_quarter_of_the_size(tmp_path: Path) -> None:
    model = tiny_model(**{"model.encoder.width": 64, "model.decoder.width": 64, "model.quantizer.dim": 64})
    for name, compress in (("whole", False), ("small", True)):
        save_model(tmp_path / name, model, {}, compress=compress)
    assert (tmp_path / "small").stat().st_size < 0.35 * (tmp_path / "whole").stat().st_size


def test_files_that_are_not_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_model(path, tiny_model(), {})
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:5000])
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    config = tiny_config(**{"model.encoder.layers": 2}).model_dump_json()
    save_file(
        {k: v.contiguous() for k, v in tiny_model().state_dict().items()},
        tmp_path / "mismatch.safetensors",
        {"format": "bcd-1", "config": config, "extra": "{}"},
    )
    for name, text in {
        "cut.safetensors": "not a readable safetensors file",
        "pickle.pt": "not a readable safetensors file",
        "other.safetensors": "not BCD weights",
        "mismatch.safetensors": "do not fit",
        "absent.safetensors": "not a readable safetensors file",
    }.items():
        with pytest.raises(UsageError, match=text) as caught:
            load_model(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="is a folder, not a weight file"):
        load_model(tmp_path)


# ---- the method --------------------------------------------------------------------------------------------------
def block_clip(index: int, length: int = 8) -> Clip:
    return Clip(BlockClips().clips([index])[0][:length], 8.0, str(index))


def small_clip() -> Clip:
    return Clip(np.zeros((8, 16, 16, 3), np.uint8), 8.0, "small")


def pair(content: int, motion: int, length: int = 8) -> Pair:
    here = "tests.bcd.test_model:block_clip"
    return Pair(
        f"{content}-{motion}-{length}",
        ClipRef(str(content), Generated(here, {"index": content})),
        ClipRef(str(motion), Generated(here, {"index": motion, "length": length})),
    )


@pytest.fixture
def method(tmp_path: Path) -> BCDMethod:
    save_model(tmp_path / "w.safetensors", tiny_model(), {"sampler": {"name": "euler", "steps": 2, "guidance": 1.0}})
    bcd = BCDMethod({})
    bcd.load(tmp_path / "w.safetensors", "cpu")
    return bcd


def test_results_do_not_depend_on_batch_or_order(method: BCDMethod) -> None:
    pairs = [pair(0, 17), pair(5, 40), pair(9, 3, 4), pair(2, 33)]
    together = list(method.transfer(pairs, seed=1))
    alone = [next(iter(method.transfer([p], seed=1))) for p in pairs]
    turned = list(method.transfer(pairs[::-1], seed=1))[::-1]
    for a, b, c, p in zip(together, alone, turned, pairs, strict=True):
        assert a.id == p.id
        assert len(a) == len(p.motion.load())
        assert np.abs(a.frames.astype(int) - b.frames).max() <= 1  # batch sizes may round differently
        assert np.abs(a.frames.astype(int) - c.frames).max() <= 1


def test_content_frames_are_the_first_ones(tmp_path: Path, method: BCDMethod) -> None:
    few = BCDMethod({"content_frames": 3})
    few.load(tmp_path / "w.safetensors", "cpu")
    case = pair(5, 40)
    [result] = few.transfer([case], seed=1)
    content, motion = block_clip(5).frames, block_clip(40).frames
    expected, whole = (
        few.transfer_frames(frames, motion, seed=pair_seed(1, case.id)) for frames in (content[:3], content)
    )
    np.testing.assert_array_equal(result.frames, expected)
    assert (whole != expected).any()
    [all_of_them] = method.transfer([case], seed=1)
    np.testing.assert_array_equal(all_of_them.frames, whole)


def test_seeds_matter_and_repeat(method: BCDMethod) -> None:
    first, again, other = (next(iter(method.transfer([pair(0, 17)], seed=s))) for s in (1, 1, 2))
    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256


def test_clips_of_another_size_fail_alone(method: BCDMethod) -> None:
    wrong = Pair("wrong", ClipRef("s", Generated("tests.bcd.test_model:small_clip")), pair(0, 1).motion)
    good, bad = method.transfer([pair(0, 17), wrong], seed=0)
    assert isinstance(good, Clip)
    assert isinstance(bad, Failed)
    assert "(16, 16) pixels, the weights are for (32, 32)" in bad.reason


def test_method_config_and_missing_weights() -> None:
    with pytest.raises(UsageError, match="--config steps"):
        BCDMethod({"steps": 0})
    with pytest.raises(UsageError, match="--config content_frames"):
        BCDMethod({"content_frames": 0})
    with pytest.raises(UsageError, match="needs weights"):
        BCDMethod({}).load(None, "cpu")


def test_reconstruction_and_codes(method: BCDMethod) -> None:
    clip = block_clip(3)
    assert method.reconstruct(clip.frames).shape == clip.frames.shape
    codes = method.motion_codes(clip.frames)
    assert codes.shape == (8, 1)
    assert codes.min() >= 0
    assert codes.max() < 8
