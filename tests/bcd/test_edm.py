"""EDM: preconditioning, noise levels and samplers against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from bcd_bench_bcd.extensions.loss_weight_clamp import LossWeightClamp
from bcd_bench_bcd.extensions.x_prediction import precondition_x
from bcd_bench_bcd.paper.config import EDMConfig, SamplerConfig
from bcd_bench_bcd.paper.edm import karras_sigmas, loss_weight, precondition, sample, training_sigmas

S = 0.5  # spread of the Gaussian data of these tests


def gaussian_denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The exact denoiser of data ~ N(0, S^2): its ODE has a closed solution."""
    s = sigma.view(-1, *[1] * (x.ndim - 1))
    return x * S**2 / (S**2 + s**2)


def exact(noise: torch.Tensor, sigma_max: float) -> torch.Tensor:
    return noise * sigma_max * S / math.sqrt(S**2 + sigma_max**2)


def test_karras_levels() -> None:
    levels = karras_sigmas(SamplerConfig(steps=18))
    assert levels[0].item() == pytest.approx(80)
    assert levels[-2].item() == pytest.approx(0.002)
    assert levels[-1] == 0
    assert len(levels) == 19
    assert torch.all(levels[:-1] > levels[1:])
    middle = (80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert levels[9].item() == pytest.approx(middle)


@pytest.mark.parametrize(("name", "tolerance"), [("euler", 0.2), ("heun", 0.02), ("dpmpp-2m", 0.02)])
def test_samplers_reach_the_closed_solution(name: str, tolerance: float) -> None:
    noise = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = sample(gaussian_denoiser, noise, SamplerConfig(name=name, steps=40))
    truth = exact(noise, 80.0)
    assert ((x - truth).norm() / truth.norm()).item() < tolerance


def test_second_order_beats_first_order_as_the_steps_grow() -> None:
    noise = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def error(name: str, steps: int) -> float:
        config = SamplerConfig(name=name, steps=steps, sigma_min=0.02)
        return (sample(gaussian_denoiser, noise, config) - exact(noise, 80.0)).norm().item()

    assert 1.6 < error("euler", 40) / error("euler", 80) < 2.6
    assert error("heun", 40) / error("heun", 80) > 3.0
    assert error("dpmpp-2m", 40) / error("dpmpp-2m", 80) > 3.0


def test_euler_agrees_with_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="parity with diffusers needs diffusers")
    steps, noise = 12, torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=S, rho=7.0)
    scheduler.set_timesteps(steps)
    x = noise * 80.0
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index]
        clean = gaussian_denoiser(x, sigma.expand(len(x)))
        c_skip = S**2 / (sigma**2 + S**2)
        c_out = sigma * S / (sigma**2 + S**2).sqrt()
        scheduler.scale_model_input(x, timestep)
        x = scheduler.step((clean - c_skip * x) / c_out, timestep, x).prev_sample
    ours = sample(gaussian_denoiser, noise, SamplerConfig(name="euler", steps=steps))
    assert torch.allclose(ours, x, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 50.0])
def test_preconditioning_keeps_unit_variance(sigma: float) -> None:
    config, g = EDMConfig(), torch.Generator().manual_seed(0)
    clean = torch.randn(20_000, 1, generator=g) * config.sigma_data
    x = clean + sigma * torch.randn(20_000, 1, generator=g)
    seen = {}

    def network(scaled: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        seen["input"], seen["noise"] = scaled, noise
        return torch.zeros_like(scaled)

    output = precondition(network, x, torch.full((20_000,), sigma), config)
    assert seen["input"].std().item() == pytest.approx(1, abs=0.03)
    assert seen["noise"][0].item() == pytest.approx(math.log(sigma) / 4)
    target = (clean - output) / (sigma * S / math.sqrt(sigma**2 + S**2))  # what F has to predict
    assert target.std().item() == pytest.approx(1, abs=0.03)


def test_x_prediction_is_the_network_itself() -> None:
    config, seen = EDMConfig(), {}

    def network(scaled: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        seen["input"], seen["noise"] = scaled, noise
        return torch.ones_like(scaled)

    out = precondition_x(network, torch.full((2, 3), 4.0), torch.tensor([1.0, 9.0]), config)
    assert torch.equal(out, torch.full((2, 3), config.sigma_data))
    assert seen["input"][:, 0].tolist() == pytest.approx([4 / math.sqrt(1 + S**2), 4 / math.sqrt(81 + S**2)])
    assert seen["noise"].tolist() == pytest.approx([0, math.log(9) / 4])


def test_training_levels_and_weights() -> None:
    config = EDMConfig(p_mean=-1.2, p_std=1.2)
    levels = training_sigmas(50_000, config, torch.Generator().manual_seed(0)).log()
    assert levels.mean().item() == pytest.approx(-1.2, abs=0.03)
    assert levels.std().item() == pytest.approx(1.2, abs=0.03)
    weight = loss_weight(torch.tensor([0.1, 10.0]), config)
    assert weight.tolist() == pytest.approx([(0.01 + 0.25) / (0.05**2), (100 + 0.25) / 25.0])
    assert LossWeightClamp(max=6).loss_weight(weight).tolist() == pytest.approx([6, (100 + 0.25) / 25.0])


def test_evaluations_are_counted() -> None:
    for name, steps, guidance in (("heun", 5, 1.0), ("heun", 5, 1.5), ("euler", 2, 1.0), ("dpmpp-2m", 4, 2.0)):
        config = SamplerConfig(name=name, steps=steps, guidance=guidance)
        calls = []

        def denoise(x: torch.Tensor, sigma: torch.Tensor, calls: list = calls) -> torch.Tensor:
            calls.append(1)
            return gaussian_denoiser(x, sigma)

        sample(denoise, torch.randn(1, 3), config)
        assert len(calls) * (1 if guidance == 1.0 else 2) == config.nfe
