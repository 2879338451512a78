"""The folder of a training: who may write to it, and whether a command begins a run there or resumes one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bcd_bench.training.checkpoint import CHECKPOINT
from bcd_bench.types.errors import UsageError
from bcd_bench.util.locking import locked

__all__ = ["checkpoints_to_resume", "training_folder", "writing_into"]


@contextmanager
def training_folder(out: Path) -> Iterator[None]:
    """Make the folder of a training and be the only one that writes to it.

    In a distributed training the process of rank 0 has the lock. Raises `UsageError` if the folder cannot be written,
    or another training writes to it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = locked(out) if int(os.environ.get("RANK") or 0) == 0 else nullcontext()
        lock.__enter__()
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})", hint="give another --out") from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@contextmanager
def writing_into(out: Path) -> Iterator[None]:
    """Make the folder `out` for the first files of a run. Raises `UsageError` if it, or one of them, cannot be
    written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})", hint="give another --out") from None


def checkpoints_to_resume(
    out: Path, *, resume: bool, checkpoints: Iterable[Path] | None = None, prepared: Path | None = None
) -> list[Path]:
    """The checkpoints of the run in `out`, none if a run is to begin there.

    `checkpoints` are the files that a run may have, of all its stages; by default `out / "checkpoint.pt"` alone. A
    trainer with long work before its first step names a file `prepared` that this work leaves: if it is there,
    `--resume` is accepted without a checkpoint, and the run begins with what has been prepared.

    Raises `UsageError` if the folder holds a run and `--resume` is not given, or the other way round.
    """
    possible = (out / CHECKPOINT,) if checkpoints is None else checkpoints
    found = [path for path in possible if path.exists()]
    if found and not resume:
        raise UsageError(
            f"{found[0].parent}: holds a training run already",
            hint="add --resume to continue it, or give another --out",
        )
    if resume and not found and not (prepared and prepared.exists()):
        raise UsageError(f"{out}: there is no checkpoint to resume", hint="start without --resume")
    return found
