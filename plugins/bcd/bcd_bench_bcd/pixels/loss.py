"""The loss of the pixel path: pixels, structure, the parts alone, and labelled points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bcd_bench_bcd.extensions.pixel_path import Carried, grid_positions, scaled
from bcd_bench_bcd.pixels.config import PixelTrainConfig

__all__ = ["Targets", "local_contrast", "part_map", "pixel_loss", "psnr", "structural_dissimilarity"]

SPREAD = 0.045
"""Standard deviation of a point's influence on the map of parts; 2 is a whole side."""


@dataclass
class Targets:
    """What N fused pictures are compared with."""

    frames: Tensor
    """[N, 3, h, w] in -1..1."""
    points: Tensor
    """Points of the head in them, [N, P, 2], NaN if turned away."""
    source_points: Tensor
    """The same points in the content frames that are carried, [N, pictures, P, 2]; the last one is not moved."""


def pixel_loss(
    carried: Carried, targets: Targets, part_weights: Tensor, config: PixelTrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of N fused pictures, and its terms by name. `part_weights` [P] are those of the points, 0..1."""
    weight = 1 + config.part_weight * scaled(part_map(targets.points, part_weights)[:, None], targets.frames.shape[-2:])

    def error(picture: Tensor) -> Tensor:
        return (weight * (picture - targets.frames).abs()).mean()

    dissimilarity = structural_dissimilarity(carried.picture, targets.frames)
    border = (weight.shape[-1] - dissimilarity.shape[-1]) // 2
    inner = weight[..., border:-border, border:-border]
    contrast = (local_contrast(carried.picture) - local_contrast(targets.frames)).abs()
    terms = {
        "pixels": error(carried.picture),
        "structure": (inner * dissimilarity).mean(),
        "contrast": (inner * contrast).mean(),
        "carried": error(carried.first),
        "drawn": error(carried.drawn),
        "points": point_error(carried.displacements[:, :-1], targets, 1 + config.part_weight * part_weights),
        "smoothness": sum(
            (carried.displacements.diff(n=2, dim=axis).abs().mean() for axis in (-1, -2)), torch.zeros(())
        ),
    }
    total = terms["pixels"]
    for name in ("structure", "contrast", "carried", "drawn", "points", "smoothness"):
        total = total + getattr(config, name) * terms[name]
    return total, terms


def part_map(points: Tensor, part_weights: Tensor) -> Tensor:
    """Where expressions move the face, [N, 64, 64], for points [N, P, 2]: a sum of blobs, at most 2."""
    seen = points.isfinite().all(-1)
    x, y = points.nan_to_num(9.0).split(1, -1)
    axis = grid_positions(64, 64, points.device)[0, 0]
    across, along = (torch.exp(-(((one - axis) / SPREAD) ** 2) / 2) for one in (x, y))
    return torch.einsum("np,npy,npx->nyx", part_weights * seen, along, across).clamp(max=6) / 3


def point_error(displacements: Tensor, targets: Targets, weights: Tensor) -> Tensor:
    """Mean distance (2 is a whole side) of the points [N, P, 2], moved by the displacements [N, pictures, 2, g, g],
    from their places in the content frames."""
    here, there = targets.points.nan_to_num(0.0), targets.source_points.nan_to_num(0.0)
    seen = targets.points.isfinite().all(-1)[:, None] & targets.source_points.isfinite().all(-1)
    total = torch.zeros((), device=here.device)
    for one in range(displacements.shape[1]):
        moved = nn.functional.grid_sample(
            displacements[:, one], here[:, None], padding_mode="border", align_corners=False
        )[:, :, 0].transpose(1, 2)
        distance = ((here + moved - there[:, one]).square().sum(-1) + 1e-6).sqrt()
        weight = weights * seen[:, one]
        total = total + (distance * weight).sum() / weight.sum().clamp_min(1)
    return total / displacements.shape[1]


def structural_dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """(1 - SSIM) / 2 of pictures in -1..1 over uniform windows of 7 x 7 pixels, [N, 3, h - 6, w - 6]."""

    def mean(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 7, 1)

    mean_a, mean_b = mean(a), mean(b)
    variance = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (variance + c2))
    return (1 - similarity) / 2


def local_contrast(picture: Tensor) -> Tensor:
    """Standard deviation of a picture [N, 3, h, w] in every window of 7 x 7 pixels, [N, 3, h - 6, w - 6]."""
    mean, square = (nn.functional.avg_pool2d(part, 7, 1) for part in (picture, picture * picture))
    return (square - mean**2).clamp_min(0).add(1e-5).sqrt()


def psnr(picture: Tensor, target: Tensor) -> Tensor:
    """Mean PSNR in dB of pictures [N, 3, h, w] in -1..1."""
    return (-10 * ((picture - target) / 2).square().mean((1, 2, 3)).clamp_min(1e-10).log10()).mean()
