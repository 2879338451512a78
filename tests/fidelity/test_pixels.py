"""PSNR, SSIM and flicker: fixed values, other implementations, and outputs that cannot be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bcd_bench.plugin.protocols import Scored
from bcd_bench.testing.synthetic import practice_pairs
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.flicker import Flicker
from bcd_bench_fidelity.full_reference import TargetPSNR, TargetSSIM
from bcd_bench_fidelity.pixels import PSNR_CAP, psnr, ssim, temporal_differences
from tests.fidelity.make_golden import reference_ssim
from tests.fidelity.seeded import pictures

GREY = np.full((2, 16, 12, 3), 100, np.uint8)


@pytest.mark.parametrize(
    ("off", "decibels"),
    [(1, 48.1308036), (5, 34.1514035), (100, 8.1308036)],  # 20 log10(255 / off)
)
def test_psnr_of_a_constant_difference(off: int, decibels: float) -> None:
    assert psnr(GREY + np.uint8(off), GREY) == pytest.approx(decibels, abs=1e-6)


def test_psnr_takes_one_mean_over_the_clip_and_is_capped() -> None:
    half = GREY.copy()
    half[0] += 10
    assert psnr(half, GREY) == pytest.approx(10 * np.log10(255**2 / 50))
    assert psnr(GREY, GREY) == PSNR_CAP
    nearly = GREY.copy()
    nearly[0, 0, 0, 0] += 1
    assert psnr(nearly, GREY) == PSNR_CAP
    assert psnr(np.zeros_like(GREY), np.full_like(GREY, 255)) == 0


def _ssim_by_the_book(x: Any, y: Any) -> float:
    """Every window of one grey picture by itself, straight from the formulas."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11].astype(float), y[top : top + 11, left : left + 11].astype(float)
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
            )
    return float(np.mean(values))


def test_ssim_is_the_formula_averaged_over_channels_and_frames() -> None:
    one = pictures(2, 18, 15)
    other = np.roll(one, 1, axis=2)
    expected = np.mean([_ssim_by_the_book(one[t, ..., c], other[t, ..., c]) for t in range(2) for c in range(3)])
    assert ssim(one, other) == pytest.approx(expected, abs=1e-9)
    assert ssim(one, one) == pytest.approx(1)


def test_ssim_is_what_scikit_image_gives(golden: Mapping[str, Any]) -> None:
    one = pictures(3, 64, 48)
    other = np.roll(one, 1, axis=2)
    assert ssim(one, other) == pytest.approx(float(golden["ssim"]), abs=1e-7)


def test_ssim_is_what_the_installed_scikit_image_gives() -> None:
    pytest.importorskip("skimage.metrics", reason="scikit-image is not installed (extra 'parity')")
    one = pictures(3, 64, 48)
    worse = pictures(3, 64, 48, seed=5)
    assert ssim(one, worse) == pytest.approx(reference_ssim(one, worse), abs=1e-7)


def test_temporal_differences_of_known_frames() -> None:
    frames = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (10, 13, 3, 250)])
    assert temporal_differences(frames).tolist() == [3, 10, 247]
    assert temporal_differences(frames[:1]).shape == (0,)


def item(frames: Any, **changes: Any) -> Scored:
    """An output for a practice pair, whose target has 8 frames of 64 x 64."""
    return Scored(replace(practice_pairs(1)[0], **changes), Clip(frames, 8.0))


def test_rows_against_the_target() -> None:
    pair = practice_pairs(1)[0]
    assert pair.target is not None
    exact = pair.target.load().frames
    assert TargetPSNR().score([item(exact)]) == [{"target-psnr": PSNR_CAP}]
    assert TargetSSIM().score([item(exact)]) == [{"target-ssim": pytest.approx(1)}]
    assert TargetPSNR().score([item(exact[..., ::-1])])[0]["target-psnr"] < 30


def test_what_cannot_be_compared_is_failed_with_a_reason() -> None:
    small = np.zeros((8, 8, 8, 3), np.uint8)
    for metric in (TargetPSNR(), TargetSSIM()):
        assert metric.score([item(small)]) == [Failed("the output has shape [8, 8, 8, 3], its target [8, 64, 64, 3]")]
        assert metric.score([item(small, target=None)]) == [Failed("the suite has no target for this pair")]
    tiny = practice_pairs(1, size=(8, 8))[0]
    [failed] = TargetSSIM().score([Scored(tiny, Clip(small, 8.0))])
    assert failed == Failed("frames of 8 x 8 are smaller than the window of 11 x 11")
    assert Flicker().score([item(small[:3])]) == [Failed("the output has 3 frames, s0m0-8 has 8")]


def test_flicker_is_the_raw_number_and_its_distance_from_the_drivers() -> None:
    pair = practice_pairs(1)[0]
    assert pair.target is not None
    exact = pair.target.load().frames
    moving = temporal_differences(exact)
    [row] = Flicker().score([item(exact)])
    assert row == {"flicker": pytest.approx(moving.mean()), "flicker-error": 0}
    [still] = Flicker().score([item(np.repeat(exact[:1], 8, axis=0))])
    assert still == {"flicker": 0, "flicker-error": pytest.approx(moving.mean())}  # too little motion is an error too
    blinking = exact // 2
    blinking[::2] += 40
    [worse] = Flicker().score([item(blinking)])
    [much_worse] = Flicker().score([item(blinking // 2 * np.array([3, 1] * 4, np.uint8)[:, None, None, None])])
    assert 30 < worse["flicker-error"] < much_worse["flicker-error"]


def test_without_a_target_flicker_looks_at_the_motion_clip_and_one_frame_has_none() -> None:
    pair = practice_pairs(1)[0]
    [row] = Flicker().score([item(pair.motion.load().frames, target=None)])
    assert row["flicker-error"] == 0
    single = practice_pairs(1, frames=1)[0]
    [none] = Flicker().score([Scored(single, Clip(np.zeros((1, 64, 64, 3), np.uint8), 8.0))])
    assert none == {"flicker": None, "flicker-error": None}
