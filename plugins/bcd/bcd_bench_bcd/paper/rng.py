"""Random numbers of a training step, from one source, so that a step can be repeated exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Rng", "RngLike", "as_rng"]

CPU = torch.device("cpu")


class Rng:
    """Random tensors whose first axis is a batch of clips, from one generator (None: torch's default).

    Uniform numbers are drawn on the CPU. Normal ones are drawn on the device that needs them, by a generator there that
    is seeded from this one: a GPU would wait for millions of normals drawn on the CPU.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self._on_device: dict[torch.device, torch.Generator] = {}

    @property
    def shared(self) -> Rng:
        """Random numbers for the batch as a whole, with any number of rows."""
        return self

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), float32, on the CPU."""
        return torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int, device: torch.device = CPU) -> Tensor:
        """Unit normal, float32, on `device`."""
        return torch.randn(shape, generator=self._generator_on(device), device=device)

    def uniform_by_frame(self, shape: Sequence[int], batch: int, device: torch.device = CPU) -> Tensor:
        """Uniform [N, batch * T, J] on `device`; the middle axis holds clips and frames."""
        del batch
        return torch.rand(tuple(shape), generator=self._generator_on(device), device=device)

    def _generator_on(self, device: torch.device) -> torch.Generator | None:
        if self.generator is None or device.type == "cpu":
            return self.generator
        if device not in self._on_device:
            seed = int(torch.randint(1 << 62, (), generator=self.generator))
            self._on_device[device] = torch.Generator(device).manual_seed(seed)
        return self._on_device[device]


RngLike: TypeAlias = "torch.Generator | Rng | None"


def as_rng(source: RngLike) -> Rng:
    """`source` itself if it is an `Rng`, else an `Rng` that uses it as its generator."""
    return source if isinstance(source, Rng) else Rng(source)
