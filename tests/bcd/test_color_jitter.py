"""Halves in colours of their own: the maps, and that codes are trained to draw the content's colours."""

from __future__ import annotations

import pytest
import torch

from bcd_bench_bcd.configs import ObjectiveConfig
from bcd_bench_bcd.model import to_unit
from bcd_bench_bcd.objective import training_loss
from bcd_bench_bcd.recolour import UNCHANGED, draw_colours, recoloured
from tests.bcd.test_model import frames, tiny_model


def test_no_strength_changes_no_colour() -> None:
    clips = to_unit(frames(4))
    colours = draw_colours(4, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(recoloured(clips, colours), clips, atol=1e-5, rtol=0)


def test_colours_differ_between_clips_stay_in_range_and_leave_a_quarter_alone() -> None:
    colours = draw_colours(400, 1.0, torch.Generator().manual_seed(0))
    alone = (colours == torch.cat([torch.eye(3), torch.zeros(3, 1)], 1)).all(2).all(1)
    assert abs(alone.float().mean() - UNCHANGED) < 0.08
    assert len(colours[~alone].unique(dim=0)) == int((~alone).sum())
    clips = torch.rand((400, 1, 3, 2, 2), generator=torch.Generator().manual_seed(1)) * 2 - 1
    changed = recoloured(clips, colours)
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert torch.allclose(changed[alone], clips[alone], atol=1e-6)
    assert 0.1 < (changed - clips)[~alone].abs().mean() < 0.6


@pytest.mark.parametrize("direction", ["forward", "random", "both"])
@pytest.mark.parametrize("few", [0.0, 1.0])
def test_the_loss_asks_for_the_driving_half_in_the_colours_of_the_content(direction: str, few: float) -> None:
    model, clips, asked = tiny_model().train(), frames(2), []
    keep = model.decoder.patchify
    model.decoder.patchify = lambda x: asked.append(x) or keep(x)  # type: ignore[method-assign, func-returns-value]
    losses = training_loss(
        model,
        None,
        clips,
        ObjectiveConfig(recolour=1.0, few_content=few),
        tau=1.0,
        step=0,
        direction=direction,  # type: ignore[arg-type]
        generator=torch.Generator().manual_seed(5),
    )
    losses.total.backward()
    assert torch.isfinite(losses.total)
    halves = torch.cat(to_unit(clips).split(4, 1))
    assert asked[0].shape[0] == (4 if direction == "both" else 2)
    assert not any(torch.equal(one, half) for one in asked[0][:1] for half in halves)
