"""The operators of StyleGAN2 (Karras et al., 2020) used by LIA: equalised, modulated and filtered layers.

Layers are named as in the published checkpoints, so that a state dict loads strictly. All operators accept batches of
images, each with a separate latent.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Blur",
    "EqualConv2d",
    "EqualLinear",
    "ModulatedConv2d",
    "ScaledLeakyReLU",
    "Upsample",
    "blur_kernel",
    "filtered",
    "spread_weights",
    "upsampled",
]

TAPS = (1.0, 3.0, 3.0, 1.0)
SLOPE = 0.2
GAIN = math.sqrt(2)


def blur_kernel(total: float) -> Tensor:
    """The fixed filter [4, 4], whose entries sum to `total`."""
    line = torch.tensor(TAPS)
    return torch.outer(line, line) / line.sum() ** 2 * total


def filtered(x: Tensor, kernel: Tensor, padding: tuple[int, int]) -> Tensor:
    """Each channel of [B, C, H, W] convolved with `kernel` [K, K]; `padding` (before, after) zeros on each axis."""
    before, after = padding
    channels = x.shape[1]
    weight = kernel.flip(0, 1).to(x.dtype).expand(channels, 1, *kernel.shape)
    if before != after:
        x = F.pad(x, (before, after, before, after))
        before = 0
    return F.conv2d(x, weight, padding=before, groups=channels)


def upsampled(x: Tensor, kernel: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 2H, 2W]: zero insertion, then a 4 x 4 filter, with 2 zeros before and 1 after.

    Computed as a transposed convolution, which never touches the zeros.
    """
    weight = kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=x.shape[1])


class Blur(nn.Module):
    """A fixed low-pass filter; `total` is the sum of its kernel (4 after zero insertion)."""

    def __init__(self, padding: tuple[int, int], total: float = 1.0) -> None:
        super().__init__()
        self.padding = padding
        self.register_buffer("kernel", blur_kernel(total))
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.kernel, self.padding)


class Upsample(nn.Module):
    """Upsampling by two, by `upsampled`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", blur_kernel(4.0))
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return upsampled(x, self.kernel)


class ScaledLeakyReLU(nn.Module):
    """A bias per channel, then a leaky ReLU with slope 0.2, times the square root of 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.to(x.dtype), SLOPE) * GAIN


class EqualConv2d(nn.Module):
    """A convolution without bias whose weights have unit variance and are scaled by 1 / sqrt(fan-in) when used."""

    def __init__(self, inputs: int, outputs: int, side: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.scale = 1 / math.sqrt(inputs * side**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    """A linear layer whose weights are scaled by 1 / sqrt(fan-in) when used."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are weighted by a latent, separately for each sample.

    Modulating the weights, as in the paper, is equivalent to modulating the input and normalising the output (its Eq. 1
    and 3 are linear in the input channels); the latter needs no separate weights for each sample.
    """

    def __init__(
        self, inputs: int, outputs: int, side: int, latent: int, *, demodulate: bool = True, upsample: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, side, side))
        self.modulation = EqualLinear(latent, inputs, bias=1.0)
        self.scale = 1 / math.sqrt(inputs * side**2)
        self.demodulate, self.padding = demodulate, side // 2
        if upsample:
            self.blur = Blur((1, 1), total=4.0)
        self.upsample = upsample

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """x [B, C, H, W], latent [B, L] -> [B, D, H, W], or [B, D, 2H, 2W] with `upsample`."""
        style = self.modulation(latent)
        weight = self.weight[0] * self.scale
        x = x * style[:, :, None, None].to(x.dtype)
        if self.upsample:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if not self.demodulate:
            return x
        power = F.linear(style.float().square(), weight.float().square().sum(dim=(2, 3)))
        return x * torch.rsqrt(power + 1e-8)[:, :, None, None].to(x.dtype)


def spread_weights(network: nn.Module) -> None:
    """Rescale weights initialised as in ordinary layers, with variance 2 / fan-in, to the unit variance of equalised
    layers, and modulations to about 1."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, EqualConv2d | EqualLinear | ModulatedConv2d):
                fan_in = part.weight[0].numel() if part.weight.dim() < 5 else part.weight[0, 0].numel()
                part.weight.mul_(math.sqrt(fan_in / 2))
            if isinstance(part, ModulatedConv2d):
                part.modulation.bias.add_(1)
