"""Checkpoints: written atomically, and read only by the run they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bcd_bench.io.atomic import atomic_path, write_bytes_atomic
from bcd_bench.types.errors import UsageError, one_line

if TYPE_CHECKING:
    import torch

__all__ = [
    "CHECKPOINT",
    "check_settings",
    "first_difference",
    "read_checkpoint",
    "restoring",
    "save_tensors",
    "save_torch",
    "writing_checkpoint",
]

CHECKPOINT = "checkpoint.pt"
"""File in a training folder from which `--resume` continues."""


def read_checkpoint(path: Path, *, what: str) -> dict[str, Any]:
    """Load a checkpoint written by `save_torch`, without executing code in the file.

    Its tensors are on the CPU: `load_state_dict` of modules and optimisers moves them to the right device. A checkpoint
    has a "description" whose "what" names the trained model. Raises `UsageError` if the file is damaged, or its "what"
    differs.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch raises many exception types for a damaged file)
        message = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"{path}: cannot be read ({message[0]})", hint="retrain with a different --out") from None
    description = state.get("description") if isinstance(state, dict) else None
    actual = description.get("what") if isinstance(description, dict) else None
    if actual != what:
        found_kind = f", but of {actual!r}" if actual else ""
        raise UsageError(f"{path}: is not a checkpoint of {what!r}{found_kind}", hint="train with a different --out")
    return dict(state)


def check_settings(path: Path, saved: Mapping[str, Any], asked: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Compare `parts` of two descriptions: that of the checkpoint `path`, and that of the command that resumes it.

    Raises `UsageError` with the first setting that differs.
    """
    for part in parts:
        old, new = (json.loads(json.dumps(description.get(part))) for description in (saved, asked))
        if old != new:
            raise UsageError(
                f"{path}: was created with a different {part}: {first_difference(old, new)}",
                hint="resume with its original settings (see config.json in the same folder)",
            )


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """Describe the first difference between two trees of settings: `train.lr was 0.1, is 0.2`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    return f"{where} was {old!r}, is {new!r}" if where else f"{old!r} is not {new!r}"


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Restore a checkpoint's state inside this block.

    Raises `UsageError` if the checkpoint lacks a part, or a part does not fit because a different version wrote it.
    """
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: is incompatible with this version of the trainer ({one_line(error, place=False)})",
            hint="retrain with a different --out",
        ) from None


@contextmanager
def writing_checkpoint(out: Path, step: int) -> Iterator[None]:
    """Write the checkpoint of `step` inside this block. Raises `UsageError` for a full disk or an unwritable folder,
    with instructions for continuing."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{out}: the checkpoint of step {step} cannot be written ({error.strerror or error}); the previous one is "
            "whole",
            hint="free disk space, then rerun the same command with --resume",
        ) from None


def save_torch(path: Path, state: Any) -> None:
    """`torch.save(state, path)`, atomically. Raises `OSError` if the file cannot be written, regardless of torch's own
    error type."""
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
    """Write a safetensors file atomically, with the mode given by the umask. Raises `OSError` if it cannot be
    written."""
    from safetensors.torch import save

    write_bytes_atomic(path, save(dict(tensors), dict(header)))


class _Watched:
    """A file that stores its write error, since libraries raise their own errors instead."""

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
