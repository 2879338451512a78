"""G of LivePortrait: warped features to an image. Parameters as in `spade_generator.pth`.

Its normalisation is SPADE (Park et al., 2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SpadeGenerator", "SpectralConv2d"]

SLOPE = 0.2


class SpectralConv2d(nn.Module):
    """A convolution whose weight is divided by its spectral norm u' W v, using the stored vectors u and v.

    The vectors are used unchanged: in evaluation mode they are never re-estimated, and they give the norm that the
    network was trained with.
    """

    def __init__(self, inputs: int, outputs: int, side: int = 3, *, bias: bool = True) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.register_buffer("weight_u", torch.empty(outputs))
        self.register_buffer("weight_v", torch.empty(inputs * side**2))
        self.weight_u: Tensor
        self.weight_v: Tensor
        self.padding = side // 2
        self.folded = False

    def weight(self) -> Tensor:
        """The normalised weight of the convolution."""
        if self.folded:
            return self.weight_orig
        u, v, matrix = self.weight_u.double(), self.weight_v.double(), self.weight_orig.flatten(1).double()
        return (self.weight_orig.double() / torch.dot(u, matrix @ v)).float()

    def fold(self) -> None:
        """Divide the weight by the norm permanently."""
        self.weight_orig = nn.Parameter(self.weight().detach(), requires_grad=False)
        self.folded = True

    def estimate(self, steps: int = 5) -> None:
        """Estimate the vectors by power iteration, for weights without stored vectors."""
        matrix = self.weight_orig.detach().flatten(1)
        for _ in range(steps):
            self.weight_v = F.normalize(matrix.mT @ self.weight_u, dim=0)
            self.weight_u = F.normalize(matrix @ self.weight_v, dim=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.bias, padding=self.padding)


class SPADE(nn.Module):
    """Instance norm whose scale and shift are predicted from the condition."""

    def __init__(self, channels: int, condition: int = 256, hidden: int = 128) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(condition, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(condition, size=x.shape[2:], mode="nearest"))
        return F.instance_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SpadeBlock(nn.Module):
    """A residual block of two normalised convolutions, with a 1 x 1 convolution in the shortcut if the width
    changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.conv_0 = SpectralConv2d(inputs, middle)
        self.conv_1 = SpectralConv2d(middle, outputs)
        self.norm_0 = SPADE(inputs)
        self.norm_1 = SPADE(middle)
        self.learned = inputs != outputs
        if self.learned:
            self.conv_s = SpectralConv2d(inputs, outputs, 1, bias=False)
            self.norm_s = SPADE(inputs)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, condition)) if self.learned else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, condition), SLOPE))
        out: Tensor = shortcut + self.conv_1(F.leaky_relu(self.norm_1(x, condition), SLOPE))
        return out


class SpadeGenerator(nn.Module):
    """Warped features [B, 256, 64, 64] -> RGB [B, 3, 512, 512] in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(256, 512, 3, padding=1)
        for index in range(6):
            self.add_module(f"G_middle_{index}", SpadeBlock(512, 512))
        self.up_0 = SpadeBlock(512, 256)
        self.up_1 = SpadeBlock(256, 64)
        self.conv_img = nn.Sequential(nn.Conv2d(64, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        x = self.fc(features)
        for index in range(6):
            x = getattr(self, f"G_middle_{index}")(x, features)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2, mode="nearest"), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, SLOPE)).float())
