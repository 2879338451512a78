"""The training loss: cross-driven denoising plus the bitrate loss (Sec. 3.3, eqs. 6-8), and our optional additions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bcd_bench_bcd.canvas import off_guide
from bcd_bench_bcd.configs import Direction, ObjectiveConfig
from bcd_bench_bcd.diffusion import loss_weight, training_sigmas
from bcd_bench_bcd.model import BACKGROUND, BCD
from bcd_bench_bcd.quantizer import Quantized, rate_loss
from bcd_bench_bcd.randomness import Source, as_draws
from bcd_bench_bcd.recolour import draw_colours, recoloured

__all__ = [
    "ContentAdversary",
    "Losses",
    "code_histogram",
    "content_price",
    "cross_driven_halves",
    "pixel_error",
    "swap_cycle",
    "training_loss",
]

CYCLE_SIGMA = 20.0
"""Noise level from which the swap cycle draws: far above the data, so that nothing but content and motion is seen."""


@dataclass
class Losses:
    """Terms of one step (0-dim tensors); `total` is what is minimised."""

    total: Tensor
    diffusion: Tensor
    bits: Tensor
    """H_model, bits per frame."""
    conditional_bits: Tensor
    """H(code | frame) in bits: `bits` minus this is what the code says about the frame."""
    content_bits: Tensor
    """Rate of the content in bits per clip (0 without a bottleneck)."""
    adversary: Tensor
    """KL divergence of the adversary's guess in nats (0 when it is off)."""
    cycle: Tensor
    """Cross-entropy of the codes of redrawn halves in nats (0 while the swap cycle is off)."""
    cycle_content: Tensor
    """How far the content of redrawn halves is off, in nats of the bottleneck's noise."""
    picture: Tensor
    """Error of the moved canvas's own picture (0 without a canvas)."""
    guidance: Tensor
    """Distance by which both fields of displacements miss the points that guide them, of 2 for a whole side."""


@dataclass(frozen=True)
class Guide:
    """Where points of the head are: in the frames of clips, `points` float32 [B, T, P, 2], and on the canvas, `rest`
    [B, P, 2]; x and y in -1..1 from border to border, NaN where a point is not seen."""

    points: Tensor
    rest: Tensor

    def mirrored(self, where: Tensor) -> Guide:
        """Left and right exchanged in the clips where bool [B] is true: there the canvas is mirrored as well."""
        sign = torch.ones(len(where), 1, 2, device=where.device)
        sign[where, :, 0] = -1
        return Guide(self.points * sign[:, None], self.rest * sign)


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


class ContentAdversary(nn.Module):
    """Ours, not the paper's: guesses the code histogram of the content half from its content tokens, without labels.

    Its gradient reaches the encoder reversed, so content is pushed to say nothing about motion.
    """

    def __init__(self, values: int, groups: int, entries: int) -> None:
        super().__init__()
        self.shape = (groups, entries)
        self.net = nn.Sequential(
            nn.Linear(values, 384), nn.GELU(), nn.Linear(384, 384), nn.GELU(), nn.Linear(384, groups * entries)
        )

    def forward(self, content: Tensor, codes: Tensor, weight: float) -> Tensor:
        """Mean KL(histogram || guess) in nats, over groups; `content` [B, K, C_c], `codes` int [B, T, N]."""
        guess = (
            self.net(_ReverseGradient.apply(content.flatten(1).float(), weight))
            .float()
            .view(-1, *self.shape)
            .log_softmax(-1)
        )
        histogram = nn.functional.one_hot(codes, self.shape[1]).float().mean(1)
        return (histogram * (histogram.clamp_min(1e-9).log() - guess)).sum(-1).mean()


def content_price(step: int, objective: ObjectiveConfig) -> float:
    """What a nat of content costs at `step`: on the line between the points around it, flat beyond the last ones."""
    points = objective.content_price
    return float(np.interp(step, [p[0] for p in points], [p[1] for p in points])) if points else 0.0


def pixel_error(difference: Tensor, huber: float | None) -> Tensor:
    """Squared error, or the pseudo-Huber loss: the same for small differences, linear for large ones."""
    if huber is None:
        return difference.square()
    return 2 * huber * ((difference.square() + huber**2).sqrt() - huber)


def clip_error(
    model: BCD, difference: Tensor, huber: float | None, edges: float, weight: Tensor | None = None
) -> Tensor:
    """Mean error [B] of each clip, from `difference` of its patches [B, T, S, values].

    With `edges`, plus that many times the error of the differences between neighbouring pixels. `weight` [S] of patches
    that are a sample of all: weighted by how seldom they are computed, their sum is that over all in expectation.
    """
    error = pixel_error(difference, huber).mean((1, 3))
    error = error.mean(1) if weight is None else (error * weight).sum(1) / len(model.decoder.drawn)
    if edges:
        whole = model.decoder.unpatchify(difference, 0.0)
        steps = (pixel_error(whole.diff(dim=axis), huber).mean((1, 2, 3, 4)) for axis in (-1, -2))
        error = error + edges * sum(steps)
    return error


def off_guide_fields(
    model: BCD, content: Tensor, written: Tensor, motion: Tensor, seen: Tensor, driven: Tensor, rest: Tensor
) -> Tensor:
    """How far both fields of displacements miss: from the canvas to the content frames, whose points are at `seen`
    [B, T', P, 2], by their latents `written`; and from the driving frames, `driven` [B, T, P, 2], to the canvas, by
    their quantised `motion`. `rest` [B, P, 2] are the points on the canvas.
    """
    writer, reader = model.encoder.canvas, model.decoder.canvas
    assert writer is not None
    assert reader is not None

    def at_rest(points: Tensor) -> Tensor:
        return rest[:, None].expand(-1, points.shape[1], -1, -1).flatten(0, 1)

    to_frames = off_guide(writer.displacements(written), at_rest(seen), seen.flatten(0, 1))
    to_canvas = off_guide(
        reader.field(content[..., : model.content_width], motion), driven.flatten(0, 1), at_rest(driven)
    )
    return to_frames + to_canvas


def cross_driven_halves(clips: Tensor, direction: Direction, draws: Source) -> tuple[Tensor, Tensor]:
    """Clips [B, T, ...] -> (content halves, driving halves), each of T // 2 frames; 2 B of each for "both"."""
    half = clips.shape[1] // 2
    first, second = clips[:, :half], clips[:, half : 2 * half]
    if direction == "both":
        return torch.cat([first, second]), torch.cat([second, first])
    if direction == "forward":
        return first, second
    if direction == "same":
        return second, second
    swap = (as_draws(draws).uniform(len(clips)) < 0.5).to(clips.device)
    swap = swap.view(-1, *[1] * (clips.ndim - 1))
    return torch.where(swap, second, first), torch.where(swap, first, second)


def swap_cycle(
    model: BCD, content: Tensor, tokens: Tensor, quantized: Quantized, chosen: Tensor, draws: Source
) -> tuple[Tensor, Tensor]:
    """Draw the `chosen` driving halves with the content of another clip and encode what was drawn.

    Returns the cross-entropy of the codes they were drawn from, and how far the content is from the one they were
    drawn with (in nats of the bottleneck's noise, 0 without one), both in nats. What is drawn comes from one
    evaluation at the highest noise level and carries no gradient: encoder alone learns, from exact swaps without
    labels, that a code must not depend on who moves, nor content on how.
    """
    with torch.no_grad():
        motion = quantized.motion[chosen]
        shape = (len(chosen), *model.noise_shape(motion.shape[1]))
        noise = as_draws(draws).whole.normal(*shape, device=motion.device).to(motion)
        sigma = motion.new_full((len(chosen),), CYCLE_SIGMA)
        drawn = model.denoise(CYCLE_SIGMA * noise, sigma, content.roll(1, 0)[chosen], motion)
        drawn = drawn if model.config.latent is not None else drawn.clamp(-1, 1)
        values = model.decoder.unpatchify(drawn, BACKGROUND)
    again, latents = model.features(values, canvas=False)
    codes = model.quantizer.code_nats(latents, quantized.sampled[chosen])
    if model.bottleneck is None:
        return codes, codes.new_zeros(())
    mean = model.bottleneck.mean(again)
    with torch.no_grad():
        wanted, log_variance = (part.roll(1, 0)[chosen] for part in model.bottleneck.gaussian(tokens))
    return codes, 0.5 * ((mean - wanted).square() * (-log_variance).exp()).sum((1, 2)).mean()


@torch.no_grad()
def code_histogram(model: BCD, clips: Tensor, direction: Direction, draws: Source) -> Tensor:
    """The part of `training_loss` that the rate is made of, for these clips: float32 [N, J].

    `draws` must be new: made from the seeds that `training_loss` gets for the same clips.
    """
    content_half, driving_half = (model.values(half) for half in cross_driven_halves(clips, direction, draws))
    if direction == "both":
        return model.quantizer.histogram(
            model.features(content_half, canvas=False)[1]
        )  # the same frames in another order
    # Together, as `training_loss` does it: the same sums in the same order.
    latents = model.features(torch.cat([content_half, driving_half]), canvas=False)[1]
    return model.quantizer.histogram(latents[len(driving_half) :])


def training_loss(
    model: BCD,
    adversary: ContentAdversary | None,
    clips: Tensor,
    objective: ObjectiveConfig,
    *,
    tau: float,
    step: int,
    direction: Direction,
    generator: Source,
    patch_chances: Tensor | None = None,
    histogram: Tensor | None = None,
    guide: Guide | None = None,
) -> Losses:
    """Loss of clips as `BCD.values` takes them. All randomness comes from `generator`, see `Draws`.

    `patch_chances` (float [S], on the CPU) are the chances of the drawn patches to be computed in this step.
    `histogram` is that of the whole batch where these clips are a part of one, see `code_histogram`.
    """
    device, draws = clips.device, as_draws(generator)
    content_half, driving_half = (model.values(half) for half in cross_driven_halves(clips, direction, draws))
    batch = len(driving_half)

    def chance(probability: float) -> Tensor:
        return (draws.uniform(batch) < probability).to(device)

    painting = step >= objective.canvas_from
    target = seen = driving_half
    if objective.recolour:
        colours = draw_colours(batch, objective.recolour, draws.generator)
        if direction == "both":
            others = colours.roll(batch // 2, 0)
        else:
            others = draw_colours(batch, objective.recolour, draws.generator)
        content_half = recoloured(content_half, colours)
        target = recoloured(driving_half, colours) if painting else driving_half
        seen = recoloured(driving_half, others) if direction != "both" or objective.few_content else driving_half

    # One encoder pass for all halves: content from the one, motion (and rate) from the other.
    few = objective.few_content > 0 and float(torch.rand((), generator=draws.generator)) < objective.few_content
    if few:
        frames = content_half.shape[1]
        count = int(torch.randint(1, frames, (), generator=draws.generator)) if frames > 1 else 1
        some = torch.randperm(frames, generator=draws.generator)[:count].sort().values
        content, written = model.features(content_half[:, some], canvas=painting)
        latents = model.features(seen, canvas=False)[1]
    elif direction == "both":
        content, written = model.features(content_half, canvas=painting)
        latents = written.roll(batch // 2, 0)
    else:
        content, latents = model.features(torch.cat([content_half, seen]), canvas=painting)
        content, written, latents = content[:batch], latents[:batch], latents[batch:]

    guess = latents.new_zeros((), dtype=torch.float32)
    if adversary is not None:
        model.quantizer.eval()
        with torch.no_grad():
            codes = model.quantizer(written.detach()).codes
        model.quantizer.train(model.training)
        guess = adversary(content, codes, objective.adversary)
    content_nats = guess.new_zeros(())
    tokens = content
    if model.bottleneck is not None:
        content, content_nats = model.bottleneck.sample(content, draws)

    reviving = objective.revive_from <= step < objective.revive_until
    if objective.revive_every and reviving and step % objective.revive_every == 0:
        model.quantizer.revive(latents.detach(), draws.generator)
    free = step < objective.quantize_from
    quantized = model.quantizer(latents, tau, draws, histogram, free=free)
    huber = objective.huber if step >= objective.huber_from else None
    picture = guidance = diffusion = guess.new_zeros(())
    if painting:
        clean = model.decoder.patchify(target)
        placed = model.place(content, quantized.motion)
        if placed is not None:
            shown = model.config.diffusion.sigma_data * placed.picture
            picture = clip_error(model, shown - clean, huber, objective.edges).mean()
    if guide is not None:
        content_points, driving_points = cross_driven_halves(guide.points, direction, draws)
        rest = guide.rest.repeat(batch // len(guide.rest), 1, 1)
        content_points = content_points if not few else content_points[:, some]
        guidance = off_guide_fields(model, content, written, quantized.motion, content_points, driving_points, rest)
    if painting and step >= objective.draw_from:
        sigma = training_sigmas(batch, model.config.diffusion, draws).to(device)
        places = weight = None
        if patch_chances is not None:
            places = torch.nonzero(torch.rand(len(patch_chances), generator=draws.generator) < patch_chances).flatten()
            weight = (1 / patch_chances[places]).to(device)
            places = places.to(device)
            clean = clean[:, :, places]
        noise = draws.normal(*clean.shape, device=device)
        both = chance(objective.condition_drop)
        dropping = not objective.content_drop_until or step < objective.content_drop_until
        denoised = model.denoise(
            clean + sigma.view(-1, 1, 1, 1) * noise,
            sigma,
            content,
            quantized.motion,
            both | chance(objective.content_drop if dropping else 0.0),
            both | chance(objective.motion_drop),
            places,
            placed,
        )
        error = clip_error(model, denoised - clean, huber, objective.edges, weight)
        diffusion = (loss_weight(sigma, model.config.diffusion) * error).mean()
    rate = rate_loss(quantized.group_bits, objective.target_bits, objective.rate_form)
    total = (
        diffusion
        + objective.picture * picture
        + objective.guide * guidance
        + (0.0 if free else objective.rate_weight) * rate
        + (0.0 if free else objective.code_confidence) * quantized.conditional_bits
        + content_price(step, objective) * content_nats
        + guess
    )
    cycle = cycle_content = guess.new_zeros(())
    if objective.cycle and step >= objective.cycle_from:
        count = max(1, round(objective.cycle_share * batch))
        chosen = torch.randperm(batch, generator=draws.generator)[:count]
        cycle, cycle_content = swap_cycle(model, content, tokens, quantized, chosen, draws)
        total = total + objective.cycle * cycle + objective.cycle_content * cycle_content
    terms = (
        diffusion,
        quantized.bits,
        quantized.conditional_bits,
        content_nats / math.log(2),
        guess,
        cycle,
        cycle_content,
        picture,
        guidance,
    )
    return Losses(total, *(term.detach() for term in terms))
