"""The paper's equations, written down a second time: the product has to agree with this page to 1e-6.

Nothing here calls code of the plugin for a formula. The networks (T5 encoder, transformer F) are taken as they are,
since the paper's equations are about what goes into them and what becomes of what comes out. Equations are numbered as
in the paper; EDM is Karras et al. 2022.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.loss import extended_loss
from bcd_bench_bcd.extensions.model import ExtendedBCD, build_model
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.paper.config import (
    DecoderConfig,
    EDMConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    QuantizerConfig,
    SamplerConfig,
)
from bcd_bench_bcd.paper.decoder import rotate
from bcd_bench_bcd.paper.edm import karras_sigmas, loss_weight, precondition, sample, training_sigmas
from bcd_bench_bcd.paper.loss import bcd_loss, cross_driven_halves
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.paper.quantizer import GroupVectorQuantizer, rate_loss
from bcd_bench_bcd.paper.rng import Rng

LAMBDA, SIGMA_DATA = 0.04, 0.5
BATCH, FRAMES, SIDE, PATCH = 3, 6, 16, 8


def tiny_model(
    groups: int = 2,
    entries: int = 5,
    dim: int = 8,
    alpha: float = 5.0,
    extensions: Extensions | None = None,
    **quantizer: Any,
) -> Any:
    """The paper's architecture in small, with every weight away from its start (several begin at zero)."""
    torch.manual_seed(0)
    config = ModelConfig(
        frame_size=(SIDE, SIDE),
        encoder=EncoderConfig(layers=1, width=16, heads=2, feed_forward=32, content_tokens=3),
        quantizer=QuantizerConfig(groups=groups, entries=entries, dim=dim, alpha=alpha, **quantizer),
        decoder=DecoderConfig(depth=2, width=16, heads=2, patch=PATCH, temporal_blocks=(0,)),
    )
    model = build_model(config, extensions or Extensions()).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def clips() -> Tensor:
    return torch.randint(0, 256, (BATCH, FRAMES, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )


# Equations (1) to (5): the quantiser ----------------------------------------------------------------------------------


def entropy_by_hand(latents: np.ndarray, codebook: np.ndarray, alpha: float) -> tuple[list[float], np.ndarray]:
    """H^i of every group in bits and the nearest codes [B, T, N], from motion latents [B, T, N * D]."""
    groups, entries, dim = codebook.shape
    batch, frames, _ = latents.shape
    bits, codes = [], np.zeros((batch, frames, groups), np.int64)
    for i in range(groups):
        mean = np.zeros(entries)
        for b in range(batch):
            for t in range(frames):
                part = latents[b, t, i * dim : (i + 1) * dim]
                distance = np.array([((part - codebook[i, j]) ** 2).sum() for j in range(entries)])  # (1)
                weights = np.exp(-alpha * distance + alpha * distance.min())
                mean += weights / weights.sum() / (batch * frames)  # (4): without temperature, without noise
                codes[b, t, i] = distance.argmin()  # (2) at inference
        bits.append(float(-(mean * np.log2(np.maximum(mean, 1e-300))).sum()))  # (3), (5)
    return bits, codes


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("tau", [0.3, 2.0])
def test_rate_and_codes_are_equations_1_to_5(mode: str, tau: float) -> None:
    torch.manual_seed(0)
    quantizer = GroupVectorQuantizer(QuantizerConfig(groups=3, entries=7, dim=4, alpha=1.3), 12)
    getattr(quantizer, mode)()
    latents = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2)) * 0.8
    bits, codes = entropy_by_hand(latents.double().numpy(), quantizer.codebook.detach().double().numpy(), 1.3)
    found = quantizer(latents, tau, torch.Generator().manual_seed(3))
    assert found.group_bits.tolist() == pytest.approx(bits, abs=2e-6)
    assert found.bits.item() == pytest.approx(sum(bits), abs=5e-6)
    assert np.array_equal(found.codes.numpy(), codes)
    if mode == "eval":
        wanted = np.stack([quantizer.codebook.detach().numpy()[i][codes[..., i]] for i in range(3)], 2)
        assert np.allclose(found.motion.detach().numpy(), wanted.reshape(2, 5, 12), atol=1e-6)


def gumbel_by_hand(
    latents: Tensor, codebook: Tensor, alpha: float, tau: float, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """(2): m-hat [B, T, N * D], a hard sample with the relaxed sample's gradient; and (4): mean of softmax [N, J]."""
    groups, entries, dim = codebook.shape
    batch, frames, _ = latents.shape
    chosen, means = [], []
    for i in range(groups):
        part = latents[..., i * dim : (i + 1) * dim].reshape(-1, 1, dim)
        logits = -alpha * ((part - codebook[i]) ** 2).sum(-1)
        gumbel = -torch.log(-torch.log(uniform[i].clamp(1e-9, 1 - 1e-7)))
        relaxed = torch.softmax((logits + gumbel) / tau, -1)
        hard = torch.nn.functional.one_hot(relaxed.argmax(-1), entries).float()
        chosen.append((hard + relaxed - relaxed.detach()) @ codebook[i])
        means.append(torch.softmax(logits, -1).mean(0))
    return torch.cat(chosen, -1).view(batch, frames, -1), torch.stack(means)


@pytest.mark.parametrize("tau", [0.4, 1.7])
def test_samples_and_their_gradients_are_equation_2(tau: float) -> None:
    torch.manual_seed(0)
    quantizer = GroupVectorQuantizer(QuantizerConfig(groups=2, entries=6, dim=3, alpha=0.9), 6).train()
    latents = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(4))
    target = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(5))
    uniform = torch.rand(2, 8, 6, generator=torch.Generator().manual_seed(6))
    mine, theirs = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    codebook = quantizer.codebook.detach().clone().requires_grad_()
    motion, _ = gumbel_by_hand(mine, codebook, 0.9, tau, uniform)
    (motion * target).sum().backward()
    found = quantizer(theirs, tau, torch.Generator().manual_seed(6))
    (found.motion * target).sum().backward()
    assert torch.allclose(found.motion, motion, atol=1e-6)
    assert theirs.grad is not None
    assert torch.allclose(theirs.grad, mine.grad, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(quantizer.codebook.grad, codebook.grad, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]
    assert mine.grad.abs().max() > 1e-3  # type: ignore[union-attr]


def test_the_rate_loss_is_equation_8() -> None:
    bits = torch.tensor([1.0, 2.5, 0.5])
    assert float(rate_loss(bits, 6.0, "total")) == pytest.approx((4.0 - 6.0) ** 2)
    assert float(rate_loss(bits, 6.0, "per-group")) == pytest.approx((1 + 0.25 + 2.25) / 3)
    assert float(rate_loss(torch.tensor([5.0]), 6.0, "total")) == float(
        rate_loss(torch.tensor([5.0]), 6.0, "per-group")
    )


# Section 3.1: the encoder, and which half gives what ------------------------------------------------------------------


def test_the_encoder_is_t5_over_queries_and_frames() -> None:
    model = tiny_model().eval()
    encoder = model.encoder
    frames = torch.randn(2, 4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    tokens = frames.reshape(2, 4, -1) @ encoder.project.weight.T + encoder.project.bias
    queries = encoder.queries.expand(2, -1, -1)
    hidden = encoder.t5(torch.cat([queries, tokens], 1))
    content, motion = encoder(frames)
    assert torch.allclose(content, hidden[:, :3], atol=1e-6)
    assert torch.allclose(motion, hidden[:, 3:], atol=1e-6)


def in_half(clips: Tensor, half: int) -> Tensor:
    """The clips with other pixels in one half of their frames."""
    changed = clips.clone()
    frames = slice(0, FRAMES // 2) if half == 0 else slice(FRAMES // 2, FRAMES)
    changed[:, frames] = 255 - changed[:, frames]
    return changed


def parts_of_a_step(model: BCD, clips: Tensor, direction: Any, seed: int) -> dict[str, Tensor]:
    """Content and motion that reach the decoder of a training step, and the frames it has to draw."""
    seen: dict[str, Tensor] = {}

    def note(module: Any, args: Any, kwargs: Any) -> None:
        names = ("patches", "noise", "content", "motion")
        seen.update({name: value.detach().clone() for name, value in zip(names, args, strict=False)})

    hook = model.decoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        quiet = ObjectiveConfig(condition_drop=0.0)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            if isinstance(model, ExtendedBCD):
                found = extended_loss(model, clips, quiet, model.extensions, tau=1.0, step=0, rng=rng)
            else:
                found = bcd_loss(model, clips, quiet, tau=1.0, rng=rng, direction=direction)
            seen["bits"] = found["bits"]
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("direction", ["forward", "random", "both", "same"])
def test_content_comes_from_one_half_and_motion_from_the_other(clips: Tensor, direction: Any) -> None:
    """Perturb one half and look at what moves: T5 sees one half at a time, so content follows its half alone."""
    modes = {"random", "both"}
    extensions = Extensions([SymmetricHalves(mode=direction)]) if direction in modes else Extensions()
    model, seed = tiny_model(alpha=50.0, extensions=extensions), 11
    with torch.no_grad():  # codes that tell these clips apart
        both = torch.cat([clips, 255 - clips]).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        latents = model.encoder((both + 0.8) / 0.45)[1].flatten(0, 1)
        model.quantizer.codebook.copy_(latents[[0, 4, 20, 26, 32]].view(5, 2, 8).transpose(0, 1))
    swapped = torch.zeros(BATCH, dtype=torch.bool)
    if direction == "random":
        swapped = torch.rand(BATCH, generator=torch.Generator().manual_seed(seed)) < 0.5
        assert 0 < int(swapped.sum()) < BATCH, "both cases are in the batch"
    content_half = torch.where(swapped, 1, 0)
    driving_half = 1 - content_half
    if direction == "both":
        content_half = torch.cat([torch.zeros(BATCH), torch.ones(BATCH)]).long()
        driving_half = 1 - content_half
    if direction == "same":  # the ablation without cross-driven training
        content_half = driving_half = torch.ones(BATCH).long()
    before = parts_of_a_step(model, clips, direction, seed)
    for half in (0, 1):
        after = parts_of_a_step(model, in_half(clips, half), direction, seed)
        moved = {name: (after[name] - before[name]).flatten(1).abs().amax(1) > 1e-5 for name in ("content", "patches")}
        assert torch.equal(moved["content"], content_half == half)
        assert torch.equal(moved["patches"], driving_half == half), "what is drawn is the driving half"
        codes = (after["motion"] - before["motion"]).flatten(1).abs().amax(1) > 1e-5
        assert not bool((codes & (driving_half != half)).any()), "motion never follows the other half"
        rated = bool((driving_half == half).any())
        assert bool(codes.any()) == rated, "motion follows the driving half"
        assert (abs((after["bits"] - before["bits"]).item()) > 1e-6) == rated, "the rate is that of the driving half"


def test_halves_are_the_first_and_the_second_half(clips: Tensor) -> None:
    first, second = cross_driven_halves(clips)
    assert torch.equal(first, clips[:, : FRAMES // 2])
    assert torch.equal(second, clips[:, FRAMES // 2 :])
    same, also = cross_driven_halves(clips, "same")
    assert torch.equal(same, second)
    assert torch.equal(also, second)
    content, driving = SymmetricHalves(mode="both").halves(clips, Rng())
    assert torch.equal(content, torch.cat([first, second]))
    assert torch.equal(driving, torch.cat([second, first]))


# Equations (6) and (7), EDM: the loss of a step, and its gradients ----------------------------------------------------


def patches_by_hand(values: Tensor) -> Tensor:
    """[B, T, 3, H, W] -> [B, T, S, 3 * p * p], patches row by row."""
    rows = []
    for y in range(0, SIDE, PATCH):
        for x in range(0, SIDE, PATCH):
            rows.append(values[..., y : y + PATCH, x : x + PATCH].flatten(2))
    return torch.stack(rows, 2)


def loss_by_hand(
    model: BCD, clips: Tensor, tau: float, target_bits: float, drop: float, seed: int, form: str
) -> dict[str, Tensor]:
    """L = L_d + lambda L_VQ (6) of clips whose first half gives the content; random numbers in the product's order."""
    rng = torch.Generator().manual_seed(seed)
    half = FRAMES // 2
    pixels = clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    content, _ = model.encoder((pixels[:, :half] + 0.8) / 0.45)
    _, latents = model.encoder((pixels[:, half:] + 0.8) / 0.45)
    quantizer = model.quantizer
    groups, entries, _ = quantizer.codebook.shape
    uniform = torch.rand(groups, BATCH * half, entries, generator=rng)
    motion, mean = gumbel_by_hand(latents, quantizer.codebook, quantizer.config.alpha, tau, uniform)
    bits = -(mean * torch.log2(mean + 1e-9)).sum(-1)
    clean = patches_by_hand(pixels[:, half:])
    sigma = torch.exp(torch.randn(BATCH, generator=rng) * 1.2 - 1.2)  # ln sigma ~ N(-1.2, 1.2^2)
    noise = torch.randn(clean.shape, generator=rng)
    dropped = torch.rand(BATCH, generator=rng) < drop
    s = sigma.view(-1, 1, 1, 1)
    c_skip = SIGMA_DATA**2 / (s**2 + SIGMA_DATA**2)
    c_out = s * SIGMA_DATA / torch.sqrt(s**2 + SIGMA_DATA**2)
    c_in = 1 / torch.sqrt(s**2 + SIGMA_DATA**2)
    noisy = clean + s * noise
    content = torch.where(dropped[:, None, None], model.decoder.null_content, content)
    motion = torch.where(dropped[:, None, None], model.decoder.null_motion, motion)
    network = model.decoder(c_in * noisy, torch.log(sigma) / 4, content, motion)
    denoised = c_skip * noisy + c_out * network
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    diffusion = (weight * ((denoised - clean) ** 2).mean((1, 2, 3))).mean()  # (7)
    rate = (bits.sum() - target_bits) ** 2 if form == "total" else ((bits - target_bits / groups) ** 2).mean()  # (8)
    return {"total": diffusion + LAMBDA * rate, "diffusion": diffusion, "bits": bits.sum(), "dropped": dropped}


@pytest.mark.parametrize("form", ["per-group", "total"])
@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_the_loss_and_its_gradients_are_equations_6_to_8(clips: Tensor, form: Any, drop: float) -> None:
    tau, seed = 1.3, 22
    mine, theirs = tiny_model(alpha=0.5), tiny_model(alpha=0.5)
    wanted = loss_by_hand(mine, clips, tau, 3.0, drop, seed, form)
    if drop:
        assert 0 < int(wanted["dropped"].sum()) < BATCH
    wanted["total"].backward()
    objective = ObjectiveConfig(target_bits=3.0, condition_drop=drop, rate_form=form)
    found = bcd_loss(theirs, clips, objective, tau=tau, rng=torch.Generator().manual_seed(seed))
    found["loss"].backward()
    assert found["loss"].item() == pytest.approx(wanted["total"].item(), rel=1e-6)
    assert found["diffusion"].item() == pytest.approx(wanted["diffusion"].item(), rel=1e-6)
    assert found["bits"].item() == pytest.approx(wanted["bits"].item(), rel=1e-6)
    others = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if parameter.grad is None:
            assert others[name].grad is None or not others[name].grad.any(), name  # type: ignore[union-attr]
            continue
        scale = float(parameter.grad.abs().max()) + 1e-6
        assert torch.allclose(others[name].grad, parameter.grad, rtol=0, atol=2e-5 * scale), name  # type: ignore[arg-type]


def test_both_directions_are_the_mean_of_the_two(clips: Tensor) -> None:
    """The rate of both is one rate: the histogram is over both halves. The error is the mean of the directions'."""
    model, seed = tiny_model(alpha=0.5, extensions=Extensions([SymmetricHalves(mode="both")])), 3
    objective = ObjectiveConfig(condition_drop=0.0)
    both = extended_loss(
        model, clips, objective, model.extensions, tau=1.0, step=0, rng=torch.Generator().manual_seed(seed)
    )
    pixels = clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    _, first = model.encoder((pixels[:, :3] + 0.8) / 0.45)
    _, second = model.encoder((pixels[:, 3:] + 0.8) / 0.45)
    latents = torch.cat([second, first])
    bits, _ = entropy_by_hand(
        latents.detach().double().numpy(), model.quantizer.codebook.detach().double().numpy(), 0.5
    )
    assert both["bits"].item() == pytest.approx(sum(bits), abs=1e-5)


def test_conditions_are_dropped_together_and_as_often_as_said() -> None:
    """Classifier-free guidance: content and motion become the learned nulls in the same tenth of the samples."""
    model = tiny_model()
    many = torch.zeros(600, FRAMES, SIDE, SIDE, 3, dtype=torch.uint8)
    masks: list[tuple[Tensor, Tensor]] = []

    def note(module: Any, args: Any) -> None:
        masks.append((args[4].clone(), args[5].clone()))

    model.decoder.register_forward_pre_hook(note)
    for step in range(4):
        with torch.no_grad():
            bcd_loss(model, many, ObjectiveConfig(), tau=1.0, rng=torch.Generator().manual_seed(step))
    content, motion = (torch.cat([pair[place] for pair in masks]) for place in (0, 1))
    assert torch.equal(content, motion)
    assert abs(float(content.float().mean()) - 0.1) < 4 * math.sqrt(0.1 * 0.9 / len(content))


@pytest.mark.parametrize("sigma", [0.002, 0.1, 0.5, 3.0, 80.0])
def test_preconditioning_is_edms(sigma: float) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen: list[tuple[Tensor, Tensor]] = []

    def network(scaled: Tensor, noise: Tensor) -> Tensor:
        seen.append((scaled, noise))
        return torch.tanh(scaled).float()

    found = precondition(network, x, torch.full((2,), sigma, dtype=torch.float64), EDMConfig())
    total = sigma**2 + 0.25
    scaled = x / math.sqrt(total)
    wanted = 0.25 / total * x + sigma * 0.5 / math.sqrt(total) * torch.tanh(scaled).float()
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(seen[0][0], scaled)
    assert torch.allclose(seen[0][1], torch.full((2,), math.log(sigma) / 4, dtype=torch.float64))
    weight = loss_weight(torch.tensor([sigma]), EDMConfig())
    assert float(weight) == pytest.approx(total / (sigma * 0.5) ** 2, rel=1e-5)
    assert float(weight) * (sigma * 0.5 / math.sqrt(total)) ** 2 == pytest.approx(1, rel=1e-5)  # F is learned evenly


def test_noise_levels_of_training_are_log_normal() -> None:
    config = EDMConfig(p_mean=-0.4, p_std=1.0)
    levels = training_sigmas(40_000, config, torch.Generator().manual_seed(0)).log()
    assert float(levels.mean()) == pytest.approx(-0.4, abs=0.02)
    assert float(levels.std()) == pytest.approx(1.0, abs=0.02)
    normals = torch.randn(5, generator=torch.Generator().manual_seed(3))
    found = training_sigmas(5, EDMConfig(), torch.Generator().manual_seed(3))
    assert torch.allclose(found, torch.exp(1.2 * normals - 1.2), rtol=1e-6)


def test_the_grid_of_sampling_is_that_of_karras() -> None:
    found = karras_sigmas(SamplerConfig(steps=50)).tolist()
    for i, sigma in enumerate(found[:-1]):
        assert sigma == pytest.approx((80 ** (1 / 7) + i / 49 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, rel=1e-9)
    assert found[-1] == 0
    assert found[0] == pytest.approx(80)
    assert found[-2] == pytest.approx(0.002)


@pytest.mark.parametrize("name", ["heun", "euler"])
def test_samplers_are_edms_algorithm_1(name: Any) -> None:
    config = SamplerConfig(name=name, steps=7)
    noise = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.sin(x) / (1 + sigma.view(-1, 1, 1))

    grid = [(80 ** (1 / 7) + i / 6 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(7)] + [0.0]
    x = noise * 80
    for now, after in itertools.pairwise(grid):
        d = (x - torch.sin(x) / (1 + now)) / now
        y = x + (after - now) * d
        if name == "heun" and after > 0:
            y = x + (after - now) * 0.5 * (d + (y - torch.sin(y) / (1 + after)) / after)
        x = y
    assert torch.allclose(sample(denoise, noise, config), x, atol=1e-9)


def test_guidance_extrapolates_from_the_nulls() -> None:
    """D = D_null + w (D_cond - D_null), here in a single step from sigma_max, so that the sample is D itself."""
    model = tiny_model().eval()
    content = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1))
    motion = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(2, *model.noise_shape(4), generator=torch.Generator().manual_seed(3))
    sampler = SamplerConfig(name="euler", steps=1, guidance=1.5)
    sigma = torch.full((2,), 80.0)
    with torch.no_grad():
        conditional = model.denoise(80 * noise, sigma, content, motion)
        null = model.denoise(
            80 * noise, sigma, model.decoder.null_content.expand(2, -1, -1), model.decoder.null_motion.expand(2, 4, -1)
        )
        wanted = null + 1.5 * (conditional - null)
        found = model.sample(content, motion, sampler, noise)
    assert torch.allclose(patches_by_hand(found), wanted, atol=2e-4)
    assert not torch.allclose(conditional, null, atol=1e-3)


# Equation (13): motion acts through the norms of its own frame --------------------------------------------------------


def test_a_block_is_modulated_by_noise_level_and_motion_of_its_frame() -> None:
    """x + gate * Attention(LN(x) (1 + scale) + shift), all six from one linear map of SiLU(emb(t) + W m)."""
    model = tiny_model().eval()
    block = model.decoder.blocks[0]
    x = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(1))
    condition = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(2))
    parts = (condition @ block.modulation.weight.T + block.modulation.bias).view(2, 3, 1, 6, 16).unbind(-2)
    shift1, scale1, gate1, shift2, scale2, gate2 = parts

    def norm(h: Tensor) -> Tensor:
        return (h - h.mean(-1, keepdim=True)) / torch.sqrt(h.var(-1, unbiased=False, keepdim=True) + 1e-6)

    def attention(h: Tensor) -> Tensor:
        layer = block.attention
        q, k, v = (h @ layer.qkv.weight.T + layer.qkv.bias).view(6, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(8), -1)
        return (weights @ v).transpose(1, 2).reshape(6, 5, 16) @ layer.out.weight.T + layer.out.bias

    h = norm(x) * (1 + scale1) + shift1
    wanted = x + gate1 * attention(h.flatten(0, 1)).view(2, 3, 5, 16)
    wanted = wanted + gate2 * block.feed_forward(norm(wanted) * (1 + scale2) + shift2)
    assert torch.allclose(block(x, condition), wanted, atol=1e-5)


def test_motion_of_a_frame_enters_beside_the_noise_level() -> None:
    model = tiny_model().eval()
    decoder = model.decoder
    seen: list[Tensor] = []
    decoder.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[1].detach().clone()))
    patches = torch.zeros(1, 4, 4, 3 * PATCH**2)
    content, motion = torch.zeros(1, 3, 16), torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(1))
    noise = torch.tensor([0.7])
    decoder(patches, noise, content, motion)
    frequencies = torch.exp(-math.log(10_000) * torch.arange(64) / 64)
    angles = 100 * noise[:, None] * frequencies
    embedded = decoder.noise_in(torch.cat([angles.sin(), angles.cos()], -1))
    condition = embedded[:, None] + motion @ decoder.motion_in.weight.T + decoder.motion_in.bias
    assert torch.allclose(seen[0], condition * torch.sigmoid(condition), atol=1e-5)


def test_content_tokens_stand_before_the_patches_of_every_frame() -> None:
    """Sec. 3.3: content is concatenated with the noisy input; patches know their place in the frame."""
    model = tiny_model().eval()
    decoder = model.decoder
    seen: list[Tensor] = []
    decoder.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    generator = torch.Generator().manual_seed(1)
    patches, content = (
        torch.randn(1, 4, 4, 3 * PATCH**2, generator=generator),
        torch.randn(1, 3, 16, generator=generator),
    )
    decoder(patches, torch.tensor([0.1]), content, torch.zeros(1, 4, 16))
    tokens = content @ decoder.content_in.weight.T + decoder.content_in.bias + decoder.content_type
    places = []
    for row in (0, 1):
        for column in (0, 1):
            parts = []
            for position in (row, column):  # half of the channels for each axis
                angles = position * torch.exp(-math.log(10_000) * torch.arange(4) / 4)
                parts += [angles.sin(), angles.cos()]
            places.append(torch.cat(parts))
    inside = patches @ decoder.patch_in.weight.T + decoder.patch_in.bias + torch.stack(places)
    for frame in range(4):
        assert torch.allclose(seen[0][:, frame, :3], tokens, atol=1e-5)
        assert torch.allclose(seen[0][:, frame, 3:], inside[:, frame], atol=1e-5)


# Temporal blocks and the order of frames ------------------------------------------------------------------------------


def denoised_in_order(model: BCD, order: list[int]) -> Tensor:
    """What the model makes of four frames in another order, put back in order."""
    patches = torch.randn(1, 4, 4, 3 * PATCH**2, generator=torch.Generator().manual_seed(1))
    motion = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(2))
    content = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = model.denoise(patches[:, order], torch.tensor([1.0]), content, motion[:, order])
    back = [order.index(frame) for frame in range(4)]
    return found[:, back]


@pytest.mark.parametrize(("positions", "changes"), [("none", False), ("rotary", True)])
def test_the_order_of_frames_matters_with_positions_alone(positions: str, changes: bool) -> None:
    model = tiny_model()
    config = model.config.model_copy(
        update={"decoder": model.config.decoder.model_copy(update={"time_positions": positions})}
    )
    ordered = BCD(config).eval()
    ordered.load_state_dict(model.state_dict())
    straight = denoised_in_order(ordered, [0, 1, 2, 3])
    difference = float((straight - denoised_in_order(ordered, [2, 0, 3, 1])).abs().max())
    assert (difference > 1e-4) if changes else (difference < 1e-5)


def test_rotary_positions_tell_distances_and_not_places() -> None:
    q, k = torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(1))
    same = (torch.ones_like(q) * q[:, :1]), (torch.ones_like(k) * k[:, :1])
    scores = rotate(same[0]) @ rotate(same[1]).transpose(-1, -2)
    for shift in range(-8, 9):
        diagonal = scores[0].diagonal(shift)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)
    assert torch.allclose(scores[0].diagonal(), (same[0] @ same[1].transpose(-1, -2))[0].diagonal(), atol=1e-4)
    assert float(scores[0, 0].std()) > 1e-2


# The codebook at the start of a training ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [4, 16, 384])
def test_alpha_means_the_same_at_every_code_dimension(dim: int) -> None:
    """Equation (1) by mean squares: 16 channels are as in the paper's Table A7, others scale."""
    quantizer = GroupVectorQuantizer(QuantizerConfig(entries=6, dim=dim, distance="scaled"), dim).eval()
    latents = torch.randn(1, 5, dim, generator=torch.Generator().manual_seed(1))
    bits, codes = entropy_by_hand(
        latents.double().numpy(), quantizer.codebook.detach().double().numpy(), 5.0 * 16 / dim
    )
    found = quantizer(latents)
    assert found.bits.item() == pytest.approx(bits[0], abs=1e-5)
    assert np.array_equal(found.codes.numpy(), codes)
