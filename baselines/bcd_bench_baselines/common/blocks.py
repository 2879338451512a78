"""Building blocks of first-order motion models and their descendants, in 2-D and 3-D, with the names of published
files.

Based on Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019, and its published weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = [
    "AntiAlias",
    "ConvBlock",
    "DownBlock",
    "FewOut",
    "Hourglass",
    "Residual",
    "UpBlock",
    "fold",
    "gaussian_kernel",
]

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _double(dims: int) -> tuple[int, ...]:
    """The scale factors of one resolution step; the depth of volumes does not change."""
    return (2, 2) if dims == 2 else (1, 2, 2)


class ConvBlock(nn.Module):
    """Convolution with the same output size, batch norm, ReLU: [B, C_in, *size] -> [B, C_out, *size]."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, dims: int = 2) -> None:
        super().__init__()
        self.conv: nn.Conv2d | nn.Conv3d = _CONV[dims](channels_in, channels_out, kernel, padding=kernel // 2)
        self.norm: nn.Module = _NORM[dims](channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)

    def fold(self) -> None:
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class DownBlock(ConvBlock):
    """A `ConvBlock` followed by 2 x 2 average pooling."""

    def __init__(self, channels_in: int, channels_out: int, dims: int = 2) -> None:
        super().__init__(channels_in, channels_out, 3, dims)
        self.factors = _double(dims)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.avg_pool2d if len(self.factors) == 2 else F.avg_pool3d
        return pool(super().forward(x), self.factors)


class UpBlock(ConvBlock):
    """Nearest-neighbour upsampling by two in height and width, followed by a `ConvBlock`.

    When folded, the upsampled map is never computed: each of its four phases depends on 2 x 2 pixels of the small one,
    through sums of the kernel's rows and columns, which takes 16 instead of 36 products per pixel.
    """

    def __init__(self, channels_in: int, channels_out: int, dims: int = 2) -> None:
        super().__init__(channels_in, channels_out, 3, dims)
        self.factors = _double(dims)
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.folded:
            return super().forward(F.interpolate(x, scale_factor=tuple(map(float, self.factors)), mode="nearest"))
        # with a border of one, row r of the result depends on the pixels r - 1 and r
        y = F.relu(self.conv(x), inplace=True).movedim(1, -1).unflatten(-1, (2, 2, -1))
        height, width = x.shape[-2:]
        rows = []
        for i in (0, 1):
            phases = [y[..., i : i + height, j : j + width, i, j, :] for j in (0, 1)]
            rows.append(torch.stack(phases, -2).flatten(-3, -2))
        return torch.stack(rows, -3).flatten(-4, -3).movedim(-1, 1)

    def fold(self) -> None:
        super().fold()
        plain, self.folded = self.conv, True
        side = plain.weight.shape[2:-2]  # of the depth, which is not upsampled
        self.conv = type(plain)(
            plain.in_channels,
            4 * plain.out_channels,
            (*side, 2, 2),
            padding=tuple(s // 2 for s in (*side, 2, 2)),
        )
        merge = plain.weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        kernels = torch.einsum("apr,o...rs,bqs->abo...pq", merge, plain.weight, merge)
        assert plain.bias is not None, "blocks have biases"
        self.conv.load_state_dict({"weight": kernels.flatten(0, 2), "bias": plain.bias.repeat(4)})
        self.conv.requires_grad_(False)


class FewOut(nn.Conv2d):
    """A large convolution with few output channels and the same output size, in float32 from the sum on.

    When folded, each row of the kernel has separate outputs, which are then shifted and added: with three outputs most
    of a machine's vector lanes are empty, with 7 x 3 they are full.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 7) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2)
        self.by_row: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.by_row is None:
            return super().forward(x).float()
        side, reach = self.kernel_size[0], self.kernel_size[0] // 2
        parts = F.conv2d(x, self.by_row, padding=(0, reach)).float()
        parts = F.pad(parts, (0, 0, reach, reach)).unflatten(1, (side, -1))
        assert self.bias is not None, "it has a bias"
        total = self.bias.float()[:, None, None] + parts[:, 0, :, : x.shape[-2]]
        for row in range(1, side):
            total = total + parts[:, row, :, row : row + x.shape[-2]]
        return total

    def fold(self) -> None:
        outs, ins, side, _ = self.weight.shape
        rows = self.weight.detach().permute(2, 0, 1, 3).reshape(side * outs, ins, 1, side)
        self.by_row = nn.Parameter(rows, requires_grad=False)


class Residual(nn.Module):
    """Batch norm, ReLU and 3 x 3 convolution, twice, added to the input."""

    def __init__(self, channels: int, dims: int = 2) -> None:
        super().__init__()
        self.conv1 = _CONV[dims](channels, channels, 3, padding=1)
        self.conv2 = _CONV[dims](channels, channels, 3, padding=1)
        self.norm1: nn.Module = _NORM[dims](channels)
        self.norm2: nn.Module = _NORM[dims](channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv1(F.relu(self.norm1(x), inplace=True)))
        return x + self.conv2(F.relu(inner, inplace=True))

    def fold(self) -> None:
        self.conv1, self.norm2 = fuse_conv_bn_eval(self.conv1, self.norm2), nn.Identity()


class _Encoder(nn.Module):
    def __init__(self, widths: Sequence[int], dims: int) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(DownBlock(a, b, dims) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class _Decoder(nn.Module):
    def __init__(self, ins: Sequence[int], outs: Sequence[int], dims: int, last: int | None) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList(UpBlock(a, b, dims) for a, b in zip(ins, outs, strict=True))
        self.conv: nn.Module = nn.Identity() if last is None else _CONV[dims](last, last, 3, padding=1)
        self.norm: nn.Module = nn.Identity() if last is None else _NORM[dims](last)
        self.last = last is not None

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            x = torch.cat([block(x), skip.to(x.dtype)], 1)
        return F.relu(self.norm(self.conv(x)), inplace=True) if self.last else x

    def fold(self) -> None:
        if self.last:
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Hourglass(nn.Module):
    """`blocks` down-sampling and as many up-sampling steps with skips: [B, channels_in, *size] -> [B, base +
    channels_in, *size].

    Widths are base * 2^i, at most `most`; the output of every up block is concatenated with the level of its size, the
    last with the input. With `last`, a final convolution, batch norm and ReLU follow (parameters `decoder.conv`,
    `.norm`).
    """

    def __init__(
        self, base: int, channels_in: int, blocks: int, most: int, dims: int = 2, *, last: bool = False
    ) -> None:
        super().__init__()
        widths = [channels_in, *(min(most, base * 2 ** (i + 1)) for i in range(blocks))]
        outs = [min(most, base * 2**i) for i in reversed(range(blocks))]
        ins = [widths[-1], *(out + skip for out, skip in zip(outs[:-1], widths[-2:0:-1], strict=True))]
        self.encoder = _Encoder(widths, dims)
        self.channels_out = base + channels_in
        self.decoder = _Decoder(ins, outs, dims, self.channels_out if last else None)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.decoder(self.encoder(x))
        return joined


class AntiAlias(nn.Module):
    """Every fourth pixel of a smoothed image: [B, C, H, W] -> [B, C, H / 4, W / 4]. The kernel is stored in the
    file."""

    STEP = 4

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        side = gaussian_kernel(self.STEP).shape[-1]
        self.register_buffer("weight", torch.empty(channels, 1, side, side))
        self.weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        side = self.weight.shape[-1]
        # compute only the selected pixels: a stride instead of a selection afterwards
        return F.conv2d(x, self.weight, stride=self.STEP, padding=side // 2, groups=len(self.weight))


def gaussian_kernel(step: int, channels: int = 3) -> Tensor:
    """float32[channels, 1, side, side]: the Gaussian before down-sampling by `step`, sigma (step - 1) / 2, sum 1."""
    sigma = (step - 1) / 2
    reach = round(4 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64, device="cpu") / sigma) ** 2)
    kernel = torch.outer(line, line)
    return (kernel / kernel.sum()).float().expand(channels, 1, -1, -1).contiguous()


def fold(module: nn.Module) -> None:
    """Make the blocks of a loaded network permanently faster: batch norms are fused into the preceding convolutions,
    and some convolutions are rewritten. The function is unchanged up to rounding; the state dict no longer matches the
    file.
    """
    for part in list(module.modules()):
        fold_part = getattr(part, "fold", None)
        if callable(fold_part):
            fold_part()
