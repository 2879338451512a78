"""Weights of Inception-v3 from a seed, in the format of the real file, and pictures to try them on."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench_fidelity.inception import Convolution, InceptionFID

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
