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


CPU = torch.device("cpu")


class Draws:
    """Random tensors whose first axis is a batch of clips.

    From one generator they are drawn as a whole: on the CPU, or where a `device` is asked for by a generator there,
    seeded from this one (a GPU would wait for millions of normals drawn here). From one generator a clip, every clip's
    numbers are its own and drawn on the CPU: they do not depend on its batch mates, nor on the device. Batches may
    hold every clip several times, as a whole after the other.
    """

    def __init__(self, generators: torch.Generator | Sequence[torch.Generator] | None) -> None:
        self._own = list(generators) if isinstance(generators, Sequence) else None
        self._one = None if isinstance(generators, Sequence) else generators
        self._there: dict[torch.device, torch.Generator] = {}

    @property
    def generator(self) -> torch.Generator | None:
        """For what concerns the batch as a whole (the first clip's, where every clip has its own)."""
        return self._one if self._own is None else self._own[0]

    @property
    def whole(self) -> Draws:
        """What draws for the batch as a whole, any number of rows."""
        return Draws(self.generator) if self._own is not None else self

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), float32, on the CPU."""
        return self._drawn(torch.rand, shape, CPU)

    def normal(self, *shape: int, device: torch.device = CPU) -> Tensor:
        """Unit normal, float32, on `device`."""
        return self._drawn(torch.randn, shape, device)

    def by_frame(self, shape: Sequence[int], batch: int, device: torch.device = CPU) -> Tensor:
        """Uniform [N, batch * T, J] on `device`: clips and frames share the middle axis."""
        if self._own is None:
            return self._drawn(torch.rand, shape, device)
        groups, rows, entries = shape
        return self.uniform(batch, rows // batch, groups, entries).flatten(0, 1).transpose(0, 1).to(device)

    def _drawn(self, draw: Callable[..., Tensor], shape: Sequence[int], device: torch.device) -> Tensor:
        if self._own is None:
            return draw(tuple(shape), generator=self._generator_on(device), device=device)
        times = shape[0] // len(self._own)
        return torch.stack([draw(tuple(shape[1:]), generator=g) for _ in range(times) for g in self._own]).to(device)

    def _generator_on(self, device: torch.device) -> torch.Generator | None:
        if self._one is None or device.type == "cpu":
            return self._one
        if device not in self._there:
            seed = int(torch.randint(1 << 62, (), generator=self._one))
            self._there[device] = torch.Generator(device).manual_seed(seed)
        return self._there[device]


Source = torch.Generator | Draws | None


def as_draws(source: Source) -> Draws:
    """`source` itself, or what is drawn from one generator (None: torch's own)."""
    return source if isinstance(source, Draws) else Draws(source)
