"""Which clips a step learns from, and which of them a process computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bcd_bench.errors import UsageError
from bcd_bench_bcd.configs import Preset, TrainConfig
from bcd_bench_bcd.randomness import Draws, clip_generators, epoch_generator

__all__ = ["Batches", "Part", "check_parts", "steps_of"]


@dataclass(frozen=True)
class Part:
    """Clips that are computed together, and the seeds of their random numbers."""

    indices: Sequence[int]
    seeds: tuple[int, int, Sequence[int]]

    def draws(self) -> Draws:
        """New random numbers of these clips: the same ones each time."""
        return Draws(clip_generators(*self.seeds))


def steps_of(train: TrainConfig, clips: int) -> int:
    """How many steps a run has over so many training clips. Raises `UsageError` where they do not fill a batch."""
    if train.epochs is None:
        return train.steps
    if clips < train.batch:
        raise UsageError(
            f"{clips} training clips do not fill a batch of {train.batch}", hint=f"--set train.batch={max(clips, 1)}"
        )
    return train.epochs * (clips // train.batch)


def check_parts(preset: Preset, processes: int) -> None:
    """Raise `UsageError` where a step cannot be shared evenly among processes and parts, or not without changing what
    is learned: some of our additions look at the batch as a whole.
    """
    train, objective = preset.train, preset.objective
    parts = processes * train.accumulate
    if train.batch % parts:
        shared = f"{processes} processes" + (f" with {train.accumulate} parts each" if train.accumulate > 1 else "")
        fit = max(parts, round(train.batch / parts) * parts)
        raise UsageError(f"{shared} cannot share a batch of {train.batch}", hint=f"--set train.batch={fit}")
    if preset.model.latent is not None and (train.mirror or objective.recolour):
        raise UsageError("train.mirror and objective.recolour change pixels; this preset learns from latents")
    if train.order == "epochs" and (train.half_frames is not None or train.mirror):
        raise UsageError("train.half_frames and train.mirror draw for the batch as a whole: train.order=random only")
    if train.order == "epochs" and train.patch_floor < 1:
        raise UsageError("train.patch_floor draws for the batch as a whole: train.order=random only")
    if parts == 1:
        return
    if train.order != "epochs":
        raise UsageError(
            "several processes or parts need random numbers that belong to clips", hint="--set train.order=epochs"
        )
    whole = {
        "model.quantizer.normalize": preset.model.quantizer.normalize != "none",
        "objective.revive_every": objective.revive_every,
        "objective.adversary": objective.adversary,
        "objective.cycle": objective.cycle,
        "objective.few_content": objective.few_content,
        "objective.recolour": objective.recolour,
        "objective.quantize_from": objective.quantize_from,
    }
    for name, used in whole.items():
        if used:
            raise UsageError(f"{name} looks at the batch as a whole: one process and one part only")


class Batches:
    """The order of the clips: a pure function of seed and step."""

    def __init__(self, clips: int, train: TrainConfig, processes: int, process: int) -> None:
        self.clips, self.train, self.processes, self.process = clips, train, processes, process
        self._epoch: tuple[int, Tensor] | None = None

    def whole(self, step: int) -> list[int]:
        """The indices of all clips of a step, for the order "epochs"."""
        size = self.train.batch
        epoch, place = divmod(step, max(1, self.clips // size))
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, torch.randperm(self.clips, generator=epoch_generator(self.train.seed, epoch))
        indices: list[int] = self._epoch[1][place * size : (place + 1) * size].tolist()
        return indices

    def parts(self, step: int) -> list[Part]:
        """What this process computes in a step, for the order "epochs"."""
        whole, parts = self.whole(step), self.train.accumulate
        size = len(whole) // (self.processes * parts)
        first = self.process * parts * size
        places = [range(first + part * size, first + (part + 1) * size) for part in range(parts)]
        return [Part([whole[place] for place in some], (self.train.seed, step, some)) for some in places]
