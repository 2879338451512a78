"""The training folder: exclusive write access, and the choice between starting and resuming a run."""

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
    """Create the folder of a training run and acquire exclusive write access.

    In distributed training, the process of rank 0 holds the lock. Raises `UsageError` if the folder cannot be written,
    or another training run writes to it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = locked(out) if int(os.environ.get("RANK") or 0) == 0 else nullcontext()
        lock.__enter__()
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})", hint="use a different --out") from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@contextmanager
def writing_into(out: Path) -> Iterator[None]:
    """Create the folder `out` for the first files of a run. Raises `UsageError` if it, or one of the files, cannot be
    written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})", hint="use a different --out") from None


def checkpoints_to_resume(
    out: Path, *, resume: bool, checkpoints: Iterable[Path] | None = None, prepared: Path | None = None
) -> list[Path]:
    """The checkpoints of the run in `out`; empty if a new run starts there.

    `checkpoints` are the possible files of a run, of all its stages; by default only `out / "checkpoint.pt"`. A trainer
    with long preprocessing before its first step passes the file `prepared` that the preprocessing writes: if it
    exists, `--resume` is accepted without a checkpoint, and the run starts with the preprocessed data.

    Raises `UsageError` if the folder contains a run and `--resume` is not given, or vice versa.
    """
    candidates = (out / CHECKPOINT,) if checkpoints is None else checkpoints
    existing = [path for path in candidates if path.exists()]
    if existing and not resume:
        raise UsageError(
            f"{existing[0].parent}: already contains a training run",
            hint="add --resume to continue it, or use a different --out",
        )
    if resume and not existing and not (prepared and prepared.exists()):
        raise UsageError(f"{out}: no checkpoint to resume", hint="start without --resume")
    return existing
