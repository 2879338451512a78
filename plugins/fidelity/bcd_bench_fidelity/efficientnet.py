"""EfficientNet-Lite0 up to its last pooling, with batch normalisation fused into the weights.

Tan and Le, "EfficientNet", 2019, in the Lite variant published by Google with TensorFlow in 2020: ReLU6, no squeeze and
excitation. TensorFlow pads at the right and bottom first, which matters with a stride of two. Layers are named as in
the weights file.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BATCH_NORM_EPS", "EfficientNetLite0", "folds"]

BATCH_NORM_EPS = 1e-3

_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
"""Blocks, kernel, stride of the first block, expansion, output channels."""
_STEM, _HEAD = 32, 1280


class _Convolution(nn.Conv2d):
    """A convolution with a bias and TensorFlow's "SAME" padding: the odd pixel is padded at the right and bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        edges = [edge for size in (input.shape[3], input.shape[2]) for edge in self._edges(size)]
        return super().forward(functional.pad(input, edges) if any(edges) else input)

    def _edges(self, size: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class _Block(nn.Module):
    """Expand, depthwise convolution, project; the input is added if the shape does not change."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expanded = expansion != 1
        if self.expanded:
            self._expand_conv = _Convolution(inputs, width)
        self._depthwise_conv = _Convolution(width, width, kernel, stride, groups=width)
        self._project_conv = _Convolution(width, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.relu6(self._expand_conv(x)) if self.expanded else x
        y = functional.relu6(self._depthwise_conv(y))
        y = self._project_conv(y)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """float32[B, 3, 224, 224] as (0..255 - 127) / 128 -> float32[B, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, _STEM, 3, 2)
        blocks = []
        width = _STEM
        for count, kernel, stride, expansion, outputs in _STAGES:
            for number in range(count):
                blocks.append(_Block(width, outputs, kernel, stride if number == 0 else 1, expansion))
                width = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _Convolution(width, _HEAD)

    def forward(self, x: Tensor) -> Tensor:
        x = self._blocks(functional.relu6(self._conv_stem(x)))
        return functional.relu6(self._conv_head(x)).mean((2, 3))


def folds(network: EfficientNetLite0) -> Iterator[tuple[str, str, str]]:
    """(layer, its convolution, its batch normalisation) for every layer, by their names in the weights file."""
    yield "_conv_stem", "_conv_stem", "_bn0"
    for number, block in enumerate(network._blocks):
        normalised = iter(("_bn0", "_bn1", "_bn2") if block.expanded else ("_bn1", "_bn2"))
        for name, _ in block.named_children():
            layer = f"_blocks.{number}.{name}"
            yield layer, layer, f"_blocks.{number}.{next(normalised)}"
    yield "_conv_head", "_conv_head", "_bn1"
