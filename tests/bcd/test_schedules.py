"""Schedules, optimiser, averaging: what the paper's training does at which step, as asserted values."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench_bcd.presets.base import TrainConfig
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training.optimizers import Optimizers, learning_rate_factor
from bcd_bench_bcd.training.stages import Stage, stages_of
from bcd_bench_bcd.training.trainer import Trainer
from tests.bcd.conftest import TINY, BlockClips, take_step
from tests.bcd.test_paper import tiny_model


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Any]:
    def make(preset: str = "sprites", before: int = 0, **overrides: Any) -> Trainer:
        settings = {**TINY, "train.precision": "fp32", **{key.replace("__", "."): v for key, v in overrides.items()}}
        made = Trainer(Stage(resolve_preset(preset, settings), tmp_path, steps_before=before), BlockClips(), "cpu")
        made.start(resume=False)
        return made

    return make  # type: ignore[return-value]


def test_the_temperature_falls_by_a_factor_a_step_or_over_the_run(trainer: Any) -> None:
    own = trainer(model__quantizer__tau_decay=0.9, model__quantizer__tau_start=1.5, model__quantizer__tau_end=0.5)
    assert [own._tau(step) for step in (0, 1, 5)] == pytest.approx([1.5, 1.35, 1.5 * 0.9**5])
    assert own._tau(1000) == 0.5
    later = trainer(before=3, model__quantizer__tau_decay=0.9, model__quantizer__tau_start=1.5)
    assert later._tau(2) == pytest.approx(1.5 * 0.9**5)
    run = trainer(model__quantizer__tau_decay=None, model__quantizer__tau_start=2.0, model__quantizer__tau_end=0.5)
    assert [run._tau(step) for step in (0, 4, 8)] == pytest.approx([2.0, 1.0, 0.5])


def test_every_step_gets_its_own_temperature_and_number(trainer: Any) -> None:
    own = trainer(model__quantizer__tau_decay=0.8)
    seen: list[tuple[int, float]] = []
    own.module.register_forward_pre_hook(lambda module, args: seen.append((args[1], args[2])))
    for _ in range(3):
        take_step(own)
    start = own.preset.model.quantizer.tau_start
    assert seen == [(step, pytest.approx(max(start * 0.8**step, 0.5))) for step in range(3)]


def test_learning_rates_follow_warm_up_and_schedule() -> None:
    config = TrainConfig(steps=100, warmup=10, lr_schedule="cosine", lr=1e-3)
    assert learning_rate_factor(0, config) == pytest.approx(0.1)
    assert learning_rate_factor(4, config) == pytest.approx(
        0.5 * (0.015 + 0.985 * (0.5 + 0.5 * math.cos(math.pi * 0.04)))
    )
    assert learning_rate_factor(50, config) == pytest.approx(0.015 + 0.985 * 0.5)
    assert learning_rate_factor(100, config) == pytest.approx(0.015)
    held = TrainConfig(steps=100, lr_hold_steps=60, lr_schedule="linear")
    assert [learning_rate_factor(step, held) for step in (0, 59, 80, 100)] == pytest.approx([1, 1, 0.5, 0.01])
    assert learning_rate_factor(99, TrainConfig(steps=100)) == 1


def test_encoder_and_decoder_have_their_own_rates_and_weights_decay_by_kind() -> None:
    model = tiny_model()
    config = TrainConfig(lr=1e-3, encoder_lr=0.25, weight_decay=0.07)
    optimizers = Optimizers(model, config)
    optimizers.set_rates(0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = set()
    for optimizer in optimizers.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                seen.add(name)
                early = name.startswith(("encoder.", "quantizer."))
                assert group["lr"] == pytest.approx(0.25e-3 if early else 1e-3), name
                assert group["weight_decay"] == (0.07 if parameter.ndim >= 2 else 0.0), name
    assert seen == set(names.values())


def test_a_step_moves_encoder_and_decoder_at_their_rates(trainer: Any) -> None:
    """Adam's first step moves every weight by its learning rate, whatever the gradient."""
    own = trainer(train__encoder_lr=0.1, train__lr=1e-3, train__warmup=0, train__weight_decay=0.0)
    before = copy.deepcopy(own.model)
    take_step(own)
    moved = {
        name: (parameter - old).abs().max().item()
        for (name, parameter), old in zip(own.model.named_parameters(), before.parameters(), strict=True)
    }
    assert moved["encoder.project.weight"] == pytest.approx(1e-4, rel=0.01)
    assert moved["decoder.patch_out.weight"] == pytest.approx(1e-3, rel=0.01)


def test_gradients_are_clipped_to_their_norm(trainer: Any) -> None:
    own = trainer(train__gradient_clip=0.01)
    norms: list[float] = []

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradients)))

    [optimizer] = own.optimizers.optimizers
    optimizer.register_step_pre_hook(note)
    values = take_step(own)
    assert values["gradient_norm"] > 0.02, "the norm before it is clipped"
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_averaged_weights_follow_with_the_stated_memory(trainer: Any) -> None:
    own = trainer(train__ema=0.5, train__lr=1e-2)
    name = "decoder.patch_out.weight"
    wanted = dict(own.ema.module.named_parameters())[name].clone()
    for step in range(4):
        take_step(own)
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * dict(own.model.named_parameters())[name].detach()
        assert torch.allclose(dict(own.ema.module.named_parameters())[name], wanted, atol=1e-7)


# The codebook at the start of a training ----------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [16, 384])
def test_the_papers_preset_keeps_its_codes_apart(trainer: Any, dim: int) -> None:
    """With a plain sum of squares over 384 channels a single code is left after two steps, and no gradient."""
    own = trainer(
        "sprites", model__encoder__width=max(dim, 32), model__quantizer__dim=dim, model__quantizer__entries=64,
        objective__target_bits=6.0, train__warmup=0, train__lr=5e-5,
    )  # fmt: skip
    values = [take_step(own) for _ in range(30)]
    information = [value["bits"] - value["conditional_bits"] for value in values]
    assert np.mean(information[-10:]) > 1.0, "bits that a code carries about its frame"
    codebook = own.model.quantizer.codebook
    assert codebook.grad is None
    gradients = own.optimizers.optimizers[0].state[own.model.encoder.project.weight]["exp_avg_sq"]
    assert float(gradients.max()) > 1e-12, "gradients reach the encoder"


def test_each_stage_has_its_own_rates(tmp_path: Path) -> None:
    """Table A7: the encoder learns at half the rate in the first stage and at a quarter in the second."""
    first, second = stages_of(resolve_preset("lrs3"), 1000, tmp_path)
    assert (first.preset.train.lr, first.preset.train.encoder_lr) == (2e-4, 0.5)
    assert (second.preset.train.lr, second.preset.train.encoder_lr) == (2e-4, 0.25)
    assert (first.preset.train.init, second.preset.train.init) == (None, str(tmp_path / "frames/model.safetensors"))
    assert second.steps_before == first.preset.train.steps > 0
    _, tiny = stages_of(resolve_preset("lrs3-tiny"), 1000, tmp_path)
    assert tiny.preset.train.lr == 5e-4
