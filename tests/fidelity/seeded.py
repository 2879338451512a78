"""Weights from a seed, in the format of the real files, and pictures to try them on."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench_fidelity.i3d import I3D, _Convolution
from bcd_bench_fidelity.inception import Convolution, InceptionFID
from bcd_bench_fidelity.perceptual_network import CHANNELS

CLASSES = 1008


def seeded_inception() -> dict[str, Tensor]:
    """Every tensor of the real file by its name: values from NumPy, so that they are the same with any torch."""
    weights: dict[str, Tensor] = {}

    def put(name: str, values: npt.NDArray[np.float64]) -> None:
        weights[name] = torch.from_numpy(values.astype(np.float32))

    for name, layer in InceptionFID().named_modules():
        if isinstance(layer, Convolution):
            rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
            shape = tuple(layer.weight.shape)
            put(f"{name}.conv.weight", rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])))
            put(f"{name}.bn.weight", rng.uniform(0.8, 1.2, shape[0]))
            put(f"{name}.bn.bias", rng.normal(0, 0.1, shape[0]))
            put(f"{name}.bn.running_mean", rng.normal(0, 0.1, shape[0]))
            put(f"{name}.bn.running_var", rng.uniform(0.8, 1.2, shape[0]))
            weights[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    put("fc.weight", np.zeros((CLASSES, 2048)))
    put("fc.bias", np.zeros(CLASSES))
    return weights


def seeded_alexnet() -> dict[str, Tensor]:
    """The convolutions of torchvision's file by its names."""
    weights = {}
    inputs = (3, *CHANNELS[:-1])
    for index, size, before, after in zip((0, 3, 6, 8, 10), (11, 5, 3, 3, 3), inputs, CHANNELS, strict=True):
        weights[f"features.{index}.weight"] = _kernel(f"alexnet {index}", (after, before, size, size))
        weights[f"features.{index}.bias"] = _uniform(f"alexnet {index} bias", after, -0.1, 0.1)
    return weights


def seeded_heads() -> dict[str, Tensor]:
    """The layer weights of LPIPS by its names: never negative, as in the real file."""
    return {
        f"lin{index}.model.1.weight": _uniform(f"head {index}", channels, 0, 1).reshape(1, channels, 1, 1)
        for index, channels in enumerate(CHANNELS)
    }


def seeded_i3d() -> dict[str, Tensor]:
    """Every tensor of the real file by its name."""
    weights: dict[str, Tensor] = {}
    with torch.device("meta"):
        layers = [(name, layer) for name, layer in I3D().named_modules() if isinstance(layer, _Convolution)]
    for name, layer in layers:
        channels = layer.conv3d.out_channels
        weights[f"{name}.conv3d.weight"] = _kernel(name, tuple(layer.conv3d.weight.shape))
        for part, low, high in (("weight", 0.8, 1.2), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2)):
            weights[f"{name}.bn.{part}"] = _uniform(f"{name} {part}", channels, low, high)
        weights[f"{name}.bn.running_var"] = _uniform(f"{name} variance", channels, 0.8, 1.2)
        weights[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    weights["logits.conv3d.weight"] = _kernel("logits", (400, 1024, 1, 1, 1))
    weights["logits.conv3d.bias"] = _uniform("logits bias", 400, -0.1, 0.1)
    return weights


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))


def _kernel(name: str, shape: tuple[int, ...]) -> Tensor:
    values = _rng(name).standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return torch.from_numpy(values)


def _uniform(name: str, count: int, low: float, high: float) -> Tensor:
    return torch.from_numpy(_rng(name).uniform(low, high, count).astype(np.float32))


def pictures(count: int, height: int, width: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8[count, height, width, 3]: soft blobs of colour and a little noise, different from each other."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    made = np.zeros((count, height, width, 3))
    for picture in made:
        for _ in range(6):
            top, left, size = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.3)
            blob = np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / (2 * size**2))
            picture += blob[..., None] * rng.uniform(0, 160, 3)
        picture += rng.normal(0, 8, picture.shape)
    clipped: npt.NDArray[np.uint8] = np.clip(made, 0, 255).astype(np.uint8)
    return clipped
