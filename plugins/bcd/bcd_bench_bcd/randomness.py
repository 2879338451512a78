"""The random numbers of training: from (seed, step) alone, so that a run that was stopped continues exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Draws", "Source", "as_draws", "clip_generators", "epoch_generator", "step_generator"]


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.sha256("/".join(map(str, ("bcd-train", *key))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """The random numbers of one step of one process, on the CPU."""
    return _generator(seed, step, process)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random numbers that decide the order of the clips in an epoch."""
    return _generator(seed, "epoch", epoch)


def clip_generators(seed: int, step: int, places: Sequence[int]) -> list[torch.Generator]:
    """One generator for each clip at these places of a step's whole batch, whatever process computes it."""
    return [_generator(seed, step, "clip", place) for place in places]


class Draws:
    """Random tensors whose first axis is a batch of clips, on the CPU.

    From one generator they are drawn as a whole. From one generator a clip, every clip's numbers are its own: they do
    not depend on its batch mates. Batches may hold every clip several times, as a whole after the other.
    """

    def __init__(self, generators: torch.Generator | Sequence[torch.Generator] | None) -> None:
        self._own = list(generators) if isinstance(generators, Sequence) else None
        self._one = None if isinstance(generators, Sequence) else generators

    @property
    def generator(self) -> torch.Generator | None:
        """For what concerns the batch as a whole (the first clip's, where every clip has its own)."""
        return self._one if self._own is None else self._own[0]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), float32."""
        return self._drawn(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Unit normal, float32."""
        return self._drawn(torch.randn, shape)

    def by_frame(self, shape: Sequence[int], batch: int) -> Tensor:
        """Uniform [N, batch * T, J]: clips and frames share the middle axis."""
        if self._own is None:
            return torch.rand(tuple(shape), generator=self._one)
        groups, rows, entries = shape
        return self.uniform(batch, rows // batch, groups, entries).flatten(0, 1).transpose(0, 1)

    def _drawn(self, draw: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        if self._own is None:
            return draw(tuple(shape), generator=self._one)
        times = shape[0] // len(self._own)
        return torch.stack([draw(tuple(shape[1:]), generator=g) for _ in range(times) for g in self._own])


Source = torch.Generator | Draws | None


def as_draws(source: Source) -> Draws:
    """`source` itself, or what is drawn from one generator (None: torch's own)."""
    return source if isinstance(source, Draws) else Draws(source)
