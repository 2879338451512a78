"""AlexNet as in LPIPS and ST-LPIPS, and the distance of two pictures by its features.

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018; Ghildyal and Liu,
"Shift-tolerant perceptual similarity metric", ECCV 2022. Both use the features after the five ReLUs, scale those of
every position to unit length, weight the squared differences of the channels, average over positions and add the
layers up. The shift-tolerant network has strides of one, followed by a blur with stride two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from bcd_bench.types.errors import UsageError

__all__ = ["CHANNELS", "Blur", "PerceptualDistance", "lpips_network", "st_lpips_network"]

CHANNELS: Final = (64, 192, 384, 256, 256)
"""Channels of the five layers that are compared."""
SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for pixels in -1..1, per colour channel."""
TINY: Final = 1e-10
"""Added to the length of a feature vector before the division."""


class Blur(nn.Module):
    """A binomial filter of 3 x 3 on every channel, with stride 2, on the picture extended by two mirrored pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filter", (torch.outer(line, line) / 16).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
        kernel = self.get_buffer("filter")
        return functional.conv2d(padded, kernel, stride=2, groups=len(kernel))


def _plain() -> Sequence[nn.Sequential]:
    """AlexNet's convolutions with what precedes and follows each."""
    first, second, third, fourth, fifth = _convolutions(stride=4)
    return (
        nn.Sequential(first, nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 2), second, nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 2), third, nn.ReLU()),
        nn.Sequential(fourth, nn.ReLU()),
        nn.Sequential(fifth, nn.ReLU()),
    )


def _shift_tolerant() -> Sequence[nn.Sequential]:
    first, second, third, fourth, fifth = _convolutions(stride=1)
    return (
        nn.Sequential(first, Blur(64), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 1), Blur(64), second, nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 1), Blur(192), third, nn.ReLU()),
        nn.Sequential(fourth, nn.ReLU()),
        nn.Sequential(fifth, nn.ReLU()),
    )


def _convolutions(stride: int) -> Sequence[nn.Conv2d]:
    one, two, three, four, five = CHANNELS
    return (
        nn.Conv2d(3, one, 11, stride, 2),
        nn.Conv2d(one, two, 5, padding=2),
        nn.Conv2d(two, three, 3, padding=1),
        nn.Conv2d(three, four, 3, padding=1),
        nn.Conv2d(four, five, 3, padding=1),
    )


class PerceptualDistance(nn.Module):
    """Two batches of pictures, float32[B, 3, H, W] in -1..1 -> distances float32[B]."""

    def __init__(self, stages: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in CHANNELS)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The features of the five layers, float32[B, C, H', W'], with unit length at every position."""
        x = (pictures - self.get_buffer("shift")) / self.get_buffer("scale")
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + TINY))
        return found

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        total = one.new_zeros(len(one))
        for head, a, b in zip(self.heads, self.features(one), self.features(other), strict=True):
            total = total + head((a - b).square()).mean((1, 2, 3))
        return total


def lpips_network(backbone: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> PerceptualDistance:
    """LPIPS with the weights of torchvision's AlexNet and of the file `alex.pth` of LPIPS. Raises `UsageError`."""
    network = PerceptualDistance(_plain())
    names = [f"features.{index}" for index in (0, 3, 6, 8, 10)]
    return _loaded(network, backbone, names, heads)


def st_lpips_network(weights: Mapping[str, Tensor]) -> PerceptualDistance:
    """ST-LPIPS with the weights of the file `alex_shift_tolerant.pth`. Raises `UsageError`."""
    network = PerceptualDistance(_shift_tolerant())
    names = [f"net.slice{stage}.{index}" for stage, index in ((1, 0), (2, 5), (3, 9), (4, 11), (5, 13))]
    return _loaded(network, weights, names, weights)


def _loaded(
    network: PerceptualDistance, weights: Mapping[str, Tensor], names: Sequence[str], heads: Mapping[str, Tensor]
) -> PerceptualDistance:
    """The network with the convolutions called `names` and the weights of the layers, ready for inference."""
    convolutions = [name for name, module in network.stages.named_modules() if isinstance(module, nn.Conv2d)]
    state = dict(network.named_buffers())
    try:
        for ours, theirs in zip(convolutions, names, strict=True):
            for part in ("weight", "bias"):
                state[f"stages.{ours}.{part}"] = weights[f"{theirs}.{part}"].float()
        for index in range(len(CHANNELS)):
            state[f"heads.{index}.weight"] = heads[f"lin{index}.model.1.weight"].float()
        network.load_state_dict(state, strict=True)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights are not those of the perceptual metric: {reason}") from error
    network.requires_grad_(False).eval()
    return network
