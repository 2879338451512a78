"""What one step does to the network: orthogonal updates of hidden matrices, ordinary ones of the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bcd_bench_faces.dense_landmarks.config import PRESETS
from bcd_bench_faces.dense_landmarks.network import DenseNet, NetworkConfig
from bcd_bench_faces.dense_landmarks.optimizer import Optimizer

RECIPE = replace(PRESETS["tiny"], weight_decay=0.0, lr=1e-3, muon_lr=0.01)


def network() -> DenseNet:
    torch.manual_seed(0)
    made = DenseNet(NetworkConfig(48, 10, (8, 16, 24, 32), (0, 1, 0), 16, 5))
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def with_gradients(made: DenseNet) -> DenseNet:
    seen = made(torch.randn(32, 3, 48, 48).contiguous(memory_format=torch.channels_last))
    (seen.points.square().mean() + seen.codes.square().mean() + seen.log_sigma.mean() + seen.face.mean()).backward()
    return made


def test_a_step_moves_kernels_by_a_matrix_whose_directions_are_equally_long() -> None:
    made = with_gradients(network())
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    Optimizer(made, RECIPE).step(0.5)
    kernels = [name for name, value in before.items() if value.ndim == 4 and value.shape[1] > 3]
    assert len(kernels) == 6  # a half, a quarter, an eighth with a block of two, a sixteenth, the last 1 x 1
    for name in [*kernels, "hidden.weight"]:
        change = (made.get_parameter(name).detach() - before[name]).permute(0, *range(2, before[name].ndim), 1)
        lengths = torch.linalg.svdvals(change.flatten(1))
        rows, columns = change.flatten(1).shape
        wanted = 0.5 * 0.01 * max(1.0, rows / columns) ** 0.5
        assert lengths.mean().item() == pytest.approx(wanted, rel=0.25), name
    for name in ("trunk.0.0.weight", "points.weight", "codes.weight", "hidden.bias"):
        change = (made.get_parameter(name).detach() - before[name]).abs()
        assert change.max().item() == pytest.approx(0.5 * 1e-3, rel=0.01), name  # AdamW's first step


def test_kernels_in_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match="not in channels_last format"):
        Optimizer(network().to(memory_format=torch.contiguous_format), RECIPE)  # type: ignore[call-overload]
