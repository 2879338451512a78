"""The objective of C-DSVAE: a sequential ELBO, plus I(f; x) and I(z; x), minus I(f; z).

The first two mutual informations are estimated from below by InfoNCE between a clip's code and that of an augmented
copy, with other clips as negatives; the last by minibatch-weighted sampling (Chen et al. 2018, from beta-TCVAE).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bcd_bench_baselines.cdsvae.augment import distort_content, shuffle_frames
from bcd_bench_baselines.cdsvae.model import CDSVAE, Gaussian
from bcd_bench_baselines.cdsvae.presets import ObjectiveConfig

__all__ = ["Losses", "dependence", "info_nce", "kl", "log_density", "training_loss"]


@dataclass(frozen=True)
class Losses:
    """Scalars of one step. `total` is minimised; the others are unweighted, in nats except for the reconstruction."""

    total: Tensor
    reconstruction: Tensor
    """Squared error in [0, 1], summed over a clip, averaged over clips (a Gaussian decoder of variance 1/2)."""
    kl_f: Tensor
    kl_z: Tensor
    """Summed over frames."""
    contrast_f: Tensor
    contrast_z: Tensor
    dependence: Tensor


def training_loss(
    model: CDSVAE, clips: Tensor, objective: ObjectiveConfig, *, total: int, generator: torch.Generator
) -> Losses:
    """The objective on clips [B, T, 3, H, W] in [0, 1], B of `total` training clips; noise comes from `generator`."""
    device, (count, length) = clips.device, clips.shape[:2]

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    features = model.features(clips)
    q_f, q_z = model.posterior_f(features), model.posterior_z(features)
    f = q_f.sample(noise(*q_f.mean.shape))
    z = q_z.sample(noise(*q_z.mean.shape))

    frames = min(length, objective.decoded_frames or length)
    decoded = torch.rand(count, length, generator=generator).argsort(1)[:, :frames].to(device)
    rows = torch.arange(count, device=device)[:, None]
    error = (model.decode(f, z[rows, decoded]) - clips[rows, decoded]).square()
    reconstruction = error.sum() * (length / frames) / count

    kl_f = kl(q_f, Gaussian(torch.zeros_like(q_f.mean), torch.zeros_like(q_f.mean))).sum(-1).mean()
    kl_z = kl(q_z, model.prior_z(z)).sum((1, 2)).mean()

    # Frames are encoded one by one, so shuffled features are the features of the shuffled clip.
    other_motion = model.posterior_f(shuffle_frames(features, generator))
    other_content = model.posterior_z(model.features(distort_content(clips, objective.distortion, generator)))
    contrast_f = info_nce(q_f.mean, other_motion.mean, objective.temperature)
    contrast_z = info_nce(q_z.mean.flatten(1), other_content.mean.flatten(1), objective.temperature)
    shared = dependence(f, q_f, z, q_z, total)

    loss = (
        reconstruction
        + objective.kl_f * kl_f
        + objective.kl_z * kl_z
        + objective.contrast_f * contrast_f
        + objective.contrast_z * contrast_z
        + objective.dependence * shared
    )
    return Losses(loss, reconstruction, kl_f, kl_z, contrast_f, contrast_z, shared)


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) in nats, element by element."""
    ratio = (q.log_variance - p.log_variance).exp()
    shift = (q.mean - p.mean).square() * (-p.log_variance).exp()
    return 0.5 * (ratio + shift - 1 - q.log_variance + p.log_variance)


def info_nce(codes: Tensor, views: Tensor, temperature: float) -> Tensor:
    """InfoNCE loss in nats between codes [B, D] and their views [B, D], other rows as negatives; both ways, averaged.

    Similarity is the cosine over `temperature`. log(B) minus this bounds the information from below.
    """
    similarity = functional.normalize(codes, dim=1) @ functional.normalize(views, dim=1).T / temperature
    truth = torch.arange(len(codes), device=codes.device)
    return 0.5 * (functional.cross_entropy(similarity, truth) + functional.cross_entropy(similarity.T, truth))


def log_density(values: Tensor, q: Gaussian) -> Tensor:
    """log q_j(value_i) in nats for values [..., B, D] under Gaussians [..., B, D]: [..., B, B], summed over D."""
    shift = values.unsqueeze(-2) - q.mean.unsqueeze(-3)
    log_variance = q.log_variance.unsqueeze(-3)
    return -0.5 * (shift.square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)).sum(-1)


def dependence(f: Tensor, q_f: Gaussian, z: Tensor, q_z: Gaussian, total: int) -> Tensor:
    """I(f; z_t) in nats, mean over clips and frames, from samples f [B, F] and z [B, T, Z] of their posteriors.

    Each aggregate density is a mixture over the batch, weighted as B of `total` clips.
    """
    of_f = log_density(f, q_f)
    of_z = log_density(z.transpose(0, 1), Gaussian(q_z.mean.transpose(0, 1), q_z.log_variance.transpose(0, 1)))
    together = (of_f + of_z).logsumexp(-1)
    return (together - of_f.logsumexp(-1) - of_z.logsumexp(-1)).mean() + math.log(len(f) * total)
