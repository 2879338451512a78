"""Random weights from a seed, for networks that run through every step without having learned anything.

They replace a published file to test the pipeline only (`--set seeded=N`); such a run is marked and never ranked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["fill_seeded"]


def fill_seeded(modules: Mapping[str, nn.Module], seed: int, fixed: Mapping[str, Tensor] | None = None) -> None:
    """Fill every tensor of `modules` (name -> module), each from the seed and its name alone.

    Convolutions and linear layers get N(0, 2 / fan-in), norm weights 1 + 0.1 n, running variances U(0.5, 1.5), running
    means 0.1 n and biases 0.05 n. `fixed` maps the end of a key to a tensor to use instead, such as filters that are
    not learned.
    """
    for name, module in modules.items():
        state = {}
        for key, tensor in module.state_dict().items():
            fixed_value = next((value for end, value in (fixed or {}).items() if key.endswith(end)), None)
            values = _draw(f"{name}/{key}", key.rpartition(".")[2], tuple(tensor.shape), seed)
            state[key] = (values if fixed_value is None else fixed_value).to(tensor.dtype)
        module.load_state_dict(state)


def _draw(name: str, leaf: str, shape: tuple[int, ...], seed: int) -> Tensor:
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=">u4")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *map(int, words)])))
    if leaf == "num_batches_tracked":
        return torch.zeros(shape)
    if leaf == "running_var":
        return torch.from_numpy(np.asarray(rng.uniform(0.5, 1.5, shape)))
    normal = torch.from_numpy(np.asarray(rng.standard_normal(shape, dtype=np.float32)))
    if leaf == "running_mean":
        return 0.1 * normal
    if leaf == "bias":
        return 0.05 * normal
    if len(shape) <= 1:
        return 1 + 0.1 * normal
    return normal * math.sqrt(2 / math.prod(shape[1:]))
