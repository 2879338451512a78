"""Weight files written by bcd-bench: safetensors files whose header describes their content. For plugins that use
torch.

Importing this module imports neither torch nor safetensors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.types.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["read_weight_file", "read_weight_header"]


def read_weight_file(path: Path, *, form: str, what: str, maker: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Read the header (strings) and the tensors (on the CPU, with the dtypes of the file) of a safetensors file.

    `form` is the required value of "format" in the header. `what` ("BCD") and `maker` (the command that writes such
    files) are used in error messages. Raises `UsageError` if the path is a folder, or the file is missing, truncated, a
    pickle, or of a different format, and `MissingDependencyError` without safetensors and torch.
    """
    tensors: dict[str, torch.Tensor] = {}

    def read(file: Any) -> None:
        tensors.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)

    return _opened(path, "pt", read, form=form, what=what, maker=maker), tensors


def read_weight_header(path: Path, *, form: str, what: str, maker: str) -> dict[str, str]:
    """The header returned by `read_weight_file`, without torch. Raises the same errors."""
    return _opened(path, "np", lambda file: None, form=form, what=what, maker=maker)


def _opened(
    path: Path, framework: str, read: Callable[[Any], None], *, form: str, what: str, maker: str
) -> dict[str, str]:
    """The header of a safetensors file; `read` is called with the open file and may read its tensors."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"weights of {what} require the package {error.name!r}", hint=f"pip install {error.name}"
        ) from error

    hint = f"use weights written by {maker}"
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, not a weights file", hint=f"--weights {path / 'model.safetensors'}")
    try:
        with safe_open(path, framework) as file:
            header = dict(file.metadata() or {})
            read(file)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path.name}: not a readable safetensors file ({error})", hint=hint) from None
    if header.get("format") != form:
        raise UsageError(
            f"{path.name}: not {what} weights (format {header.get('format')!r}, expected {form!r})", hint=hint
        )
    return header
