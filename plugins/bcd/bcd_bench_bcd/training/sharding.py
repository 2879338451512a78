"""The clips of a step, and their distribution over processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.presets.base import Preset, TrainConfig
from bcd_bench_bcd.training.rng import ClipRng, clip_generators, epoch_generator

__all__ = ["Batches", "Part", "check_parts", "steps_of"]


@dataclass(frozen=True)
class Part:
    """Clips that are computed together, and the seeds of their random numbers."""

    indices: Sequence[int]
    seeds: tuple[int, int, Sequence[int]]

    def rng(self) -> ClipRng:
        """The random numbers of these clips, restarted: the same ones on each call."""
        return ClipRng(clip_generators(*self.seeds))


def steps_of(train: TrainConfig, clips: int) -> int:
    """Number of steps of a run over this many training clips. Raises `UsageError` if they do not fill a batch."""
    if train.epochs is None:
        return train.steps
    if clips < train.batch:
        raise UsageError(
            f"{clips} training clips do not fill a batch of {train.batch}", hint=f"--set train.batch={max(clips, 1)}"
        )
    return train.epochs * (clips // train.batch)


def check_parts(preset: Preset, processes: int) -> None:
    """Raise `UsageError` if a step cannot be split evenly among processes and parts, or if splitting it would change
    the training: some extensions need the whole batch at once.
    """
    train = preset.train
    parts = processes * train.accumulate
    if train.batch % parts:
        shared = f"{processes} processes" + (f" with {train.accumulate} parts each" if train.accumulate > 1 else "")
        fit = max(parts, round(train.batch / parts) * parts)
        raise UsageError(f"{shared} cannot split a batch of {train.batch} evenly", hint=f"--set train.batch={fit}")
    if parts == 1:
        return
    if train.order != "epochs":
        raise UsageError(
            "several processes or parts (train.accumulate) require random numbers per clip",
            hint="--set train.order=epochs",
        )
    for extension in preset.extensions:
        if extension.needs_whole_batch:
            raise UsageError(
                f"extension {extension.name} needs the whole batch at once: use one process and train.accumulate=1",
                hint=f"or switch it off with --set extensions.{extension.name}=null",
            )


class Batches:
    """The order of the clips, determined by seed and step."""

    def __init__(self, clips: int, train: TrainConfig, processes: int, process: int) -> None:
        self.clips, self.train, self.processes, self.process = clips, train, processes, process
        self._epoch: tuple[int, Tensor] | None = None

    def whole(self, step: int) -> list[int]:
        """The indices of all clips of a step, for the order "epochs"."""
        size = self.train.batch
        epoch, position = divmod(step, max(1, self.clips // size))
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, torch.randperm(self.clips, generator=epoch_generator(self.train.seed, epoch))
        indices: list[int] = self._epoch[1][position * size : (position + 1) * size].tolist()
        return indices

    def parts(self, step: int) -> list[Part]:
        """The parts that this process computes in a step, for the order "epochs"."""
        indices, parts = self.whole(step), self.train.accumulate
        size = len(indices) // (self.processes * parts)
        first = self.process * parts * size
        shares = [range(first + part * size, first + (part + 1) * size) for part in range(parts)]
        return [Part([indices[position] for position in share], (self.train.seed, step, share)) for share in shares]
