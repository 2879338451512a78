"""What a plan foretells is what a step takes."""

from __future__ import annotations

import pytest
import torch

from bcd_bench_bcd.model import BCD
from bcd_bench_bcd.objective import training_loss
from bcd_bench_bcd.planning import memory_bytes, parameters
from bcd_bench_bcd.presets import resolve_preset
from tests.bcd.conftest import TINY, BlockClips
from tests.bcd.test_canvas import SMALL


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["sprites-small", "heads-small"])
def test_memory_is_what_a_training_step_keeps(name: str, precision: str) -> None:
    tiny = SMALL if name == "heads-small" else {**TINY, "model.encoder.content_tokens": 16}
    preset = resolve_preset(name, {**tiny, "objective.adversary": 0.0})
    config, clips = preset.model, 16
    model = BCD(config).train()
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    frames = torch.from_numpy(BlockClips().clips(range(clips)))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        generator = torch.Generator().manual_seed(0)
        training_loss(
            model, None, frames, preset.objective, tau=1.0, step=10**6, direction="forward", generator=generator
        ).total.backward()
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    weights, activations = memory_bytes(config, 8, clips, precision=precision)
    planned = activations + weights - 20 * sum(parameters(config).values())
    assert planned == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.25)


def test_recomputing_takes_less_memory() -> None:
    config = resolve_preset("lrs3").model
    weights, activations = memory_bytes(config, 50, 32)
    less = memory_bytes(config, 50, 32, recompute=True)
    assert less[0] <= weights
    block = 25 * 64 * 768 * 2  # bytes of one value of every token in bf16; by hand some 28 in each of 18 blocks
    assert 24 < activations / 32 / 18 / block < 32
    assert 0.05 < less[1] / activations < 0.2  # an eighteenth, and what each block starts from
