"""The optimiser of the dense landmark network: Muon for its hidden matrices, AdamW for all other parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bcd_bench.training import KernelMatrices, muon_optimizer
from bcd_bench_faces.dense_landmarks.config import Recipe
from bcd_bench_faces.dense_landmarks.network import DenseNet

__all__ = ["Optimizer"]


class Optimizer:
    """AdamW and Muon behind one `step`.

    Muon (Jordan et al., 2024) orthogonalises the update of a matrix. A convolution is treated as a matrix, output
    channels by inputs; the first one, with three input channels, the outputs and all parameters that are not matrices
    use AdamW. The network must be in channels_last format, and must not be moved or converted afterwards.
    """

    def __init__(self, network: DenseNet, recipe: Recipe) -> None:
        self._recipe = recipe
        layers = [m for m in network.trunk.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 3]
        kernels = [layer.weight for layer in layers]
        self._kernels = KernelMatrices(kernels)
        hidden = network.hidden.weight
        orthogonal = {id(value) for value in (*kernels, hidden)}
        others = [value for value in network.parameters() if id(value) not in orthogonal]
        groups = [
            {"params": [value for value in others if value.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [value for value in others if value.ndim <= 1], "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW(groups, recipe.lr)
        matrices = [*self._kernels.matrices, hidden]
        self._muon = muon_optimizer(matrices, hidden.device.type, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)

    def step(self, factor: float) -> None:
        """Update the network from its gradients, with both learning rates multiplied by `factor`."""
        for optimizer, rate in ((self._adamw, self._recipe.lr), (self._muon, self._recipe.muon_lr)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        self._kernels.take_gradients()
        self._muon.step()
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self._adamw.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adamw.load_state_dict(state["adamw"])
        self._muon.load_state_dict(state["muon"])
