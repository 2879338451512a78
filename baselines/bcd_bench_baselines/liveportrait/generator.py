"""G of LivePortrait: warped features to a picture. Parameters as in `spade_generator.pth`, spectral norms folded.

Its normalisation is SPADE (Park et al., 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SpadeGenerator", "fold_spectral_norms"]

SLOPE = 0.2


def fold_spectral_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights over their spectral norms in place of what a normalised layer stores (`weight_orig`, `_u`, `_v`).

    The norm is u' W v with the stored vectors, as the layer itself has it in evaluation. Keys of a layer of which a
    part is missing stay as they are, so that loading names them.
    """
    folded = dict(state)
    for key, weight in state.items():
        layer, found, _ = key.rpartition("weight_orig")
        vectors = (f"{layer}weight_u", f"{layer}weight_v")
        if found and all(name in state for name in vectors):
            u, v = (state[name].double() for name in vectors)
            matrix = weight.flatten(1)
            norm = torch.dot(u, matrix.double() @ v)
            for name in (key, *vectors):
                del folded[name]
            folded[f"{layer}weight"] = (weight.double() / norm).to(weight.dtype)
    return folded


class SPADE(nn.Module):
    """Instance norm whose scale and shift are drawn from the condition."""

    def __init__(self, channels: int, condition: int = 256, hidden: int = 128) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(condition, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(condition, size=x.shape[2:], mode="nearest"))
        return F.instance_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SpadeBlock(nn.Module):
    """A residual block of two normalised convolutions; with a 1 x 1 one beside them where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.conv_0 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, outputs, 3, padding=1)
        self.norm_0 = SPADE(inputs)
        self.norm_1 = SPADE(middle)
        self.learned = inputs != outputs
        if self.learned:
            self.conv_s = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.norm_s = SPADE(inputs)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        beside = self.conv_s(self.norm_s(x, condition)) if self.learned else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, condition), SLOPE))
        out: Tensor = beside + self.conv_1(F.leaky_relu(self.norm_1(x, condition), SLOPE))
        return out


class SpadeGenerator(nn.Module):
    """Warped features [B, 256, 64, 64] -> RGB [B, 3, 512, 512] in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(256, 512, 3, padding=1)
        for index in range(6):
            self.add_module(f"G_middle_{index}", SpadeBlock(512, 512))
        self.up_0 = SpadeBlock(512, 256)
        self.up_1 = SpadeBlock(256, 64)
        self.conv_img = nn.Sequential(nn.Conv2d(64, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        x = self.fc(features)
        for index in range(6):
            x = self.get_submodule(f"G_middle_{index}")(x, features)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2, mode="nearest"), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, SLOPE)).float())
