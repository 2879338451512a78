"""The hypernetwork: predicts changes of the generator's weights from a face's appearance and another's pose.

Parameters are named as in the published `hypernetwork.pt`, without `hypernet.`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SHARED", "TUNED", "Hypernetwork"]

SHARED = (0, 2, 3, 5, 6, 8, 9)
"""Layers of the generator with 512 input and output channels, whose changes come from one shared pair of matrices."""
TUNED = {11: (256, 512), 12: (256, 256), 14: (128, 256), 15: (128, 128), 17: (64, 128), 18: (64, 64)}
"""Layers with separate heads: output and input channels."""


class _Spade(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_gamma, self.conv_beta = nn.Conv2d(512, 512, 1), nn.Conv2d(512, 512, 1)


class _Blend(nn.Module):
    """Blend pose and appearance, each [B, 512, 7, 7], by products of 7 x 7 matrices, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.spade_pose, self.spade_app = _Spade(), _Spade()

    def forward(self, pose: Tensor, appearance: Tensor) -> Tensor:
        product = self.spade_pose.conv_gamma(pose) @ pose + self.spade_app.conv_gamma(appearance) @ appearance
        return product + self.spade_pose.conv_beta(pose) + self.spade_app.conv_beta(appearance)


class _SharedMatrices(nn.Module):
    """A code [B, 512] -> a change [B, 512, 512] (out, in)."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.zeros(512, 512)), nn.Parameter(torch.zeros(512))
        self.w2, self.b2 = nn.Parameter(torch.zeros(512, 512 * 512)), nn.Parameter(torch.zeros(512 * 512))

    def forward(self, code: Tensor) -> Tensor:
        return (code @ self.w2 + self.b2).view(-1, 512, 512) @ self.w1 + self.b1


class _Refinement(nn.Module):
    """Features [B, 512, 7, 7] -> the change [B, out, in] of one layer."""

    def __init__(self, width: int, shared: _SharedMatrices | None, shape: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, padding in ((512, width, 1), (width, width, 0), (width, width, 0), (width, 512, 0)):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, padding), nn.LeakyReLU(0.01)]
        self.convs, self.shape = nn.Sequential(*layers), shape
        if shared is None:
            self.output = nn.Conv2d(512, shape[0] * shape[1], 1)
        else:
            self.linear, self.hypernet = nn.Linear(512, 512), shared

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x)
        if hasattr(self, "output"):
            change: Tensor = self.output(x).view(-1, *self.shape)
        else:
            change = self.hypernet(self.linear(x.flatten(1)))
        return change


class Hypernetwork(nn.Module):
    """Predicts changes of the generator's layers, each [B, out, in], the same for all taps of a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_transf = nn.Conv2d(2048, 512, 1)
        self.blend_module = _Blend()
        self.shared_weight_hypernet = _SharedMatrices()
        blocks = {str(i): _Refinement(128, self.shared_weight_hypernet, (512, 512)) for i in SHARED}
        blocks |= {str(layer): _Refinement(256, None, shape) for layer, shape in TUNED.items()}
        self.refinement_blocks = nn.ModuleDict(blocks)

    def combined(self, pose: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """Pose features [B, 2048, 7, 7] reduced to 512 channels, and these blended with appearance [B, 512, 7, 7]."""
        narrow = self.conv_transf(pose)
        return narrow, self.blend_module(narrow, appearance.expand(len(narrow), -1, -1, -1))

    def forward(self, pose: Tensor, appearance: Tensor) -> dict[int, Tensor]:
        """Layer of the generator -> its change. `appearance` may belong to a single face for all poses."""
        _, features = self.combined(pose, appearance)
        return {int(layer): block(features) for layer, block in self.refinement_blocks.items()}
