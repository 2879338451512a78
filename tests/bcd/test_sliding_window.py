"""Clips longer than the model's window: where windows stand, how they blend, and that nobody else changes a clip."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench_bcd.configs import SamplerConfig
from bcd_bench_bcd.model import BCD, to_unit
from bcd_bench_bcd.windows import blended, shares, window_starts
from tests.bcd.conftest import BlockClips
from tests.bcd.test_model import tiny_model

SAMPLER = SamplerConfig(name="euler", steps=2, guidance=1.0, sigma_min=0.3, sigma_max=20.0)
HEADS_LIKE: dict[str, Any] = {
    "model.encoder.stem": "conv",
    "model.encoder.width": 32,
    "model.decoder.skip_static_patches": False,
    "model.window": 4,
}


def long_clips(count: int, frames: int) -> torch.Tensor:
    clips = BlockClips().clips(range(count))
    return to_unit(torch.from_numpy(np.concatenate([clips] * (-(-frames // 8)), 1)[:, :frames]))


@pytest.fixture(scope="module")
def model() -> BCD:
    return tiny_model(**HEADS_LIKE)


@pytest.mark.parametrize("frames", [1, 4, 5, 6, 9, 12, 25, 50])
@pytest.mark.parametrize("window", [2, 3, 4, 8])
def test_windows_cover_every_frame_and_overlap_by_half(frames: int, window: int) -> None:
    starts = window_starts(frames, window)
    covered = {t for start in starts for t in range(start, min(start + window, frames))}
    assert covered == set(range(frames))
    assert all(0 < after - before <= max(1, window // 2) for before, after in pairwise(starts))
    assert starts[-1] + window == frames or frames <= window


@pytest.mark.parametrize("window", [None, 2, 5, 8])
def test_blending_what_windows_agree_on_changes_nothing(window: int | None) -> None:
    whole = torch.randn(2, 23, 3, generator=torch.Generator().manual_seed(0))
    lengths = []

    def part(here: slice) -> torch.Tensor:
        lengths.append(here.stop - here.start)
        return whole[:, here]

    torch.testing.assert_close(blended(23, window, part), whole)
    assert max(lengths) == (window or 23)


def test_blending_fades_between_windows_that_differ() -> None:
    """Two windows over six frames that say 0 and 1: what comes out climbs without a jump."""
    said = iter((0.0, 1.0))
    result = blended(6, 4, lambda here: torch.full((1, here.stop - here.start, 1), next(said))).flatten()
    assert result.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 25, 250])
def test_shares_deal_out_every_frame_once(frames: int) -> None:
    dealt = [list(range(frames))[share] for share in shares(frames, 8)]
    assert sorted(t for share in dealt for t in share) == list(range(frames))
    assert max(map(len, dealt)) <= 8
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert shares(frames, None) == [slice(0, None, 1)]


@torch.inference_mode()
def test_a_clip_that_fits_the_window_is_coded_as_without_one(model: BCD) -> None:
    free = tiny_model(**{**HEADS_LIKE, "model.window": None})
    clip = long_clips(2, 4)
    assert torch.equal(model.encode(clip).latents, free.encode(clip).latents)
    assert torch.equal(model.encode(clip).content, free.encode(clip).content)
    assert torch.equal(model.encode_content(clip), model.encode(clip).content)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [3, 11])
def test_motion_alone_is_that_of_the_whole_encoding(model: BCD, frames: int) -> None:
    clip = long_clips(2, frames)
    alone, whole = model.encode_motion(clip), model.encode(clip).quantized
    assert torch.equal(alone.codes, whole.codes)
    assert torch.equal(alone.motion, whole.motion)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 5, 15, 20])
def test_content_comes_from_any_number_of_frames(model: BCD, frames: int) -> None:
    clip = long_clips(1, frames)
    content = model.encode_content(clip)
    assert content.shape == (1, 16, 8)
    assert torch.equal(content, model.encode(clip).content)
    looped = long_clips(1, 8)
    twice = torch.cat([looped, looped], 1)  # no frame is new
    torch.testing.assert_close(model.encode_content(twice), model.encode_content(looped), atol=0.3, rtol=0.1)


@torch.inference_mode()
def test_long_clips_decode_alike_alone_and_in_a_batch_and_without_seams(model: BCD) -> None:
    clips = long_clips(2, 11)
    encoded = model.encode(clips)
    assert encoded.quantized.codes.shape[:2] == (2, 11)
    noise = torch.randn((2, *model.noise_shape(11)), generator=torch.Generator().manual_seed(1))
    both = model.decode(encoded.content, encoded.quantized.motion, SAMPLER, noise)
    alone = model.decode(encoded.content[:1], encoded.quantized.motion[:1], SAMPLER, noise[:1])
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=0)
    # A clip that stands still, drawn from the same noise in every frame, stands still across every border.
    still = encoded.quantized.motion[:1, :1].expand(-1, 11, -1)
    frames = model.decode(encoded.content[:1], still, SAMPLER, noise[:1, :1].expand(-1, 11, -1, -1))
    torch.testing.assert_close(frames, frames[:, :1].expand_as(frames), atol=1e-4, rtol=0)
