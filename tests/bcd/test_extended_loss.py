"""The loss of a recipe with extensions: what it reaches, drops, skips and adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, Extensions, StepState, constant
from bcd_bench_bcd.extensions.content_bottleneck import ContentBottleneck
from bcd_bench_bcd.extensions.content_dropout import ContentDropout
from bcd_bench_bcd.extensions.loss import extended_loss
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.swap_cycle import SwapCycle, code_nats, swap_cycle
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.paper.config import ObjectiveConfig
from bcd_bench_bcd.paper.loss import cross_driven_halves
from bcd_bench_bcd.paper.rng import Rng
from tests.bcd.conftest import frames, tiny_model, with_only

BOTH = SymmetricHalves(mode="both")


def losses_of(
    model: ExtendedBCD, clips: Tensor, *more: Extension, step: int = 0, **arguments: Any
) -> dict[str, Tensor]:
    given = {"objective": ObjectiveConfig(), "rng": torch.Generator().manual_seed(2), **arguments}
    return extended_loss(model, clips, extensions=with_only(model, *more), tau=1.0, step=step, **given)


def test_halves_are_disjoint_and_swap_roles() -> None:
    clips, rng = torch.arange(16).view(2, 8), Rng(torch.Generator().manual_seed(0))
    content, driving = cross_driven_halves(clips, "forward")
    assert content.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert driving.tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]
    content, driving = BOTH.halves(clips, rng)
    assert content.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11], [4, 5, 6, 7], [12, 13, 14, 15]]
    assert driving.tolist() == [[4, 5, 6, 7], [12, 13, 14, 15], [0, 1, 2, 3], [8, 9, 10, 11]]
    many = torch.arange(800).view(100, 8)
    content, driving = SymmetricHalves(mode="random").halves(many, rng)
    assert 20 < (content[:, 0] % 8 == 4).sum() < 80
    assert ((content + driving).sort().values == (many[:, :4] + many[:, 4:]).sort().values).all()


@pytest.mark.parametrize("standardized", [None, {}])
@pytest.mark.parametrize("halves", [None, "random", "both"])
def test_the_loss_reaches_every_parameter(halves: Any, standardized: Any) -> None:
    model = tiny_model(**{"extensions.standardized_latents": standardized}).train()
    more: list[Extension] = [ContentDropout(probability=constant(0.3)), ContentBottleneck(kl_weight=constant(1e-3))]
    more += [SymmetricHalves(mode=halves)] if halves else []
    losses = losses_of(model, frames(6), *more, step=5, objective=ObjectiveConfig(condition_drop=0.5, target_bits=3))
    losses["loss"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []
    assert losses["content_bits"] > 0


def test_the_kl_weight_is_the_price_of_a_nat_of_content() -> None:
    model = tiny_model().train()
    free, dear = (losses_of(model, frames(4), ContentBottleneck(kl_weight=constant(w))) for w in (0.0, 1e-2))
    nats = dear["content_bits"] * np.log(2)
    assert dear["loss"].item() == pytest.approx((free["loss"] + 1e-2 * nats).item(), rel=1e-5)


def test_lambda_is_the_price_of_the_rate() -> None:
    model = tiny_model().train()
    free, dear = (
        losses_of(model, frames(4), objective=ObjectiveConfig(rate_weight=w, target_bits=1.5, rate_form="total"))
        for w in (0.0, 0.3)
    )
    rate = (dear["bits"] - 1.5).square()
    assert rate > 0.1
    assert dear["loss"].item() == pytest.approx((free["loss"] + 0.3 * rate).item(), rel=1e-5)


@pytest.mark.parametrize(("step", "dropped"), [(9, True), (10, False)])
def test_content_is_dropped_until_its_step(step: int, dropped: bool) -> None:
    model = tiny_model().train()
    dropout = ContentDropout(probability=constant(0.9, stop=10))
    objective = ObjectiveConfig(condition_drop=0.0)
    losses_of(model, frames(6), dropout, BOTH, step=step, objective=objective)["loss"].backward()
    null = model.decoder.null_content.grad
    assert null is not None
    assert bool(null.abs().sum() > 0) is dropped
    assert not model.decoder.null_motion.grad.any()  # type: ignore[union-attr]


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(**{"extensions.content_channels": None}).train()
        model.decoder.activation_checkpointing = checkpointing
        losses_of(model, frames(3), BOTH)["loss"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items() if value is not None)


def test_the_loss_over_some_patches_is_that_over_all_in_expectation() -> None:
    model = tiny_model().train()

    def diffusion(seed: int, chances: Tensor | None) -> float:
        # The same noise for all seeds would need the same draws; an average over many does as well.
        generator = torch.Generator().manual_seed(seed)
        objective = ObjectiveConfig(condition_drop=0.0)
        with torch.no_grad():
            losses = losses_of(model, frames(8), BOTH, objective=objective, rng=generator, keep_probabilities=chances)
        return losses["diffusion"].item()

    all_of_them = np.mean([diffusion(seed, None) for seed in range(60)])
    some = np.mean([diffusion(seed, torch.tensor([1.0, 0.5, 0.4])) for seed in range(60)])
    assert some == pytest.approx(all_of_them, rel=0.1)


# ---- the swap cycle ------------------------------------------------------------------------------------------------
def test_the_swap_cycle_teaches_the_encoder_alone_and_codes_that_come_back_cost_nothing() -> None:
    model, rng = tiny_model().train(), Rng(torch.Generator().manual_seed(2))
    values = model.values(frames(6))
    state = StepState(model, 0, rng, Extensions([SwapCycle()]), values, values, values)
    state.tokens, latents = model.encode(values)
    assert model.bottleneck is not None
    state.content, _ = model.bottleneck.sample(state.tokens, rng)
    state.quantized = model.quantizer(latents, 1.0, rng)
    cycle, off = swap_cycle(state, torch.tensor([0, 3, 4]))
    assert cycle > 0
    assert off > 0
    (cycle + off).backward()
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"encoder", "bottleneck"}
    drawn = model.eval().quantizer(latents)
    with torch.no_grad():
        model.quantizer.codebook.mul_(50)  # entries far apart: an encoding near its own entry is sure of it
        own = code_nats(model.quantizer, model.quantizer.codebook[:, :4].clone(), torch.arange(4).view(1, 4, 1))
    assert own.item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(drawn.sampled, drawn.codes)  # inference draws nothing


def test_the_swap_cycle_waits_for_its_step_and_adds_to_the_total() -> None:
    def losses(step: int, weight: float) -> dict[str, Tensor]:
        cycle = SwapCycle(weight=weight, content_weight=weight / 2, start=4)
        return losses_of(tiny_model().train(), frames(6), cycle, BOTH, step=step)

    early = losses(3, 0.1)
    assert early["swap_cycle_codes"] == early["swap_cycle_content"] == 0
    plain, cycled = losses(4, 0.0), losses(4, 0.1)
    added = 0.1 * cycled["swap_cycle_codes"] + 0.05 * cycled["swap_cycle_content"]
    assert added > 0
    assert cycled["loss"].item() == pytest.approx((plain["loss"] + added).item(), rel=1e-5)
