"""The generator of FOMM: the source's features are warped, masked and decoded."""

from __future__ import annotations

from torch import Tensor, nn

from bcd_bench_baselines.common.blocks import ConvBlock, DownBlock, FewOut, Residual, UpBlock
from bcd_bench_baselines.common.first_order import DenseMotion, Motion, sample

__all__ = ["KEYPOINTS", "Generator"]

KEYPOINTS = 10


class Generator(nn.Module):
    """Occlusion-aware generator of the configuration vox-256: 64 channels at 256 x 256, 256 at 64 x 64."""

    def __init__(self, keypoints: int = KEYPOINTS, base: int = 64, residuals: int = 6) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotion(keypoints)
        self.first = ConvBlock(3, base, 7)
        self.down_blocks = nn.ModuleList([DownBlock(base, 2 * base), DownBlock(2 * base, 4 * base)])
        self.bottleneck = nn.Sequential()
        for index in range(residuals):
            self.bottleneck.add_module(f"r{index}", Residual(4 * base))
        self.up_blocks = nn.ModuleList([UpBlock(4 * base, 2 * base), UpBlock(2 * base, base)])
        self.final = FewOut(base, 3)

    def encode(self, image: Tensor) -> Tensor:
        """float32[1, 3, H, W] in [0, 1] -> features [1, 256, H / 4, W / 4], once per source."""
        x = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        features: Tensor = x
        return features

    def decode(self, features: Tensor, motion: Motion, align_corners: bool = False) -> Tensor:
        """The source's features warped by the motion of B frames -> float32[B, 3, H, W] in (0, 1)."""
        x = sample(features, motion.deformation, align_corners=align_corners) * motion.occlusion
        x = self.bottleneck(x)
        for block in self.up_blocks:
            x = block(x)
        return self.final(x).sigmoid()
