"""The quantiser against its equations, and what extensions change in it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd_bench_bcd.extensions.dead_code_restart import restart_dead_codes
from bcd_bench_bcd.extensions.quantizer import ExtendedQuantizer
from bcd_bench_bcd.extensions.swap_cycle import code_nats
from bcd_bench_bcd.paper.config import QuantizerConfig
from bcd_bench_bcd.paper.quantizer import GroupVectorQuantizer, rate_loss

SMALL = {"groups": 2, "entries": 4, "dim": 3, "alpha": 5.0}


def quantizer(**changes: object) -> GroupVectorQuantizer:
    torch.manual_seed(0)
    config = QuantizerConfig(**{**SMALL, **changes})
    return GroupVectorQuantizer(config, config.groups * config.dim)


def extended(*, standardize: bool = False, latent_gradient: bool = False, **changes: object) -> ExtendedQuantizer:
    torch.manual_seed(0)
    config = QuantizerConfig(**{**SMALL, **changes})
    width = config.groups * config.dim
    return ExtendedQuantizer(config, width, standardize=standardize, latent_gradient=latent_gradient)


def entries_at(vq: GroupVectorQuantizer, codes: torch.Tensor) -> torch.Tensor:
    """The entries that codes [B, T, N] name, side by side."""
    return vq.codebook[torch.arange(vq.config.groups), codes].flatten(2)


def latents(batch: int = 3, frames: int = 5, width: int = 6) -> torch.Tensor:
    return torch.randn(batch, frames, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("distance", ["squared", "l2"])
def test_rate_and_codes_follow_the_equations(distance: str) -> None:
    vq, m = quantizer(distance=distance).eval(), latents()
    result = vq(m)
    book, parts = vq.codebook.detach().numpy(), m.numpy().reshape(15, 2, 3)
    for group in range(2):
        d = np.linalg.norm(parts[:, group, None] - book[group][None], axis=-1)  # (1)
        d = d**2 if distance == "squared" else d
        p = np.exp(-5.0 * d) / np.exp(-5.0 * d).sum(1, keepdims=True)
        mean = p.mean(0)  # (4)
        assert result.group_bits[group].item() == pytest.approx(-(mean * np.log2(mean)).sum(), abs=1e-4)  # (5)
        assert result.codes[..., group].flatten().tolist() == d.argmin(1).tolist()  # (2), inference
        nearest = book[group][d.argmin(1)]
        assert np.allclose(result.motion.detach().numpy().reshape(15, 2, 3)[:, group], nearest)
    assert result.bits.item() == pytest.approx(result.group_bits.sum().item())
    assert torch.equal(entries_at(vq, result.codes), result.motion)


def test_training_samples_entries_and_passes_gradients() -> None:
    vq, m = quantizer().train(), latents().requires_grad_()
    result = vq(m, 1.0, torch.Generator().manual_seed(3))
    parts = result.motion.reshape(15, 2, 3)
    for group in range(2):
        gaps = torch.cdist(parts[:, group], vq.codebook[group]).min(1).values
        assert gaps.max() < 1e-5  # hard: every sample is an entry
    result.motion.square().sum().backward()
    assert m.grad is not None
    assert m.grad.abs().sum() > 0
    assert vq.codebook.grad is not None


def test_samples_come_from_the_stated_distribution() -> None:
    vq = quantizer(groups=1, entries=3, dim=2, alpha=1.0).train()
    m = torch.zeros(1, 1, 2).expand(4000, 5, 2)
    expected = (-(vq.codebook[0].square().sum(-1))).softmax(-1)
    result = vq(m, 0.7, torch.Generator().manual_seed(0))
    drawn = torch.cdist(result.motion.reshape(-1, 2), vq.codebook[0]).argmin(1)
    share = torch.bincount(drawn, minlength=3) / len(drawn)
    assert torch.allclose(share, expected, atol=0.02)  # temperature changes gradients, never the sample's law


@given(bits=st.lists(st.floats(0.1, 5), min_size=1, max_size=6), target=st.floats(0.5, 20))
@settings(max_examples=50, deadline=None)
def test_rate_loss_is_zero_only_at_the_target(bits: list[float], target: float) -> None:
    group = torch.tensor(bits)
    total = rate_loss(group, target, "total").item()
    assert total == pytest.approx((sum(bits) - target) ** 2, rel=1e-4, abs=1e-6)
    per = rate_loss(group, target, "per-group").item()
    assert per == pytest.approx(np.mean([(b - target / len(bits)) ** 2 for b in bits]), rel=1e-4, abs=1e-6)
    assert rate_loss(torch.full((4,), target / 4), target, "per-group").item() == pytest.approx(0, abs=1e-9)


def test_uniform_use_reaches_the_capacity() -> None:
    vq = quantizer(groups=1, entries=4, dim=2, alpha=50.0).eval()
    with torch.no_grad():
        vq.codebook.copy_(torch.tensor([[[0.0, 0], [0, 9], [9, 0], [9, 9]]]))
    result = vq(vq.codebook.detach().reshape(1, 4, 2))
    assert result.bits.item() == pytest.approx(2.0, abs=1e-4)
    assert result.conditional_bits.item() == pytest.approx(0.0, abs=1e-4)


def test_projection_where_the_widths_differ() -> None:
    vq = GroupVectorQuantizer(QuantizerConfig(groups=4, entries=8, dim=4), 10)
    assert vq(latents(width=10)).motion.shape == (3, 5, 16)
    assert isinstance(quantizer().into, torch.nn.Identity)


def test_standardising_follows_the_encoder_and_keeps_its_statistics() -> None:
    vq = extended(standardize=True, codes_from_data=True).train()
    m = latents(8, 16) * 40 + 7
    vq.start_codes_from(m, torch.Generator().manual_seed(0))
    assert vq.running_mean.mean().item() == pytest.approx(7, abs=4)
    drifted = vq(m * 3 + 100, 1.0, torch.Generator().manual_seed(0))
    assert drifted.bits > 1.0  # without standardising, everything would fall on one entry
    assert len(vq.eval()(m).codes.unique()) > 2


def test_bits_never_exceed_the_capacity() -> None:
    for seed in range(5):
        m = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(seed)) * (seed + 0.1)
        result = quantizer().eval()(m)
        assert 0 <= result.bits.item() <= 2 * math.log2(4) + 1e-4
        assert result.conditional_bits.item() <= result.bits.item() + 1e-4


def test_code_nats_are_the_cross_entropy_of_minus_the_distance() -> None:
    vq, m = extended(standardize=True).eval(), latents()
    vq.running_mean.fill_(0.3)
    vq.running_std.fill_(2.0)
    codes = torch.randint(0, 4, (3, 5, 2), generator=torch.Generator().manual_seed(4))
    parts, book = ((m - 0.3) / 2).reshape(15, 2, 3), vq.codebook.detach()
    expected = [
        -(-torch.linalg.norm(parts[row, group] - book[group], dim=-1)).log_softmax(-1)[codes.view(15, 2)[row, group]]
        for row in range(15)
        for group in range(2)
    ]
    assert code_nats(vq, m, codes).item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)
    m = m.clone().requires_grad_()
    code_nats(vq, m, codes).backward()
    assert m.grad is not None
    assert m.grad.any()
    assert vq.codebook.grad is None


def test_unused_entries_move_to_what_others_stand_for() -> None:
    vq = extended(groups=1, entries=4, dim=2, alpha=5.0).train()
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    with torch.no_grad():  # two entries in place, one between two places, one that nothing is near to
        vq.codebook.copy_(torch.tensor([[[0.0, 0.0], [10.0, 0.0], [5.0, 10.0], [90.0, 90.0]]]))
    m = places.repeat(10, 1)[None]
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        vq(m, 1.0, generator)
    assert vq.usage[0].tolist() == pytest.approx([0.25, 0.25, 0.5, 0.0], abs=0.02)
    before = vq.codebook.detach().clone()
    assert restart_dead_codes(vq, m, generator) == 1
    assert torch.equal(vq.codebook[0, :3], before[0, :3])
    assert vq.codebook[0, 3].tolist() in ([0.0, 10.0], [10.0, 10.0])
    assert restart_dead_codes(vq, m, generator) == 0  # it counts as used until it proves otherwise
    assert vq.eval()(places[None]).codes.unique().numel() == 4


def test_there_is_nothing_to_restart_where_every_latent_is_an_entry() -> None:
    vq = extended(groups=1, entries=4, dim=2)
    vq.usage.zero_()
    assert restart_dead_codes(vq, vq.codebook.detach()[:, :2].clone(), torch.Generator().manual_seed(0)) == 0


@pytest.mark.parametrize("training", [False, True])
def test_without_extensions_it_is_the_papers_quantiser(training: bool) -> None:
    ours, papers = extended().train(training), quantizer().train(training)
    assert torch.equal(ours.codebook, papers.codebook)
    ours, papers = (vq(latents(), 0.7, torch.Generator().manual_seed(3)) for vq in (ours, papers))
    for name in ("motion", "codes", "sampled", "group_bits", "conditional_bits"):
        assert torch.equal(getattr(ours, name), getattr(papers, name)), name


def test_motion_before_codes_is_the_latents_and_the_latent_gradient_is_about_theirs() -> None:
    """Before codes are used, the decoder gets standardised latents; after that, still about their gradient."""
    vq = extended(standardize=True, latent_gradient=True).train()
    m = torch.randn(3, 5, 6, requires_grad=True)
    generator = torch.Generator().manual_seed(1)
    vq.bypass = True
    free = vq(m, 1.0, generator).motion
    flat = m.detach().flatten(0, 1)
    torch.testing.assert_close(free.flatten(0, 1), (flat - flat.mean(0)) / (flat.var(0) + 1e-4).sqrt())
    vq.bypass = False
    coded = vq(m, 1.0, generator)
    torch.testing.assert_close(coded.motion, entries_at(vq, coded.sampled), atol=1e-5, rtol=1e-5)
    weights = torch.randn(coded.motion.shape, generator=generator)
    (through,) = torch.autograd.grad((coded.motion * weights).sum(), m, retain_graph=True)
    (exact,) = torch.autograd.grad((free * weights).sum(), m)
    plain = extended(standardize=True).train()
    plain.load_state_dict(vq.state_dict())
    relaxed = plain(m, 1.0, torch.Generator().manual_seed(2))
    (assigned,) = torch.autograd.grad((relaxed.motion * weights).sum(), m)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(through.flatten(), exact.flatten(), 0) > cosine(assigned.flatten(), exact.flatten(), 0)
