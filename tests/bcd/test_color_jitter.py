"""Halves in colours of their own: the maps, and that codes are trained to draw the content's colours."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bcd_bench_bcd.extensions.base import Extension
from bcd_bench_bcd.extensions.color_jitter import UNCHANGED, ColorJitter, apply_colors, random_colors
from bcd_bench_bcd.extensions.content_frame_dropout import ContentFrameDropout
from bcd_bench_bcd.extensions.loss import extended_loss
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.paper.config import ObjectiveConfig
from tests.bcd.conftest import frames, tiny_model, with_only


def test_no_strength_changes_no_colour() -> None:
    clips = tiny_model().values(frames(4))
    colours = random_colors(4, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(apply_colors(clips, colours), clips, atol=1e-5, rtol=0)


def test_colours_differ_between_clips_stay_in_range_and_leave_a_quarter_alone() -> None:
    colours = random_colors(400, 1.0, torch.Generator().manual_seed(0))
    alone = (colours == torch.cat([torch.eye(3), torch.zeros(3, 1)], 1)).all(2).all(1)
    assert abs(alone.float().mean() - UNCHANGED) < 0.08
    assert len(colours[~alone].unique(dim=0)) == int((~alone).sum())
    clips = torch.rand((400, 1, 3, 2, 2), generator=torch.Generator().manual_seed(1)) * 2 - 1
    changed = apply_colors(clips, colours)
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert torch.allclose(changed[alone], clips[alone], atol=1e-6)
    assert 0.1 < (changed - clips)[~alone].abs().mean() < 0.6


@pytest.mark.parametrize("halves", [None, "random", "both"])
@pytest.mark.parametrize("few", [False, True])
def test_the_loss_asks_for_the_driving_half_in_the_colours_of_the_content(halves: Any, few: bool) -> None:
    model, clips, asked = tiny_model().train(), frames(2), []
    keep = model.decoder.patchify
    model.decoder.patchify = lambda x: asked.append(x) or keep(x)  # type: ignore[method-assign, func-returns-value]
    more: list[Extension] = [ColorJitter(strength=1.0)]
    more += [SymmetricHalves(mode=halves)] if halves else []
    more += [ContentFrameDropout(probability=1.0)] if few else []
    losses = extended_loss(
        model,
        clips,
        ObjectiveConfig(),
        with_only(model, *more),
        tau=1.0,
        step=0,
        rng=torch.Generator().manual_seed(5),
    )
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    parts = torch.cat(model.values(clips).split(4, 1))
    assert asked[0].shape[0] == (4 if halves == "both" else 2)
    assert not any(torch.equal(one, half) for one in asked[0][:1] for half in parts)
