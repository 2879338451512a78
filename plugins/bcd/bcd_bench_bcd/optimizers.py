"""Which optimiser updates which parameter, and how fast at which step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from bcd_bench_bcd.configs import TrainConfig

__all__ = ["Optimizers", "learning_rate_factor"]


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Warm-up, then the schedule: the factor on every learning rate at `step` (0-based)."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    done = step / config.steps
    if config.schedule == "cosine":
        return warm * (0.015 + 0.985 * (0.5 + 0.5 * math.cos(math.pi * done)))
    if config.schedule == "linear":
        return warm * max(0.01, 1 - done)
    return warm


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Weights of attention and feed-forward inside the transformers: what Muon is made for."""
    inside = any(part in name for part in ("decoder.blocks.", "decoder.temporal.", "t5.block."))
    return parameter.ndim == 2 and inside and "modulation" not in name and "relative_attention" not in name


class Optimizers:
    """AdamW over everything, or Muon over the hidden matrices and AdamW over the rest; the adversary has its own."""

    def __init__(self, model: nn.Module, adversary: nn.Module | None, config: TrainConfig) -> None:
        self.config = config
        adam: dict[tuple[float, float], list[nn.Parameter]] = {}
        muon: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            scale = config.encoder_lr if name.startswith(("encoder.", "quantizer.")) else 1.0
            if config.optimizer == "muon" and _is_hidden_matrix(name, parameter):
                muon.setdefault(scale, []).append(parameter)
            else:
                decay = config.weight_decay if parameter.ndim >= 2 else 0.0
                adam.setdefault((scale, decay), []).append(parameter)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": p, "scale": s, "weight_decay": d, "base": config.lr} for (s, d), p in adam.items()],
                lr=config.lr,
                betas=config.betas,
                fused=True,
            )
        ]
        if muon:
            base = config.muon_lr or config.lr
            self.optimizers.append(
                torch.optim.Muon(
                    [{"params": p, "scale": s, "base": base} for s, p in muon.items()],
                    lr=base,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if adversary is not None:
            groups = [{"params": list(adversary.parameters()), "scale": 1.0, "base": 2e-3}]
            self.optimizers.append(torch.optim.AdamW(groups, lr=2e-3, betas=(0.8, 0.99), fused=True))
            self._constant = {id(self.optimizers[-1])}
        else:
            self._constant = set()

    def set_rates(self, step: int) -> float:
        """Set every learning rate for `step`; returns the base rate."""
        factor = learning_rate_factor(step, self.config)
        for optimizer in self.optimizers:
            if id(optimizer) in self._constant:
                continue
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * group["scale"] * factor
        return self.config.lr * factor

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dicts(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dicts(self, states: Iterable[dict]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
