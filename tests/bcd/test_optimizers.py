"""Which optimiser updates what, and how fast."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from bcd_bench_bcd.configs import TrainConfig
from bcd_bench_bcd.model import BCD
from bcd_bench_bcd.optimizers import Optimizers, learning_rate_factor
from bcd_bench_bcd.presets import resolve_preset
from bcd_bench_bcd.train import Trainer
from tests.bcd.conftest import TINY, BlockClips


@pytest.mark.parametrize(("step", "factor"), [(0, 0.25), (3, 1.0), (10, 1.0), (15, 0.5 + 0.015 / 2), (20, 0.015)])
def test_the_rate_rises_holds_and_falls(step: int, factor: float) -> None:
    config = TrainConfig(steps=20, warmup=4, hold=10, schedule="cosine")
    assert learning_rate_factor(step, config) == pytest.approx(factor)


def test_without_a_hold_the_schedule_begins_at_once() -> None:
    assert learning_rate_factor(5, TrainConfig(steps=20, schedule="linear")) == pytest.approx(0.75)


def conv_model() -> BCD:
    torch.manual_seed(0)
    return BCD(
        resolve_preset(
            "sprites-small", {**TINY, "model.encoder.stem": "conv", "model.encoder.content_tokens": 16}
        ).model
    )


def test_muon_updates_the_stems_convolutions_in_place() -> None:
    model = conv_model()
    kernels = [m.weight for m in model.encoder.stem.down.modules() if isinstance(m, torch.nn.Conv2d)]  # type: ignore[union-attr]
    optimizers = Optimizers(model, None, TrainConfig(optimizer="muon", lr=1e-3, muon_lr=1e-2, weight_decay=0.0))
    before = [kernel.detach().clone() for kernel in kernels]
    model.load_state_dict(copy.deepcopy(model.state_dict()))  # as resuming does
    for kernel in kernels:
        kernel.grad = torch.randn_like(kernel)
    optimizers.set_rates(0)
    optimizers.step()
    first, *hidden = zip(before, kernels, strict=True)
    for old, new in hidden:
        update = (new.detach() - old).permute(0, 2, 3, 1).flatten(1)
        spread = torch.linalg.svdvals(update)
        assert (
            spread.max() < 2.5 * spread.median()
        )  # every direction gets about as much, which no gradient's own update does
        assert new.grad is None
    changed = (first[1].detach() - first[0]).abs()
    assert changed.max() == pytest.approx(1e-3, rel=0.01)  # AdamW's first step: the rate, whatever the gradient


def test_without_muon_convolutions_stay_as_they_are_kept() -> None:
    model = conv_model()
    Optimizers(model, None, TrainConfig())
    kernel: Any = model.encoder.stem.down[1].layers[2].weight  # type: ignore[union-attr,index]
    assert kernel.is_contiguous()


def test_the_average_has_a_short_memory_where_new_parts_start(request_for: Any) -> None:
    overrides = {**TINY, "train.ema": 0.99, "objective.guide": 0, "objective.canvas_from": 40, "objective.draw_from": 0}
    preset = resolve_preset("heads-small", overrides)
    trainer = Trainer(preset, BlockClips(), request_for().out, "cpu")
    weight, average = trainer.model.decoder.patch_out.weight, trainer.average.decoder.patch_out.weight
    for step, share in ((0, 0.1), (30, 31 / 40), (39, 40 / 49), (40, 0.1), (50, 11 / 20)):
        with torch.no_grad():
            weight.fill_(1.0)
            average.fill_(0.0)
        trainer._average(step)
        kept = 1 - float(average.flatten()[0])
        assert kept == pytest.approx(share)
