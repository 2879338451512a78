"""The training loss: cross-driven denoising plus the bitrate loss (Sec. 3.3, eqs. 6-8)."""

from __future__ import annotations

import torch
from torch import Tensor

from bcd_bench_bcd.paper.config import Direction, ObjectiveConfig
from bcd_bench_bcd.paper.edm import loss_weight, training_sigmas
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.paper.quantizer import rate_loss
from bcd_bench_bcd.paper.rng import RngLike, as_rng

__all__ = ["bcd_loss", "code_histogram", "cross_driven_halves"]


def cross_driven_halves(clips: Tensor, direction: Direction = "forward") -> tuple[Tensor, Tensor]:
    """Clips [B, T, ...] -> content halves and driving halves of T // 2 frames: the first half and the second one.

    "same" is the paper's ablation without cross-driven training (Table 3): content and motion come from one half.
    """
    half = clips.shape[1] // 2
    first, second = clips[:, :half], clips[:, half : 2 * half]
    return (second if direction == "same" else first), second


def bcd_loss(
    model: BCD,
    clips: Tensor,
    objective: ObjectiveConfig,
    *,
    tau: float,
    rng: RngLike,
    direction: Direction = "forward",
    histogram: Tensor | None = None,
) -> dict[str, Tensor]:
    """L ("loss", to be minimised) and its terms, by name, 0-dim each. `clips` are as `BCD.values` takes them.

    If these clips are a part of a larger batch, `histogram` is that of the whole batch, see `code_histogram`.
    """
    rng = as_rng(rng)
    content_half, driving_half = (model.values(half) for half in cross_driven_halves(clips, direction))
    batch = len(driving_half)
    content, latents = model.encode(torch.cat([content_half, driving_half]))  # one pass: Sec. 3.1
    content, latents = content[:batch], latents[batch:]
    quantized = model.quantizer(latents, tau, rng, histogram)  # Sec. 3.2, eqs. 1-5
    clean = model.decoder.patchify(driving_half)
    sigma = training_sigmas(batch, model.config.edm, rng).to(clean.device)
    noise = rng.normal(*clean.shape, device=clean.device)
    drop = (rng.uniform(batch) < objective.condition_drop).to(clean.device)  # for classifier-free guidance
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise
    denoised = model.denoise(noisy, sigma, content, quantized.motion, drop, drop)
    error = (denoised - clean).square().mean((1, 3)).mean(1)
    diffusion = (loss_weight(sigma, model.config.edm) * error).mean()  # (7)
    rate = rate_loss(quantized.group_bits, objective.target_bits, objective.rate_form)  # (8)
    return {
        "loss": diffusion + objective.rate_weight * rate,  # (6)
        "diffusion": diffusion,
        "bits": quantized.bits,
        "conditional_bits": quantized.conditional_bits,
    }


@torch.no_grad()
def code_histogram(model: BCD, clips: Tensor, direction: Direction = "forward") -> Tensor:
    """P(e_j^i) [N, J] of the driving halves of `clips` (eq. 4), from which `bcd_loss` computes the rate."""
    content_half, driving_half = (model.values(half) for half in cross_driven_halves(clips, direction))
    # with the content halves, as in `bcd_loss`: the same sums in the same order
    latents = model.encode(torch.cat([content_half, driving_half]))[1]
    return model.quantizer.histogram(latents[len(driving_half) :])
