"""Muon: in float32 against torch's, and over convolutions as its matrices."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 (after the look for torch)

from bcd_bench.training import KernelMatrices, muon_optimizer  # noqa: E402
from bcd_bench.training.muon_fp32 import Float32Muon, orthogonalized  # noqa: E402


def test_muon_updates_kernels_through_their_matrices() -> None:
    layer = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    kernels = KernelMatrices([layer.weight])
    [matrix] = kernels.matrices
    assert matrix.shape == (4, 12)
    layer.weight.grad = torch.arange(48.0).view(4, 3, 2, 2)
    kernels.take_gradients()
    assert matrix.grad is not None
    assert matrix.grad[1].tolist() == [12, 16, 20, 13, 17, 21, 14, 18, 22, 15, 19, 23]  # place by place, then channels
    with torch.no_grad():
        matrix[1, 4] = 7  # place (0, 1), channel 1
    assert layer.weight[1, 1, 0, 1] == 7
    assert layer.weight.grad is None
    kernels.take_gradients()
    assert matrix.grad is None
    with pytest.raises(ValueError, match=r"kernel of shape \(4, 3, 2, 2\) is not in channels_last format"):
        KernelMatrices([nn.Conv2d(3, 4, 2).weight])


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_newton_schulz_makes_all_singular_values_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrix, (3.4445, -4.775, 2.0315), 5, 1e-7)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = (u.T @ found @ v.T).diagonal()
    assert torch.allclose(inside, values.sort(descending=True).values, atol=0.4), "the directions are kept"


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_in_float32_takes_the_steps_of_torchs(adjust: str) -> None:
    """torch's orthogonalises in bfloat16, so its updates agree in direction and size, not in every digit."""
    generator = torch.Generator().manual_seed(0)
    start, gradients = (
        torch.randn(12, 7, generator=generator),
        [torch.randn(12, 7, generator=generator) for _ in range(3)],
    )
    mine, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    settings: Any = {"lr": 0.1, "weight_decay": 0.2, "adjust_lr_fn": adjust}
    optimizers = Float32Muon([mine], **settings), torch.optim.Muon([theirs], **settings)
    for gradient in gradients:
        for parameter, optimizer in zip((mine, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert float((mine.detach() - start).abs().max()) > 0.1
    moved = [(parameter.detach() - start).flatten() for parameter in (mine, theirs)]
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.998
    assert float(moved[0].norm() / moved[1].norm()) == pytest.approx(1, abs=0.02)
    other = Float32Muon([torch.nn.Parameter(start.clone())], **settings)
    other.load_state_dict(optimizers[1].state_dict())  # the state has the same form
    assert torch.equal(
        next(iter(other.state.values()))["momentum_buffer"], optimizers[1].state[theirs]["momentum_buffer"]
    )


@pytest.mark.parametrize("fast", [True, False])
def test_muon_is_torchs_where_bfloat16_is_fast(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("bcd_bench.training.muon.fast_bf16", lambda device_type: fast)
    found = muon_optimizer([torch.nn.Parameter(torch.zeros(2, 3))], "cpu", lr=0.1, weight_decay=0.0)
    assert type(found) is (torch.optim.Muon if fast else Float32Muon)
