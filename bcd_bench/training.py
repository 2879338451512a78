"""What a trainable asks of the harness: the training split of a suite, its files and its log, its end.

Importing this module imports neither torch nor safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bcd_bench.atomic import atomic_path, write_bytes_atomic, write_text_atomic
from bcd_bench.errors import Interrupted, UsageError
from bcd_bench.locking import locked
from bcd_bench.specs import TrainingClips, TrainRequest, load_factory

if TYPE_CHECKING:
    import torch

__all__ = [
    "forget_after",
    "open_training_clips",
    "save_tensors",
    "save_torch",
    "say_unfinished",
    "training_folder",
    "writing_checkpoint",
]


def open_training_clips(suite: str, request: TrainRequest) -> TrainingClips:
    """The training split that the suite's plugin offers.

    Raises `UsageError` where it has none, and for `--data` that the suite has no use for.
    """
    from bcd_bench.plugins import load_registry

    spec = load_registry().get("suites", suite)
    if not spec.training:
        raise UsageError(f"suite {suite!r} has no training split", hint="choose another with --set train.suite=NAME")
    for name in request.data:
        if name not in spec.data:
            raise UsageError(f"--data {name}: suite {suite!r} takes {', '.join(spec.data) or 'no data'}")
    clips: TrainingClips = load_factory(spec.training)(request.data)
    return clips


def say_unfinished(done: int, last: int, *, stopped: bool, limit: str, aloud: bool = True) -> None:
    """Say how a saved training that ended before its last step goes on; nothing where it reached that.

    `limit` names what ended it if nobody stopped it, and is printed only `aloud`. Raises `Interrupted` if somebody did.
    """
    if done >= last:
        return
    message = f"{'stopped' if stopped else limit} at step {done} of {last}; everything is saved"
    if stopped:
        raise Interrupted(message, hint="run the same command with --resume")
    if aloud:
        print(message + "; the same command with --resume continues")


def forget_after(log: Path, step: int) -> None:
    """Drop the lines of a log (JSON with a "step" each) that the checkpoint of `step` knows nothing of: their steps are
    made again. So do lines that a crash has torn go; a log that is gone begins again.
    """
    kept = []
    for line in log.read_bytes().splitlines() if log.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:  # torn by a full disk or a power cut
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int) and record["step"] <= step:
            kept.append(line.decode())
    write_text_atomic(log, "".join(f"{line}\n" for line in kept))


@contextmanager
def training_folder(out: Path) -> Iterator[None]:
    """Make the folder of a training and be the only one that writes to it.

    Of the processes of one distributed training the first has the lock. Raises `UsageError` if the folder cannot be
    written, or another training is at work in it.
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
def writing_checkpoint(out: Path, step: int) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into one line that says what is left and how to go on."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{out}: the checkpoint of step {step} cannot be written ({error.strerror or error}); the one before is "
            "whole",
            hint="make room, then the same command with --resume",
        ) from None


def save_torch(path: Path, state: Any) -> None:
    """`torch.save(state, path)`, whole or not at all. Raises `OSError` if the file cannot be written, however torch
    words it."""
    import torch

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        watched = _Watched(file)
        try:
            torch.save(state, watched)
            watched.flush()
        except Exception:
            if watched.error is not None:
                raise watched.error from None
            raise


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all, with the mode that the umask gives. Raises `OSError` if it cannot
    be written."""
    from safetensors.torch import save

    write_bytes_atomic(path, save(dict(tensors), dict(header)))


class _Watched:
    """A file that remembers why it could not be written: libraries have words of their own for that."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            raise
