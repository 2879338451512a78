"""Checkpoints: written whole or not at all, and read only if they belong to the run that resumes."""

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
"""The file in a training's folder that `--resume` continues from."""


def read_checkpoint(path: Path, *, what: str) -> dict[str, Any]:
    """What `save_torch` wrote to `path`; no code in the file is run.

    Its tensors are on the CPU: `load_state_dict` of modules and optimisers puts them where they belong. A checkpoint
    has a "description" whose "what" says what was trained. Raises `UsageError` if the file is damaged, or its "what" is
    another one.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch raises many kinds for a damaged file)
        said = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"{path}: cannot be read ({said[0]})", hint="train again with another --out") from None
    description = state.get("description") if isinstance(state, dict) else None
    found = description.get("what") if isinstance(description, dict) else None
    if found != what:
        other = f", but of {found!r}" if found else ""
        raise UsageError(f"{path}: is not a checkpoint of {what!r}{other}", hint="train with another --out")
    return dict(state)


def check_settings(path: Path, saved: Mapping[str, Any], asked: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Compare `parts` of two descriptions: the one in the checkpoint `path`, and that of the command which resumes it.

    Raises `UsageError` with the first setting that differs.
    """
    for part in parts:
        old, new = (json.loads(json.dumps(description.get(part))) for description in (saved, asked))
        if old != new:
            raise UsageError(
                f"{path}: was made with another {part}: {first_difference(old, new)}",
                hint="resume with the settings it was started with (see config.json beside it)",
            )


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """`train.lr was 0.1, is 0.2`: the first setting in which two trees of settings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    return f"{where} was {old!r}, is {new!r}" if where else f"{old!r} is not {new!r}"


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Put a checkpoint's state back inside this block.

    Raises `UsageError` if the checkpoint lacks a part, or a part does not fit: another version of the code wrote it.
    """
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: does not fit this version of the trainer ({one_line(error, place=False)})",
            hint="train again with another --out",
        ) from None


@contextmanager
def writing_checkpoint(out: Path, step: int) -> Iterator[None]:
    """Write the checkpoint of `step` inside this block. Raises `UsageError` for a full disk or an unwritable folder,
    which says how to go on."""
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
