"""F of LivePortrait: an image to a feature volume. Parameters as in `appearance_feature_extractor.pth`."""

from __future__ import annotations

from torch import Tensor, nn

from bcd_bench_baselines.common.blocks import ConvBlock, DownBlock, Residual

__all__ = ["AppearanceExtractor"]

CHANNELS, DEPTH = 32, 16


class AppearanceExtractor(nn.Module):
    """RGB [B, 3, 256, 256] in 0..1 -> features [B, 32, 16, 64, 64] (channel, depth, row, column)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvBlock(3, 64)
        self.down_blocks = nn.ModuleList([DownBlock(64, 128), DownBlock(128, 256)])
        self.second = nn.Conv2d(256, CHANNELS * DEPTH, 1)
        self.resblocks_3d = nn.Sequential()
        for index in range(6):
            self.resblocks_3d.add_module(f"3dr{index}", Residual(CHANNELS, dims=3))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        volume: Tensor = self.resblocks_3d(self.second(x).unflatten(1, (CHANNELS, DEPTH)))
        return volume
