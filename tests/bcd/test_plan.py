"""What a plan foretells is what a step takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.loss import extended_loss
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training.data import fit_to_data
from bcd_bench_bcd.training.plan import memory_bytes, parameters, plan
from tests.bcd.conftest import TINY, BlockClips
from tests.bcd.test_canonical_features import SMALL


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["sprites-small", "heads-small"])
def test_memory_is_what_a_training_step_keeps(name: str, precision: str) -> None:
    preset = resolve_preset(name, SMALL if name == "heads-small" else TINY)
    fitted, clips = fit_to_data(preset), 16
    assert fitted.config.encoder.content_tokens == 16
    model = fitted.build().train()
    # one direction, and no steps with fewer frames of content: the plan is about whole steps
    left_out = ("symmetric_halves", "content_frame_dropout")
    extensions = Extensions(one for one in preset.extensions if one.name not in left_out)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    frames = torch.from_numpy(BlockClips().clips(range(clips)))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        generator = torch.Generator().manual_seed(0)
        extended_loss(
            model, frames, preset.objective, extensions, tau=1.0, step=10**6, rng=generator
        )["loss"].backward()  # fmt: skip
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    weights, activations = memory_bytes(fitted, 8, clips, precision=precision)
    planned = activations + weights - 20 * sum(parameters(fitted).values())
    assert planned == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.25)


def test_activation_checkpointing_takes_less_memory() -> None:
    fitted = fit_to_data(resolve_preset("lrs3"))
    weights, activations = memory_bytes(fitted, 50, 32)
    less = memory_bytes(fitted, 50, 32, checkpointing=True)
    assert less[0] <= weights
    block = 25 * 64 * 768 * 2  # bytes of one value of every token in bf16; by hand some 28 in each of 18 blocks
    assert 24 < activations / 32 / 18 / block < 32
    assert 0.05 < less[1] / activations < 0.2  # an eighteenth, and what each block starts from


def test_the_plan_of_lrs3_states_hours_on_gpus(tmp_path: Path) -> None:
    request = TrainRequest(
        preset="lrs3", overrides={}, out=tmp_path / "run", resume=False, max_steps=None, max_minutes=None,
        device="cpu", data={}, plan_only=True,
    )  # fmt: skip
    text = plan(resolve_preset("lrs3"), request)
    total = sum(float(found) for found in re.findall(r"([0-9.]+) EFLOP in total", text)) * 1e18
    hours = dict(re.findall(r"(A100|H100|H200) ([0-9.]+) h", text.splitlines()[-1]))
    assert text.splitlines()[-1].startswith("on 1 GPU, at 40% of the data sheet's bf16 peak: A100 ")
    assert float(hours["A100"]) == pytest.approx(total / (0.4 * 312e12) / 3600, rel=0.01)
    assert float(hours["H100"]) == pytest.approx(total / (0.4 * 989e12) / 3600, rel=0.01)
    assert 40 < float(hours["A100"]) < 70
    assert hours["H200"] == hours["H100"]
