"""Frames to tensors and back, and the resize of the originals against SciPy's parts of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from bcd_bench_baselines.common.tensors import resize, to_uint8, to_unit


@pytest.mark.parametrize(
    ("have", "wanted"), [((20, 31), (64, 64)), ((90, 64), (32, 40)), ((33, 33), (32, 50)), ((1, 9), (4, 9))]
)
def test_resize_is_gaussian_then_bilinear_with_mirrored_borders(have: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(have)
    factors = [a / b for a, b in zip(have, wanted, strict=True)]
    smooth = ndimage.gaussian_filter(image, [max(0, (f - 1) / 2) for f in factors], mode="mirror")
    expected = ndimage.zoom(smooth, [1 / f for f in factors], order=1, mode="mirror", grid_mode=True)
    found = resize(torch.from_numpy(image), wanted).numpy()
    assert found.shape == wanted
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_values_survive_the_way_there_and_back() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    values = to_unit(frames, (8, 12))
    assert values.dtype == torch.float32
    np.testing.assert_array_equal(values.permute(0, 2, 3, 1).numpy(), np.float32(frames / 255.0))
    np.testing.assert_array_equal(to_uint8(values, (8, 12)), frames)


def test_outputs_are_rounded_clipped_and_resized() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.7]).reshape(1, 1, 2, 3).repeat(1, 3, 1, 1)
    np.testing.assert_array_equal(to_uint8(values, (2, 3))[0, ..., 0], [[0, 0, 0], [1, 255, 255]])
    assert to_uint8(values, (5, 7)).shape == (1, 5, 7, 3)
