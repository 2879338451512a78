"""Encoder, decoder and the whole: shapes, and what depends on what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.latents.frame_codec import to_frames
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.paper.model import BCD
from tests.bcd.conftest import frames, tiny_fit, tiny_model


def encoded(model: BCD, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Content and quantised motion of frames, as at inference."""
    values = model.values(clips)
    return model.encode_content(values), model.encode_motion(values).motion


def test_frames_survive_the_unit_range() -> None:
    every, model = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 1, 16, 16, 3), tiny_model()
    assert torch.equal(to_frames(model.values(every)), every)
    assert model.values(every).min() == -1
    assert model.values(every).max() == 1


def test_patches_come_back_and_the_rest_is_black() -> None:
    model = tiny_model()
    x = model.values(frames())
    assert torch.equal(model.decoder.unpatchify(model.decoder.patchify(x)), x)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    kept = model.decoder.unpatchify(model.decoder.patchify(noise))
    assert torch.equal(kept[..., 8:16, :24], noise[..., 8:16, :24])  # patches 4, 5 and 6
    kept[..., 8:16, :24] = -1
    assert (kept == -1).all()
    whole = tiny_model(**{"extensions.patch_skipping": None})
    assert len(whole.decoder.active) == 16
    assert torch.equal(whole.decoder.unpatchify(whole.decoder.patchify(noise)), noise)


@pytest.mark.parametrize("content", [None, {}])
def test_motion_acts_on_its_frame_and_content_on_all(content: Any) -> None:
    model = tiny_model(**{"extensions.content_channels": content, "model.decoder.temporal_blocks": []})
    tokens, motion = encoded(model, frames(1))
    x, noise = torch.randn(1, *model.noise_shape(8)), torch.zeros(1)
    before = model.decoder(x, noise, tokens, motion)
    other = motion.clone()
    other[:, 3] += 1.0
    changed = (model.decoder(x, noise, tokens, other) - before).abs().amax((0, 2, 3))
    assert (changed > 0).tolist() == [False] * 3 + [True] + [False] * 4
    elsewhere = model.decoder(x, noise, tokens + 1.0, motion)
    assert ((elsewhere - before).abs().amax((0, 2, 3)) > 0).all()


def test_temporal_blocks_carry_motion_over_frames_and_start_as_identity() -> None:
    torch.manual_seed(0)
    fresh = tiny_fit().build().eval()
    x = torch.randn(2, 8, 3, 32)
    assert torch.equal(fresh.decoder.temporal["1"](x, torch.randn(2, 8, 32), over_time=True), x)
    model = tiny_model()
    content, motion = encoded(model, frames(1))
    noisy = torch.randn(1, *model.noise_shape(8))
    before = model.decoder(noisy, torch.zeros(1), content, motion)
    motion = motion.clone()
    motion[:, 3] += 1.0
    after = model.decoder(noisy, torch.zeros(1), content, motion)
    assert ((after - before).abs().amax((0, 2, 3)) > 0).all()


def test_dropped_conditions_do_not_matter() -> None:
    model = tiny_model()
    x, drop = torch.randn(2, *model.noise_shape(8)), torch.tensor([True, True])
    first, second = (
        model.decoder(x, torch.zeros(2), *encoded(model, clips), drop, drop) for clips in (frames(2), frames(4)[2:])
    )
    assert torch.equal(first, second)


def test_guidance_combines_null_and_condition() -> None:
    model = tiny_model()
    content, motion = encoded(model, frames(2))
    noise = torch.randn(2, *model.noise_shape(8), generator=torch.Generator().manual_seed(0))
    config = SamplerConfig(name="euler", steps=1, guidance=1.5, sigma_max=4.0)
    sigma = torch.full((2,), 4.0)
    keep = torch.tensor([True, True])
    conditional = model.denoise(4 * noise, sigma, content, motion)
    null = model.denoise(4 * noise, sigma, content, motion, keep, keep)
    expected = model.decoder.unpatchify(null + 1.5 * (conditional - null))
    got = model.sample(content, motion, config, noise)
    assert torch.allclose(got, expected, atol=1e-4)


def test_content_does_not_depend_on_how_many_frames_there_are_to_fit() -> None:
    model = tiny_model()
    for count in (1, 4, 8):
        values = model.values(frames(1)[:, :count])
        assert model.encode_content(values).shape == (1, 3, 8)
        assert model.encode_motion(values).codes.shape == (1, count, 1)


def test_some_patches_get_what_all_patches_would_get_without_attention() -> None:
    model = tiny_model()
    for block in model.decoder.transformer_blocks():
        torch.nn.init.zeros_(block.attention.out.weight)  # type: ignore[union-attr]  # then patches do not see each other
        torch.nn.init.zeros_(block.attention.out.bias)  # type: ignore[union-attr]
    conditions = (torch.zeros(2), *encoded(model, frames(2)))
    x, index = torch.randn(2, *model.noise_shape(8)), torch.tensor([2, 0])
    whole = model.decoder(x, *conditions)
    some = model.decoder(x[:, :, index], *conditions, patch_index=index)
    assert torch.allclose(some, whole[:, :, index], atol=1e-5)


def test_a_model_without_a_canonical_map_warps_nothing() -> None:
    model = tiny_model()
    assert isinstance(model, ExtendedBCD)
    assert model.warp(*encoded(model, frames(1))) is None
    assert torch.equal(*(model.encode(model.values(frames(1)), canonical=c)[0] for c in (True, False)))
