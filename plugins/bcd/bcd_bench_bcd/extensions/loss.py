"""The loss of a recipe with extensions: the steps of `paper.loss.bcd_loss`, with hooks in between.

Without extensions both are identical, bit by bit (a test asserts this).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extensions, Keypoints, StepState
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.paper.config import Direction, ObjectiveConfig
from bcd_bench_bcd.paper.edm import loss_weight, training_sigmas
from bcd_bench_bcd.paper.quantizer import rate_loss
from bcd_bench_bcd.paper.rng import RngLike, as_rng

__all__ = ["extended_code_histogram", "extended_loss"]


def extended_loss(
    model: ExtendedBCD,
    clips: Tensor,
    objective: ObjectiveConfig,
    extensions: Extensions,
    *,
    tau: float,
    step: int,
    rng: RngLike,
    direction: Direction = "forward",
    histogram: Tensor | None = None,
    keep_probabilities: Tensor | None = None,
    keypoints: Keypoints | None = None,
) -> dict[str, Tensor]:
    """The loss and its terms by name (0-dim each); "loss" is minimised.

    `keep_probabilities` (float [S], on the CPU) are the probabilities with which the active patches are computed in
    this step (see `patch_skipping`); all other arguments are as in `bcd_loss`.
    """
    rng = as_rng(rng)
    content_half, driving_half = (model.values(half) for half in extensions.halves(clips, rng, direction))
    state = StepState(model, step, rng, extensions, content_half, driving_half, driving_half, keypoints, direction)
    for extension in extensions:
        extension.augment(state)
    _encode(state)
    for extension in extensions:
        extension.after_encoder(state)
    for extension in extensions:
        extension.before_quantizer(state)
    state.quantized = model.quantizer(state.latents, tau, rng, histogram)
    state.clean = model.decoder.patchify(state.target)
    for extension in extensions:
        extension.after_quantizer(state)
    if state.denoising:
        state.add("diffusion", _denoising_error(state, objective, keep_probabilities), 1.0)
    rate = rate_loss(state.quantized.group_bits, objective.target_bits, objective.rate_form)
    state.total = state.total + (0.0 if model.quantizer.bypass else objective.rate_weight) * rate
    for extension in extensions:
        extension.after_decoder(state)
    assert isinstance(state.total, Tensor)
    zero = state.total.new_zeros(())
    return {
        "loss": state.total,
        "diffusion": state.terms.get("diffusion", zero),
        "bits": state.quantized.bits,
        "conditional_bits": state.quantized.conditional_bits,
        **{name: state.terms.get(name, zero) for extension in extensions for name in extension.logged},
    }


def _encode(state: StepState) -> None:
    """Encode content from the content halves, motion (and rate) from the driving halves."""
    model, batch = state.model, state.batch
    if state.content_subset is not None:
        frames = state.content_half[:, state.content_subset]
        state.tokens, state.content_latents = model.encode(frames, canonical=state.canonical)
        state.latents = model.latents_of_motion(state.driving_half)
    elif state.shared_pass:
        state.tokens, state.content_latents = model.encode(state.content_half, canonical=state.canonical)
        state.latents = state.content_latents.roll(batch // 2, 0)
    else:
        both = torch.cat([state.content_half, state.driving_half])
        tokens, latents = model.encode(both, canonical=state.canonical)
        state.tokens, state.content_latents, state.latents = tokens[:batch], latents[:batch], latents[batch:]
    state.content = state.tokens


def _denoising_error(state: StepState, objective: ObjectiveConfig, keep_probabilities: Tensor | None) -> Tensor:
    """L_d (7), with the changes of the extensions."""
    model, rng, device, clean = state.model, state.rng, state.device, state.clean
    sigma = training_sigmas(state.batch, model.config.edm, rng).to(device)
    patch_index = weight = None
    if keep_probabilities is not None:
        keep = torch.rand(len(keep_probabilities), generator=rng.generator) < keep_probabilities
        patch_index = torch.nonzero(keep).flatten()
        weight = (1 / keep_probabilities[patch_index]).to(device)
        patch_index = patch_index.to(device)
        clean = clean[:, :, patch_index]
    noise = rng.normal(*clean.shape, device=device)
    both = state.chance(objective.condition_drop)
    drop_content = both
    for extension in state.extensions:
        dropped = extension.content_drop(state)
        drop_content = drop_content if dropped is None else drop_content | dropped
    denoised = model.denoise(
        clean + sigma.view(-1, 1, 1, 1) * noise,
        sigma,
        state.content,
        state.quantized.motion,
        drop_content,
        both,
        patch_index,
        state.warped,
    )
    edm_weight = loss_weight(sigma, model.config.edm)
    for extension in state.extensions:
        edm_weight = extension.loss_weight(edm_weight)
    return (edm_weight * state.error(denoised - clean, weight)).mean()


@torch.no_grad()
def extended_code_histogram(
    model: ExtendedBCD, clips: Tensor, extensions: Extensions, rng: RngLike, direction: Direction = "forward"
) -> Tensor:
    """P(e_j^i) [N, J] of the driving halves (eq. 4). `rng` must be fresh, with the same seeds as in `extended_loss`."""
    content_half, driving_half = (model.values(half) for half in extensions.halves(clips, as_rng(rng), direction))
    symmetric = extensions.get(SymmetricHalves)
    if symmetric is not None and symmetric.both:
        return model.quantizer.histogram(model.latents_of_motion(content_half))  # the same frames, reordered
    latents = model.latents_of_motion(torch.cat([content_half, driving_half]))
    return model.quantizer.histogram(latents[len(driving_half) :])
