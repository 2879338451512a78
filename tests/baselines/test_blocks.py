"""Blocks: folded they are the same functions, in 2-d and 3-d, and the hourglass has the widths of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bcd_bench_baselines.common.blocks import (
    AntiAlias,
    ConvBlock,
    DownBlock,
    FewOut,
    Hourglass,
    Residual,
    UpBlock,
    fold,
    gaussian_kernel,
)
from bcd_bench_baselines.common.fourier_conv import FourierConv3d
from bcd_bench_baselines.common.random_weights import fill_seeded

BLOCKS = {
    "conv": lambda dims: ConvBlock(3, 5, 7 if dims == 2 else 3, dims),
    "down": lambda dims: DownBlock(3, 5, dims),
    "up": lambda dims: UpBlock(3, 5, dims),
    "residual": lambda dims: Residual(3, dims),
    "hourglass": lambda dims: Hourglass(4, 3, 2, 8, dims),
    "hourglass with a last block": lambda dims: Hourglass(4, 3, 2, 8, dims, last=True),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", BLOCKS)
@torch.inference_mode()
def test_a_folded_block_is_the_same_function(name: str, dims: int) -> None:
    block = BLOCKS[name](dims).eval()
    fill_seeded({"block": block}, 1)
    x = torch.randn(2, 3, *(2, 8, 12)[-dims:], generator=torch.Generator().manual_seed(0))
    before = block(x)
    fold(block)
    after = block(x)
    norms = sum(isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d) for part in block.modules())
    assert norms == (name == "residual")  # its first norm comes before a ReLU and has to stay
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_few_outputs_row_by_row_are_the_same_convolution() -> None:
    layer = FewOut(4, 3, 7).eval()
    fill_seeded({"layer": layer}, 2)
    x = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    plain = nn.functional.conv2d(x, layer.weight, layer.bias, padding=3)
    torch.testing.assert_close(layer(x), plain)
    fold(layer)
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 3, 5), (4, 16, 33), (2, 40, 17)])  # smaller than a tile, and not of whole tiles
@torch.inference_mode()
def test_a_convolution_by_spectra_is_the_same(size: tuple[int, int, int]) -> None:
    layer = FourierConv3d(3, 2, 7)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    plain = layer(x)
    fold(layer)
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):  # sums are float32 whatever the products are elsewhere
        torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(x)[1:], layer(x[1:]))  # a volume's result does not depend on its company


def test_an_up_block_doubles_before_it_convolves() -> None:
    block = UpBlock(1, 1).eval()
    nn.init.constant_(block.conv.weight, 0)
    block.conv.weight.data[0, 0, 1, 0] = 1  # the pixel to the left
    nn.init.constant_(block.conv.bias, 0)
    x = torch.arange(1.0, 5).reshape(1, 1, 2, 2)
    expected = torch.tensor([[0, 1, 1, 2], [0, 1, 1, 2], [0, 3, 3, 4], [0, 3, 3, 4]]) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x)[0, 0].detach(), expected)
    fold(block)
    torch.testing.assert_close(block(x)[0, 0].detach(), expected)


def test_the_hourglass_has_the_widths_of_the_paper() -> None:
    glass = Hourglass(32, 3, 5, 1024)
    down = [block.conv.out_channels for block in glass.encoder.down_blocks]
    up = [(block.conv.in_channels, block.conv.out_channels) for block in glass.decoder.up_blocks]
    assert down == [64, 128, 256, 512, 1024]
    assert up == [(1024, 512), (1024, 256), (512, 128), (256, 64), (128, 32)]
    assert glass.channels_out == 35


def test_anti_aliasing_smooths_then_takes_every_fourth_pixel() -> None:
    layer = AntiAlias(1)
    layer.weight.copy_(gaussian_kernel(4, 1))
    kernel = layer.weight[0, 0]
    assert kernel.shape == (13, 13)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert float(kernel[6, 7] / kernel[6, 6]) == pytest.approx(torch.tensor(-1 / (2 * 1.5**2)).exp().item())
    x = torch.rand(1, 1, 16, 24)
    full = nn.functional.conv2d(x, layer.weight, padding=6)
    torch.testing.assert_close(layer(x), full[..., ::4, ::4])
