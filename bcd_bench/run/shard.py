"""Shards: parts of one run that different machines work on, without locks between them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bcd_bench.types.errors import UsageError

__all__ = ["SHARDS", "Shard"]

SHARDS = "shards"
"""Folder in a run folder with one folder per shard, until they are merged."""
_NAME = re.compile(r"(\d{4,})-of-(\d{4,})")


@dataclass(frozen=True)
class Shard:
    """Shard `number` (1 to `count`) of `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """The name of its folder, such as `0001-of-0004`."""
        return f"{self.number:04d}-of-{self.count:04d}"

    @classmethod
    def from_name(cls, name: str) -> Shard | None:
        """The shard of a folder name; None for any other name."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2])) if match else None

    def has(self, index: int, part_size: int) -> bool:
        """Whether this shard has the pair at `index` of a plan: parts of `part_size` pairs are dealt out in turn."""
        return index // part_size % self.count == self.number - 1

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> Shard:
        """The shard of `--shard I/N`, with I from 1 to N, or of `--shard auto`: the first of these that is set.

        SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT, _MIN and _MAX (a job array), RANK with WORLD_SIZE (torchrun),
        SLURM_PROCID with SLURM_NTASKS (srun). Raises `UsageError` for anything else.
        """
        if text == "auto":
            return cls._from_environment(os.environ if environ is None else environ)
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise UsageError(f"--shard {text}: must be I/N or auto", hint="--shard 1/4")
        return cls._checked(int(number), int(count), f"--shard {text}")

    @classmethod
    def _checked(cls, number: int, count: int, where: str) -> Shard:
        if count < 1:
            raise UsageError(f"{where}: there must be at least one shard", hint="--shard 1/4")
        if not 1 <= number <= count:
            raise UsageError(f"{where}: the number must be from 1 to {count}", hint=f"--shard 1/{count}")
        return cls(number, count)

    @classmethod
    def _from_environment(cls, environ: Mapping[str, str]) -> Shard:
        def value(name: str, default: int | None = None) -> int:
            text = environ.get(name, "" if default is None else str(default))
            if not text.isdecimal():
                raise UsageError(f"--shard auto: {name} is {text!r}, not a number", hint="--shard I/N")
            return int(text)

        if "SLURM_ARRAY_TASK_ID" in environ:
            task, count = value("SLURM_ARRAY_TASK_ID"), value("SLURM_ARRAY_TASK_COUNT")
            first = value("SLURM_ARRAY_TASK_MIN", 1)
            step = value("SLURM_ARRAY_TASK_STEP", 1) or 1
            if value("SLURM_ARRAY_TASK_MAX", first + (count - 1) * step) != first + (count - 1) * step:
                raise UsageError(
                    "--shard auto: the task numbers of the job array have gaps", hint=f"sbatch --array=1-{count}"
                )
            return cls._checked((task - first) // step + 1, count, f"--shard auto (SLURM_ARRAY_TASK_ID={task})")
        for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
            if rank in environ:
                return cls._checked(value(rank) + 1, value(size), f"--shard auto ({rank}={environ[rank]})")
        raise UsageError(
            "--shard auto: none of SLURM_ARRAY_TASK_ID, RANK and SLURM_PROCID is set", hint="--shard I/N, such as 1/4"
        )
