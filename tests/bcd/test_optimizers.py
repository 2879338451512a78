"""Which optimiser updates what, and how fast."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.muon import Muon
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.presets.base import TrainConfig
from bcd_bench_bcd.training.optimizers import Optimizers, learning_rate_factor
from tests.bcd.conftest import TINY, TwoTakes, tiny_fit, trainer_of


@pytest.mark.parametrize(("step", "factor"), [(0, 0.25), (3, 1.0), (10, 1.0), (15, 0.5 + 0.015 / 2), (20, 0.015)])
def test_the_rate_rises_holds_and_falls(step: int, factor: float) -> None:
    config = TrainConfig(steps=20, warmup=4, lr_hold_steps=10, lr_schedule="cosine")
    assert learning_rate_factor(step, config) == pytest.approx(factor)


def test_without_a_hold_the_schedule_begins_at_once() -> None:
    assert learning_rate_factor(5, TrainConfig(steps=20, lr_schedule="linear")) == pytest.approx(0.75)


def conv_model() -> BCD:
    torch.manual_seed(0)
    return tiny_fit(**{"extensions.conv_stem": {}}).build()


def test_muon_updates_the_stems_convolutions_in_place() -> None:
    model = conv_model()
    kernels = [m.weight for m in model.encoder.stem.down.modules() if isinstance(m, torch.nn.Conv2d)]  # type: ignore[union-attr]
    optimizers = Optimizers(model, TrainConfig(lr=1e-3, weight_decay=0.0), Extensions([Muon(lr=1e-2)]))
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
    Optimizers(model, TrainConfig())
    kernel: Any = model.encoder.stem.down[1].layers[2].weight  # type: ignore[union-attr,index]
    assert kernel.is_contiguous()


def test_every_parameter_is_updated_by_one_optimiser() -> None:
    model = conv_model()
    optimizers = Optimizers(model, TrainConfig(), Extensions([Muon()]))
    updated = [p for o in optimizers.optimizers for group in o.param_groups for p in group["params"]]
    # matrices of kernels share their memory
    assert len(updated) == len(list(model.parameters()))
    assert {p.data_ptr() for p in updated} == {p.data_ptr() for p in model.parameters()}
    assert len(Optimizers(model, TrainConfig(), Extensions()).optimizers) == 1


def test_the_average_has_a_short_memory_where_new_parts_start(request_for: Any) -> None:
    starts = {"extensions.canonical_features.warp_start": 40, "extensions.canonical_features.denoise_start": 0}
    overrides = {**TINY, "train.ema": 0.99, **starts}
    trainer = trainer_of(request_for(preset="heads-small", overrides=overrides), TwoTakes())
    weight, average = trainer.model.decoder.patch_out.weight, trainer.ema.module.decoder.patch_out.weight
    for step, share in ((0, 0.1), (30, 31 / 40), (39, 40 / 49), (40, 0.1), (50, 11 / 20)):
        with torch.no_grad():
            weight.fill_(1.0)
            average.fill_(0.0)
        trainer._update_average(step)
        kept = 1 - float(average.flatten()[0])
        assert kept == pytest.approx(share)
