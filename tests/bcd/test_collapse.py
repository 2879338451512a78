"""Failed runs are detected: collapsed codes stop a run, unused conditions are reported."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.types.errors import BcdBenchError
from bcd_bench_bcd.paper.config import DecoderConfig, EncoderConfig, ModelConfig, QuantizerConfig
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.training.collapse import (
    GRACE,
    MEASURED_CLIPS,
    WINDOW,
    CollapseGuard,
    condition_contributions,
)
from bcd_bench_bcd.training.trainer import train
from tests.bcd.conftest import BlockClips, frames, take_step, tiny_model, trainer_of


def rates(bits: float, conditional: float) -> dict[str, float]:
    return {"loss": 1.0, "diffusion": 1.0, "bits": bits, "conditional_bits": conditional}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def papers_model() -> BCD:
    torch.manual_seed(0)
    return BCD(
        ModelConfig(
            frame_size=(32, 32),
            encoder=EncoderConfig(layers=1, width=32, heads=2, feed_forward=64, content_tokens=3),
            quantizer=QuantizerConfig(entries=8, dim=32, distance="scaled"),
            decoder=DecoderConfig(depth=2, width=32, heads=2, patch=8, temporal_blocks=(1,)),
        )
    )


# ---- codes -----------------------------------------------------------------------------------------------------------
def test_the_guard_waits_then_speaks() -> None:
    guard = CollapseGuard(6.0)
    for step in range(GRACE):
        guard.check(step, rates(5.9, 5.8))
    with pytest.raises(BcdBenchError, match=r"a code carries 0\.10 bits about its frame"):
        guard.check(GRACE, rates(5.9, 5.8))
    healthy = CollapseGuard(6.0)
    for step in range(GRACE + WINDOW):
        healthy.check(step, rates(5.9, 0.2))


def test_a_resumed_run_is_given_a_window_of_steps_first() -> None:
    guard = CollapseGuard(6.0)
    for step in range(WINDOW - 1):
        guard.check(GRACE + step, rates(5.9, 5.8))
    with pytest.raises(BcdBenchError, match="collapsed"):
        guard.check(GRACE + WINDOW, rates(5.9, 5.8))


# ---- conditions ------------------------------------------------------------------------------------------------------
def test_a_decoder_that_ignores_its_conditions_has_no_contributions() -> None:
    ignoring = papers_model()  # as it is made, it outputs zero whatever it is given
    found = condition_contributions(ignoring, frames(8), generator())
    assert found == {"content_contribution": 0.0, "motion_contribution": 0.0}


def test_a_decoder_that_uses_one_condition_is_told_from_one_that_uses_the_other() -> None:
    def drawn_from(condition: str) -> dict[str, float]:
        model = papers_model()

        def denoise(noisy: torch.Tensor, sigma: torch.Tensor, content: torch.Tensor, motion: torch.Tensor) -> Any:
            clean = model.decoder.patchify(model.values(frames(8))[:, 4:])
            told = content.mean((1, 2)) if condition == "content" else motion.mean((1, 2))
            wanted = (right_content if condition == "content" else right_motion).mean((1, 2))
            off = ((told - wanted) / wanted.std()).view(-1, 1, 1, 1)
            return clean + 0.1 + off  # right but for a small error where the condition is the clip's own

        values = model.values(frames(8))
        model.eval()
        right_content, right_motion = model.encode_content(values[:, :4]), model.encode_motion(values[:, 4:]).motion
        model.denoise = denoise  # type: ignore[method-assign, assignment]
        return condition_contributions(model, frames(8), generator())

    by_content, by_motion = drawn_from("content"), drawn_from("motion")
    assert by_content["content_contribution"] > 10
    assert by_content["motion_contribution"] == 0
    assert by_motion["motion_contribution"] > 10
    assert by_motion["content_contribution"] == 0


class BrightClips(BlockClips):
    """Block clips in colours that are far apart."""

    def clips(self, indices: Any) -> np.ndarray:
        colours = np.array([[255, 40, 40], [40, 255, 40], [40, 40, 255], [255, 255, 255]], np.uint8)
        lit = super().clips(indices).any(-1, keepdims=True)
        return np.where(lit, colours[np.asarray(indices) % 4][:, None, None, None], 0).astype(np.uint8)


def test_a_trained_decoder_uses_both_conditions(request_for: Any) -> None:
    """After some steps on block clips, the colour comes from content, and the place from motion."""
    quick = {
        "extensions.content_bottleneck": None,
        "extensions.content_dropout": None,
        "extensions.dead_code_restart": None,
        "extensions.muon": None,
        "extensions.robust_loss": None,
        "extensions.swap_cycle": None,
        "model.decoder.depth": 1,
        "model.decoder.temporal_blocks": [],
        "train.lr": 6e-3,
        "train.batch": 8,
        "train.steps": 400,
        "train.warmup": 5,
        "train.seed": 1,
    }
    trainer = trainer_of(request_for(overrides=quick), BrightClips())
    trainer.start(resume=False)
    clips = torch.from_numpy(BrightClips().clips(range(16)))
    before = condition_contributions(trainer.model, clips, generator())
    assert before == {"content_contribution": 0.0, "motion_contribution": 0.0}
    for _ in range(300):
        take_step(trainer)
    after = condition_contributions(trainer.model, clips, generator())
    assert all(value > 0.1 for value in after.values()), after


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("extended", [True, False])
def test_measuring_changes_neither_the_model_nor_its_mode(training: bool, extended: bool) -> None:
    model = (tiny_model() if extended else papers_model()).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    once, again = (condition_contributions(model, frames(8), generator()) for _ in range(2))
    assert once == again
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_is_in_its_mode_again_after_a_failure() -> None:
    model = papers_model().train()
    with pytest.raises(RuntimeError):
        condition_contributions(model, torch.zeros(4, 8, 16, 16, 3, dtype=torch.uint8), generator())
    assert model.training


def test_few_clips_of_a_large_batch_are_measured() -> None:
    model = tiny_model()
    many = condition_contributions(model, frames(40), generator())
    assert many == condition_contributions(model, frames(MEASURED_CLIPS), generator())


def test_of_a_single_clip_nothing_is_said() -> None:
    assert condition_contributions(tiny_model(), frames(1), generator()) == {}


def test_unused_conditions_are_told_once_after_the_first_steps() -> None:
    guard, unused = CollapseGuard(6.0), {"content_contribution": 0.2, "motion_contribution": 0.002}
    assert guard.warning(GRACE - 1, unused) is None
    said = guard.warning(GRACE, unused)
    assert said is not None
    assert said.startswith(f"warning: step {GRACE}: the decoder hardly uses the motion: ")
    assert "by 0.2%" in said
    assert "\n" not in said
    assert guard.warning(GRACE + 50, unused) is None
    assert guard.warning(GRACE + 100, {"content_contribution": 0.0, "motion_contribution": 0.5}) is not None
    again = guard.warning(GRACE + 150, unused)  # it was used in between, so it is reported again
    assert again is not None
    assert "the motion" in again
    assert guard.warning(GRACE, {}) is None


def test_contributions_are_logged_and_change_nothing(request_for: Any) -> None:
    often, seldom = (
        request_for(name, overrides={"train.log_every": every}) for name, every in (("often", 2), ("seldom", 8))
    )
    train(often)
    train(seldom)
    lines, last = (
        [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
        for request in (often, seldom)
    )
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    for line in lines:
        assert {"content_contribution", "motion_contribution"} <= line.keys()
    assert last[0]["motion_contribution"] == lines[-1]["motion_contribution"]
    mean = sum(line["loss"] for line in lines) / 4
    assert last[0]["loss"] == pytest.approx(mean, rel=1e-9)
