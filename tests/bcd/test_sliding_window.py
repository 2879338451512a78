"""Clips longer than the model's window: where windows stand, how they blend, and that nobody else changes a clip."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.inference.sliding_window import overlap_add, strided_subsets, triangular_window, window_starts
from bcd_bench_bcd.paper.config import SamplerConfig
from tests.bcd.conftest import BlockClips, tiny_model

SAMPLER = SamplerConfig(name="euler", steps=2, guidance=1.0, sigma_min=0.3, sigma_max=20.0)
HEADS_LIKE: dict[str, Any] = {"extensions.conv_stem": {}, "extensions.patch_skipping": None}


@pytest.fixture(scope="module")
def model() -> ExtendedBCD:
    return tiny_model(**HEADS_LIKE)


@pytest.fixture
def windowed(model: ExtendedBCD) -> Pipeline:
    return Pipeline(model, window=4)


def long_clips(model: ExtendedBCD, count: int, frames: int) -> torch.Tensor:
    clips = BlockClips().clips(range(count))
    return model.values(torch.from_numpy(np.concatenate([clips] * (-(-frames // 8)), 1)[:, :frames]))


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

    torch.testing.assert_close(overlap_add(23, window, part), whole)
    assert max(lengths) == (window or 23)


def test_blending_fades_between_windows_that_differ() -> None:
    """Two windows over six frames that say 0 and 1: what comes out climbs without a jump."""
    said = iter((0.0, 1.0))
    result = overlap_add(6, 4, lambda here: torch.full((1, here.stop - here.start, 1), next(said))).flatten()
    assert result.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])


def test_the_weights_of_a_window_fall_towards_its_ends() -> None:
    assert triangular_window(5).tolist() == [1, 2, 3, 2, 1]
    assert triangular_window(4).tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 25, 250])
def test_subsets_deal_out_every_frame_once(frames: int) -> None:
    dealt = [list(range(frames))[subset] for subset in strided_subsets(frames, 8)]
    assert sorted(t for subset in dealt for t in subset) == list(range(frames))
    assert max(map(len, dealt)) <= 8
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert strided_subsets(frames, None) == [slice(0, None, 1)]


@torch.inference_mode()
def test_a_clip_that_fits_the_window_is_coded_as_without_one(model: ExtendedBCD, windowed: Pipeline) -> None:
    free, clip = Pipeline(model), long_clips(model, 2, 4)
    assert torch.equal(windowed.encode_motion(clip).motion, free.encode_motion(clip).motion)
    assert torch.equal(windowed.encode_content(clip), free.encode_content(clip))
    assert torch.equal(free.encode_motion(clip).motion, model.encode_motion(clip).motion)
    assert torch.equal(free.encode_content(clip), model.encode_content(clip))


@torch.inference_mode()
@pytest.mark.parametrize("frames", [3, 11])
def test_motion_alone_is_that_of_the_whole_encoding(model: ExtendedBCD, windowed: Pipeline, frames: int) -> None:
    clip = long_clips(model, 2, frames)
    latents = overlap_add(frames, 4, lambda here: model.encode(clip[:, here])[1])
    alone, whole = windowed.encode_motion(clip), model.quantizer(latents)
    assert torch.equal(alone.codes, whole.codes)
    assert torch.equal(alone.motion, whole.motion)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 5, 15, 20])
def test_content_comes_from_any_number_of_frames(model: ExtendedBCD, windowed: Pipeline, frames: int) -> None:
    clip = long_clips(model, 1, frames)
    content = windowed.encode_content(clip)
    assert content.shape == (1, 16, 8)
    count = -(-frames // 4)
    parts = [clip[:, first::count] for first in range(count)]
    by_hand = sum(model.content_mean(part) * part.shape[1] for part in parts) / frames
    torch.testing.assert_close(content, model.rounded(by_hand))
    looped = long_clips(model, 1, 8)
    twice = torch.cat([looped, looped], 1)  # no frame is new
    torch.testing.assert_close(windowed.encode_content(twice), windowed.encode_content(looped), atol=0.3, rtol=0.1)


@torch.inference_mode()
def test_content_of_windows_is_rounded_once_after_the_mean() -> None:
    model = tiny_model(**HEADS_LIKE)
    clip = long_clips(model, 4, 11)
    model.calibrate(model.encode(clip)[0])
    assert model.bottleneck is not None
    content = Pipeline(model, window=4).encode_content(clip)
    levels = (content - model.bottleneck.center) / model.bottleneck.step
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


@torch.inference_mode()
def test_long_clips_decode_alike_alone_and_in_a_batch_and_without_seams(model: ExtendedBCD, windowed: Pipeline) -> None:
    clips = long_clips(model, 2, 11)
    content, quantized = windowed.encode_content(clips), windowed.encode_motion(clips)
    assert quantized.codes.shape[:2] == (2, 11)
    noise = torch.randn((2, *model.noise_shape(11)), generator=torch.Generator().manual_seed(1))
    both = windowed.sample(content, quantized.motion, SAMPLER, noise)
    alone = windowed.sample(content[:1], quantized.motion[:1], SAMPLER, noise[:1])
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=0)
    # A clip that stands still, drawn from the same noise in every frame, stands still across every border.
    still = quantized.motion[:1, :1].expand(-1, 11, -1)
    frames = windowed.sample(content[:1], still, SAMPLER, noise[:1, :1].expand(-1, 11, -1, -1))
    torch.testing.assert_close(frames, frames[:, :1].expand_as(frames), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_without_windows_sampling_is_the_models_own(model: ExtendedBCD) -> None:
    clips, guided = long_clips(model, 2, 6), SAMPLER.model_copy(update={"guidance": 1.5})
    content, motion = model.encode_content(clips), model.encode_motion(clips).motion
    noise = torch.randn((2, *model.noise_shape(6)), generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        Pipeline(model).sample(content, motion, guided, noise), model.sample(content, motion, guided, noise)
    )
