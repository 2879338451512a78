"""The operators of StyleGAN2 against plain statements of what they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from bcd_bench_baselines.common.stylegan2 import (
    Blur,
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    ScaledLeakyReLU,
    Upsample,
    blur_kernel,
    filtered,
    spread_weights,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def test_the_fixed_filter_is_binomial_and_sums_to_what_is_asked() -> None:
    kernel = blur_kernel(4.0)
    assert kernel.sum().item() == pytest.approx(4)
    np.testing.assert_allclose(kernel[1] / kernel[0, 0], [3, 9, 9, 3])


@pytest.mark.parametrize("padding", [(1, 1), (2, 2), (2, 1)])
def test_filtering_is_convolution_after_zero_padding(padding: tuple[int, int]) -> None:
    x, kernel = torch.randn(2, 3, 9, 8, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    got = filtered(x, kernel, padding)
    for sample in range(2):
        for channel in range(3):
            padded = np.pad(x[sample, channel], [padding, padding])
            np.testing.assert_allclose(got[sample, channel], convolve2d(padded, kernel, mode="valid"), atol=1e-12)


def test_upsampling_is_zero_insertion_and_filtering() -> None:
    x = torch.randn(2, 3, 5, 6)
    holes = np.zeros((2, 3, 10, 12))
    holes[:, :, ::2, ::2] = x
    padded = np.pad(holes, [(0, 0), (0, 0), (2, 1), (2, 1)])
    up = Upsample()
    wanted = [[convolve2d(channel, up.kernel, mode="valid") for channel in sample] for sample in padded]
    np.testing.assert_allclose(up(x), wanted, atol=1e-6)
    assert torch.allclose(up(torch.ones(1, 1, 8, 8))[..., 2:-2, 2:-2], torch.ones(1))  # what is flat stays so


@pytest.mark.parametrize(("side", "upsample", "demodulate"), [(3, False, True), (3, True, True), (1, False, False)])
def test_modulated_convolution_is_one_convolution_a_sample(side: int, upsample: bool, demodulate: bool) -> None:
    layer = ModulatedConv2d(6, 4, side, latent=5, demodulate=demodulate, upsample=upsample)
    x, latent = torch.randn(3, 6, 7, 7), torch.randn(3, 5)
    wanted = []
    for sample, code in zip(x, latent, strict=True):
        style = layer.modulation.bias + layer.modulation.weight @ code / math.sqrt(5)
        weight = layer.weight[0] / math.sqrt(6 * side**2) * style[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if upsample:
            doubled = F.conv_transpose2d(sample[None], weight.transpose(0, 1), stride=2)
            wanted.append(filtered(doubled, blur_kernel(4.0), (1, 1)))
        else:
            wanted.append(F.conv2d(sample[None], weight, padding=side // 2))
    got = layer(x, latent)
    assert got.shape == (3, 4, *((14, 14) if upsample else (7, 7)))
    torch.testing.assert_close(got, torch.cat(wanted), rtol=1e-4, atol=1e-5)


def test_demodulated_features_keep_their_variance_whatever_the_style() -> None:
    layer = ModulatedConv2d(64, 32, 3, latent=8)
    x = torch.randn(4, 64, 16, 16)
    for strength in (0.1, 10.0):
        inner = layer(x, strength * torch.randn(4, 8))[..., 1:-1, 1:-1]
        assert inner.std().item() == pytest.approx(1, abs=0.1)


def test_equalised_layers_divide_by_the_root_of_the_fan_in() -> None:
    conv, linear, x = EqualConv2d(4, 3, 3, stride=2, padding=1), EqualLinear(4, 3, bias=0.5), torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, stride=2, padding=1) / 6)
    torch.testing.assert_close(linear(x[..., 0, 0]), x[..., 0, 0] @ linear.weight.T / 2 + 0.5)


def test_activation_keeps_the_scale() -> None:
    values = ScaledLeakyReLU(1)(torch.tensor([[[[-1.0, 2.0]]]]))
    np.testing.assert_allclose(values.detach().flatten(), [-0.2 * math.sqrt(2), 2 * math.sqrt(2)], rtol=1e-6)


def test_ordinary_weights_become_equalised_ones() -> None:
    layer = ModulatedConv2d(64, 64, 3, latent=32)
    with torch.no_grad():
        layer.weight.normal_(0, math.sqrt(2 / (64 * 9)))
        layer.modulation.weight.normal_(0, math.sqrt(2 / 32))
        layer.modulation.bias.zero_()
    spread_weights(torch.nn.Sequential(layer, Blur((1, 1))))
    assert layer.weight.std().item() == pytest.approx(1, rel=0.05)
    assert layer.modulation.weight.std().item() == pytest.approx(1, rel=0.1)
    assert layer.modulation.bias.eq(1).all()
