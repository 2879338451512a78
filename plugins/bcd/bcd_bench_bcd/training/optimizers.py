"""Assignment of parameters to optimisers, and their learning rates per step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from bcd_bench.training import KernelMatrices, muon_optimizer
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.muon import Muon
from bcd_bench_bcd.presets.base import TrainConfig

__all__ = ["Optimizers", "learning_rate_factor"]


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Factor on every learning rate at `step` (0-based): warm-up, then the schedule."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    progress = max(0, step - config.lr_hold_steps) / max(1, config.steps - config.lr_hold_steps)
    if config.lr_schedule == "cosine":
        return warm * (0.015 + 0.985 * (0.5 + 0.5 * math.cos(math.pi * progress)))
    if config.lr_schedule == "linear":
        return warm * max(0.01, 1 - progress)
    return warm


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a weight of attention or feed-forward inside the transformers, as Muon is intended for."""
    inside = any(part in name for part in ("decoder.blocks.", "decoder.temporal.", "t5.block.", "flow.layers."))
    last = name.endswith("flow.layers.4.weight")  # its outputs are coordinates
    return parameter.ndim == 2 and inside and not last and "modulation" not in name and "relative_attention" not in name


def _is_hidden_kernel(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a convolution kernel of the encoder's stem whose inputs are features. Such kernels are
    treated as matrices, output channels by inputs (Jordan et al. 2024)."""
    return parameter.ndim == 4 and name.startswith("encoder.stem.down.") and not name.startswith("encoder.stem.down.0.")


class Optimizers:
    """AdamW over everything or, with the extension `muon`, Muon over the hidden matrices and AdamW over the rest."""

    def __init__(self, model: nn.Module, config: TrainConfig, extensions: Extensions | None = None) -> None:
        self.config = config
        hidden = None if extensions is None else extensions.get(Muon)
        adam: dict[tuple[float, float], list[nn.Parameter]] = {}
        matrices_of: dict[float, list[nn.Parameter]] = {}
        kernels: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            scale = config.encoder_lr if name.startswith(("encoder.", "quantizer.")) else 1.0
            if hidden is not None and _is_hidden_matrix(name, parameter):
                matrices_of.setdefault(scale, []).append(parameter)
            elif hidden is not None and _is_hidden_kernel(name, parameter):
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
                kernels.setdefault(scale, []).append(parameter)
            else:
                decay = config.weight_decay if parameter.ndim >= 2 else 0.0
                adam.setdefault((scale, decay), []).append(parameter)
        self._kernels = [KernelMatrices(of_one_rate) for of_one_rate in kernels.values()]
        for scale, matrices in zip(kernels, self._kernels, strict=True):
            matrices_of.setdefault(scale, []).extend(matrices.matrices)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": p, "scale": s, "weight_decay": d, "base": config.lr} for (s, d), p in adam.items()],
                lr=config.lr,
                betas=config.betas,
                fused=True,
            )
        ]
        if hidden is not None and matrices_of:
            base = hidden.lr
            self.optimizers.append(
                muon_optimizer(
                    [{"params": p, "scale": s, "base": base} for s, p in matrices_of.items()],
                    next(model.parameters()).device.type,
                    lr=base,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )

    def set_rates(self, step: int) -> float:
        """Set every learning rate for `step`; returns the base rate."""
        factor = learning_rate_factor(step, self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * group["scale"] * factor
        return self.config.lr * factor

    def step(self) -> None:
        """Update all parameters and drop their gradients."""
        for kernels in self._kernels:
            kernels.take_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dicts(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dicts(self, states: Iterable[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
