"""The random numbers of training: derived from (seed, step) alone, so that an interrupted run resumes exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bcd_bench_bcd.paper.rng import CPU, Rng

__all__ = ["ClipRng", "clip_generators", "epoch_generator", "step_generator"]


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.sha256("/".join(map(str, ("bcd-train", *key))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def step_generator(seed: int, step: int, key: int | str = 0) -> torch.Generator:
    """The random numbers of one step, on the CPU; `key` distinguishes different uses within the same step."""
    return _generator(seed, step, key)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random numbers that determine the order of the clips in an epoch."""
    return _generator(seed, "epoch", epoch)


def clip_generators(seed: int, step: int, positions: Sequence[int]) -> list[torch.Generator]:
    """One generator for each clip at these positions of a step's whole batch, independent of the process."""
    return [_generator(seed, step, "clip", position) for position in positions]


class ClipRng(Rng):
    """Random numbers from one generator per clip, drawn on the CPU.

    A clip's numbers depend neither on its batch mates nor on the device. Batches may hold every clip several times, one
    copy of the whole batch after the other.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__(generators[0])
        self._generators = list(generators)

    @property
    def shared(self) -> Rng:
        return Rng(self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return self._drawn(torch.rand, shape)

    def normal(self, *shape: int, device: torch.device = CPU) -> Tensor:
        return self._drawn(torch.randn, shape).to(device)

    def uniform_by_frame(self, shape: Sequence[int], batch: int, device: torch.device = CPU) -> Tensor:
        groups, rows, entries = shape
        return self.uniform(batch, rows // batch, groups, entries).flatten(0, 1).transpose(0, 1).to(device)

    def _drawn(self, draw: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        times = shape[0] // len(self._generators)
        return torch.stack([draw(tuple(shape[1:]), generator=g) for _ in range(times) for g in self._generators])
