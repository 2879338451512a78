"""Keypoint detector and dense motion of the first-order motion model, also used by MCNET (Siarohin et al., 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.blocks import AntiAlias, FewOut, Hourglass
from bcd_bench_baselines.common.keypoints import coordinate_grid, expected_position, gaussians, inverse

__all__ = ["DenseMotion", "KeypointDetector", "Motion", "sample"]

SIZE = (256, 256)
"""Height and width of the images that the published weights require."""
TEMPERATURE = 0.1


def sample(image: Tensor, places: Tensor, *, align_corners: bool = False) -> Tensor:
    """Bilinear samples of `image` [B or 1, C, H, W] at `places` [B, h, w, 2], zero outside: [B, C, h, w] in float32."""
    image = image.float().expand(len(places), -1, -1, -1)
    return F.grid_sample(image, places, mode="bilinear", padding_mode="zeros", align_corners=align_corners)


class KeypointDetector(nn.Module):
    """Image float32[B, 3, 256, 256] in [0, 1] -> positions [B, K, 2] and Jacobians [B, K, 2, 2]."""

    def __init__(self, keypoints: int, base: int = 32, most: int = 1024, blocks: int = 5) -> None:
        super().__init__()
        self.down = AntiAlias()
        self.predictor = Hourglass(base, 3, blocks, most)
        self.kp = nn.Conv2d(self.predictor.channels_out, keypoints, 7)
        self.jacobian = nn.Conv2d(self.predictor.channels_out, 4 * keypoints, 7)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.predictor(self.down(image))
        logits = self.kp(features).float()
        heat = (logits.flatten(2) / TEMPERATURE).softmax(-1)
        maps = self.jacobian(features).float().unflatten(1, (-1, 4)).flatten(3)
        jacobian = (heat[:, :, None] * maps).sum(-1).unflatten(-1, (2, 2))
        return expected_position(heat.view_as(logits)), jacobian


class Motion(NamedTuple):
    """`deformation` [B, h, w, 2]: the source position of each pixel; `occlusion` [B, 1, h, w] in 0..1, 0 where the
    source does not show it; `mask` [B, K + 1, h, w]: the weights of the background's and of each keypoint's map."""

    deformation: Tensor
    occlusion: Tensor
    mask: Tensor


class DenseMotion(nn.Module):
    """Keypoints of source and target, and a small source image -> the `Motion` between them."""

    def __init__(self, keypoints: int, base: int = 64, most: int = 1024, blocks: int = 5) -> None:
        super().__init__()
        self.down = AntiAlias()
        self.hourglass = Hourglass(base, 4 * (keypoints + 1), blocks, most)
        self.mask = FewOut(self.hourglass.channels_out, keypoints + 1)
        self.occlusion = FewOut(self.hourglass.channels_out, 1)

    def forward(
        self, small: Tensor, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], align_corners: bool = False
    ) -> Motion:
        """`small` [1, 3, h, w] (`down` of the source); keypoints as (positions, Jacobians), those of the source for one
        image, those of the target for B frames."""
        height, width = small.shape[-2:]
        (p_s, j_s), (p_t, j_t) = source, target
        grid = coordinate_grid(height, width, small)
        affine = j_s @ inverse(j_t)  # [B, K, 2, 2]
        from_target = grid - p_t[:, :, None, None]
        near = torch.einsum("bkij,bkhwj->bkhwi", affine, from_target) + p_s[:, :, None, None]
        maps = torch.cat([grid.expand(len(p_t), 1, -1, -1, -1), near], 1)  # [B, K + 1, h, w, 2]
        heat = gaussians(p_t, height, width) - gaussians(p_s, height, width)
        heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], 1)
        # one image is sampled everywhere at once: the maps of all frames are the rows of one large grid
        moved = sample(small, maps.reshape(1, -1, width, 2), align_corners=align_corners)
        moved = moved.view(3, len(p_t), -1, height, width).movedim(0, 2)
        features = self.hourglass(torch.cat([heat[:, :, None], moved], 2).flatten(1, 2))
        mask = self.mask(features).softmax(1)
        deformation = torch.einsum("bkhw,bkhwi->bhwi", mask, maps)
        return Motion(deformation, self.occlusion(features).sigmoid(), mask)
