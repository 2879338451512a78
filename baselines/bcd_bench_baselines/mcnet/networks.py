"""The generator of MCNET: a U-net over warped features, each scale compensated by the memory unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.blocks import ConvBlock, DownBlock, FewOut, Residual, UpBlock
from bcd_bench_baselines.common.first_order import DenseMotion, Motion, sample
from bcd_bench_baselines.mcnet.memory import MemoryUnit

__all__ = ["KEYPOINTS", "Generator"]

KEYPOINTS = 15


class Generator(nn.Module):
    """The published configuration: 15 keypoints, memory of 512 x 32 x 32, features of 64 to 512 channels."""

    def __init__(self, keypoints: int = KEYPOINTS) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotion(keypoints)
        self.first = ConvBlock(3, 64, 7)
        self.down_blocks = nn.ModuleList([DownBlock(64, 128), DownBlock(128, 256), DownBlock(256, 512)])
        self.up_blocks = nn.ModuleList([UpBlock(512, 256), UpBlock(512, 128), UpBlock(256, 64)])
        self.resblock = nn.ModuleList(Residual(channels) for channels in (512, 512, 512, 512, 256, 256))
        self.mbUnit = MemoryUnit(keypoints)
        self.final = FewOut(64, 3)

    def encode(self, image: Tensor) -> list[Tensor]:
        """float32[1, 3, 256, 256] in [0, 1] -> features of 64, 128, 256 and 512 channels, each at half the previous
        size."""
        levels = [self.first(image)]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels

    def decode(
        self,
        image: Tensor,
        levels: Sequence[Tensor],
        positions: Tensor,
        motion: Motion,
        noise: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Decode the source (image, levels of features, positions of its keypoints [1, K, 2]) with the motion of B
        frames.

        `noise` is three maps [1 or B, 1, 32, 32], for the scales 32, 64 and 128, or None. Returns float32[B, 3, 256,
        256] in [0, 1].
        """
        maps = noise or (None, None, None)
        y = self.mbUnit(self.warped(levels[3], motion), positions, maps[0])
        for stage, up in enumerate(self.up_blocks):
            y = up(self.resblock[2 * stage + 1](self.resblock[2 * stage](y)))
            if stage < 2:
                level = self.warped(levels[2 - stage], motion)
                y = torch.cat([y, self.mbUnit(level, positions, maps[stage + 1]).to(y.dtype)], 1)
        occlusion = _resized(motion.occlusion, image)
        y = y * (1 - occlusion) + self.warped(levels[0], motion)
        colours = self.final(y).sigmoid()
        return colours * (1 - occlusion) + sample(image, _places(motion, image), align_corners=True) * occlusion

    def warped(self, level: Tensor, motion: Motion) -> Tensor:
        """Features [1, C, h, w] warped, and attenuated where the source does not show them: [B, C, h, w]."""
        return sample(level, _places(motion, level), align_corners=True) * _resized(motion.occlusion, level)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=True)


def _places(motion: Motion, like: Tensor) -> Tensor:
    return _resized(motion.deformation.movedim(-1, 1), like).movedim(1, -1)
