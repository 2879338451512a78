"""F of LivePortrait: an image to a volume of features. Parameters as in `appearance_feature_extractor.pth`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AppearanceExtractor"]

CHANNELS, DEPTH = 32, 16


class ConvBlock(nn.Module):
    """Convolution 3 x 3, batch norm, ReLU; half the size where `down`."""

    def __init__(self, inputs: int, outputs: int, *, down: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return F.avg_pool2d(x, 2) if self.down else x


class ResidualBlock3d(nn.Module):
    """Twice batch norm, ReLU, convolution 3 x 3 x 3; plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm3d(channels)
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(change)))


class AppearanceExtractor(nn.Module):
    """RGB [B, 3, 256, 256] in 0..1 -> features [B, 32, 16, 64, 64] (channel, depth, row, column)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvBlock(3, 64)
        self.down_blocks = nn.ModuleList([ConvBlock(64, 128, down=True), ConvBlock(128, 256, down=True)])
        self.second = nn.Conv2d(256, CHANNELS * DEPTH, 1)
        self.resblocks_3d = nn.Sequential()
        for index in range(6):
            self.resblocks_3d.add_module(f"3dr{index}", ResidualBlock3d(CHANNELS))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        volume: Tensor = self.resblocks_3d(self.second(x).unflatten(1, (CHANNELS, DEPTH)))
        return volume
