"""A critic of the fused pictures, which tells them from rendered frames.

Errors of single pixels have their minimum at the mean of all pictures that could be right, which is a blur where the
content does not show what the frame needs. A blur is easy to tell from a frame: the critic, a small convolutional
network, learns it beside the pixel path (hinge loss, Lim and Ye 2017), and the pixel path learns to be mistaken for a
frame, and to have the target's features in the critic (as in pix2pixHD, Wang et al. 2018).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from bcd_bench_bcd.pixels.config import PixelTrainConfig

__all__ = ["Critic", "PatchCritic"]

WIDTHS = (32, 64, 128)
"""Channels at half, a quarter and an eighth of the picture's size."""


class PatchCritic(nn.Module):
    """A logit for every 8 x 8 pixels of a picture, from about 50 x 50 pixels around them."""

    def __init__(self) -> None:
        super().__init__()
        sizes = zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(inner, outer, 4, 2, 1)) for inner, outer in sizes)
        self.logits = spectral_norm(nn.Conv2d(WIDTHS[-1], 1, 3, 1, 1))

    def forward(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`picture` [N, 3, h, w] in -1..1 -> logits [N, h / 8, w / 8], and the features of every layer."""
        features = []
        x = picture
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.logits(x)[:, 0], features


class Critic:
    """The network with its optimiser; its state is part of a checkpoint."""

    def __init__(self, config: PixelTrainConfig, device: torch.device) -> None:
        self.network = PatchCritic().to(device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.critic_lr, betas=(0.5, 0.99), weight_decay=0
        )

    def terms(self, picture: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What the pixel path minimises for its pictures [N, 3, h, w], given the targets: minus the mean logit, and the
        mean difference of the features."""
        self.network.requires_grad_(False)
        logits, features = self.network(torch.cat([picture, target]))
        pairs = [maps.chunk(2) for maps in features]
        differences = [(one - other.detach()).abs().mean() for one, other in pairs]
        return {"adversarial": -logits.chunk(2)[0].mean(), "features": torch.stack(differences).mean()}

    def learn(self, picture: Tensor, target: Tensor) -> Tensor:
        """One optimiser step on pictures and targets [N, 3, h, w]; returns the hinge loss before it."""
        self.network.requires_grad_(True)
        false, true = self.network(torch.cat([picture.detach(), target]))[0].chunk(2)
        loss = nn.functional.relu(1 + false).mean() + nn.functional.relu(1 - true).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """The state of network and optimiser."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
