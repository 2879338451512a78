"""The dense landmark network (a crop of a face -> points and their uncertainties) and its file (float16
safetensors)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.types.errors import UsageError

__all__ = ["DenseNet", "NetworkConfig", "Seen", "load_network", "network_bytes", "to_input"]

FORMAT: Final = "bcd-bench dense landmarks 2"
LOG_SIGMA: Final = (-3.0, 4.0)
"""Range of the predicted log of sigma, in pixels of the crop."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a network for square crops of `side` pixels and N points."""

    side: int
    points: int
    widths: tuple[int, int, int, int]
    """Channels at 1/2, 1/4, 1/8 and 1/16 of the crop's resolution."""
    blocks: tuple[int, int, int]
    """Residual blocks at the last three of these resolutions."""
    hidden: int
    coefficients: int
    """Number of head model coefficients (identity, then expression) that are also predicted."""


class Seen(NamedTuple):
    """Predictions for B crops."""

    points: Tensor
    """float[B, N, 2] in pixels of the crop"""
    log_sigma: Tensor
    """float[B, N]: log of the standard deviation along an axis, in pixels of the crop"""
    face: Tensor
    """float[B]: logit of the probability of a face"""
    codes: Tensor
    """float[B, K + E]: identity and expression codes; multiplied by the network's `decoder`, in head model units"""


class _Convolution(nn.Sequential):
    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, *, active: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outer),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if active else []))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = _Convolution(width, width, 3)
        self.two = _Convolution(width, width, 3, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.two(self.one(x)))


class DenseNet(nn.Module):
    """Strided convolutions with residual blocks, then one hidden layer over the remaining plane.

    Points are predicted as offsets from `mean` [N, 2] (a buffer, relative to the crop), so an untrained network
    predicts the mean face. `decoder` [K + E, K + E] (a buffer) maps codes to coefficients of the head model.
    """

    mean: Tensor
    decoder: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third, fourth = config.widths
        layers: list[nn.Module] = [_Convolution(3, first, 5, 2)]
        for inner, outer, blocks in zip((first, second, third), (second, third, fourth), config.blocks, strict=True):
            layers += [_Convolution(inner, outer, 3, 2), *(_Block(outer) for _ in range(blocks))]
        self.trunk = nn.Sequential(*layers, _Convolution(fourth, 48, 1))
        plane = -(-config.side // 16)
        self.hidden = nn.Linear(48 * plane * plane, config.hidden)
        self.points = nn.Linear(config.hidden, 2 * config.points)
        self.sigma = nn.Linear(config.hidden, config.points)
        self.face = nn.Linear(config.hidden, 1)
        self.codes = nn.Linear(config.hidden, config.coefficients)
        self.register_buffer("mean", torch.full((config.points, 2), 0.5))
        self.register_buffer("decoder", torch.eye(config.coefficients))
        nn.init.normal_(self.points.weight, std=0.01)
        nn.init.normal_(self.sigma.weight, std=0.01)
        nn.init.normal_(self.codes.weight, std=0.01)

    def forward(self, crops: Tensor) -> Seen:
        """`crops` float[B, 3, side, side] as returned by `to_input`."""
        x = torch.relu(self.hidden(self.trunk(crops).flatten(1)))
        offsets = self.points(x).float().unflatten(1, (-1, 2))
        side = self.config.side
        # the scales only set how fast the last layers learn: about one pixel, and one typical code, per unit
        points = (self.mean + offsets * 0.1) * side
        sigma = self.sigma(x).float().clamp(*LOG_SIGMA)
        return Seen(points, sigma, self.face(x).float()[:, 0], self.codes(x).float() * 0.1)


def to_input(crops: npt.NDArray[np.uint8]) -> Tensor:
    """Network input for crops uint8[B, side, side, 3] RGB, each standardised to mean 0 and standard deviation 1.

    This makes the result independent of exposure and contrast.
    """
    x = torch.tensor(crops).permute(0, 3, 1, 2).float()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    std = (x - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return ((x - mean) / (std + 4)).contiguous(memory_format=torch.channels_last)


def network_bytes(network: DenseNet, vertices: npt.NDArray[np.int32], card: dict[str, Any]) -> bytes:
    """The file content: weights in float16, the vertices of the head that the points are, and a card of their
    origin."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    halves = {
        name: value.half() if value.is_floating_point() and name != "decoder" else value
        for name, value in tensors.items()
    }
    halves = {name: value for name, value in halves.items() if not name.endswith("num_batches_tracked")}
    halves["vertices"] = torch.from_numpy(vertices.astype(np.int32))
    metadata = {"format": FORMAT, "network": json.dumps(asdict(network.config)), "card": json.dumps(card)}
    stored: bytes = safetensors.torch.save(halves, metadata)
    return stored


def load_network(path: Path) -> tuple[DenseNet, npt.NDArray[np.int32], dict[str, Any]]:
    """Load a network for inference, the vertices that its points are, and its card.

    Raises `UsageError` for any other file.
    """
    metadata, tensors = read_weight_file(
        path, form=FORMAT, what="dense landmark", maker="bcd-bench train dense-landmarks"
    )
    try:
        sizes = json.loads(metadata["network"])
        network = DenseNet(
            NetworkConfig(**{**sizes, "widths": tuple(sizes["widths"]), "blocks": tuple(sizes["blocks"])})
        )
        vertices = tensors.pop("vertices").numpy().astype(np.int32)
        weights = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        missing = network.load_state_dict(weights, strict=False).missing_keys
        if any(not name.endswith("num_batches_tracked") for name in missing):
            raise UsageError(f"{path.name}: weights are missing: {missing[0]}", hint="bcd-bench train dense-landmarks")
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{path.name}: the weights do not match their configuration: {line}") from None
    return (
        network.eval().requires_grad_(False).to(memory_format=torch.channels_last),
        vertices,
        json.loads(metadata["card"]),
    )
