"""EDM: preconditioning, training noise, loss weight and samplers (Karras et al. 2022; Sec. 3.3 and Tables A7, A8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from bcd_bench_bcd.paper.config import EDMConfig, SamplerConfig
from bcd_bench_bcd.paper.rng import RngLike, as_rng

__all__ = ["karras_sigmas", "loss_weight", "precondition", "sample", "training_sigmas"]

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""D(x, sigma): noisy values [B, ...] and noise levels [B] -> clean values."""


def _like(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (x.ndim - 1))


def precondition(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, config: EDMConfig) -> Tensor:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) for `network` F."""
    s, d = _like(sigma, x), config.sigma_data
    c_in = 1 / (s**2 + d**2).sqrt()
    c_skip = d**2 / (s**2 + d**2)
    c_out = s * d / (s**2 + d**2).sqrt()
    c_noise = sigma.log() / 4
    return c_skip * x + c_out * network(c_in * x, c_noise).float()


def training_sigmas(count: int, config: EDMConfig, rng: RngLike) -> Tensor:
    """Noise levels float32 [count] with ln sigma ~ N(p_mean, p_std^2), clamped to [0.002, 160]."""
    return (as_rng(rng).normal(count) * config.p_std + config.p_mean).exp().clamp(0.002, 160.0)


def loss_weight(sigma: Tensor, config: EDMConfig) -> Tensor:
    """w(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
    d = config.sigma_data
    return (sigma**2 + d**2) / (sigma * d) ** 2


def karras_sigmas(config: SamplerConfig) -> Tensor:
    """The noise levels sigma_0 = sigma_max > ... > sigma_min, then 0: float64 [steps + 1] (EDM eq. 5)."""
    if config.steps == 1:
        return torch.tensor([config.sigma_max, 0.0], dtype=torch.float64)
    ramp = torch.linspace(0, 1, config.steps, dtype=torch.float64)
    high, low = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    return torch.cat([(high + ramp * (low - high)) ** config.rho, torch.zeros(1, dtype=torch.float64)])


def sample(denoise: Denoiser, noise: Tensor, config: SamplerConfig) -> Tensor:
    """Integrate dx/dsigma = (x - D(x; sigma)) / sigma from sigma_max to 0. `noise` is unit normal [B, ...]."""
    sigmas = karras_sigmas(config)
    x = noise * float(sigmas[0])
    solver = {"heun": _heun, "euler": _euler, "dpmpp-2m": _dpmpp_2m}[config.name]
    return solver(lambda x, s: denoise(x, x.new_full((len(x),), s)), x, sigmas.tolist())


def _euler(denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: list[float]) -> Tensor:
    for now, after in pairwise(sigmas):
        slope = (x - denoise(x, now)) / now
        x = x + (after - now) * slope
    return x


def _heun(denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: list[float]) -> Tensor:
    """EDM's Algorithm 1 without churn: an Euler step, corrected by the slope at its end point (except at 0)."""
    for now, after in pairwise(sigmas):
        slope = (x - denoise(x, now)) / now
        landed = x + (after - now) * slope
        if after > 0:
            slope = (slope + (landed - denoise(landed, after)) / after) / 2
            landed = x + (after - now) * slope
        x = landed
    return x


def _dpmpp_2m(denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: list[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022) in the variable lambda = -ln sigma: one evaluation per step, second order."""
    previous: Tensor | None = None
    step_before = 0.0
    for now, after in pairwise(sigmas):
        clean = denoise(x, now)
        if after == 0:
            return clean
        step = math.log(now / after)
        estimate = clean
        if previous is not None:
            ratio = step / (2 * step_before)
            estimate = (1 + ratio) * clean - ratio * previous
        x = (after / now) * x - math.expm1(-step) * estimate
        previous, step_before = clean, step
    return x
