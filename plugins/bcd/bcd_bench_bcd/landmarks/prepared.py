"""Files that a training computes before or after its steps, and that other trainings of the same data can use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from bcd_bench.io.safetensors import read_weight_file, read_weight_header
from bcd_bench.training import save_tensors
from bcd_bench.types.errors import UsageError

__all__ = ["MAKER", "found", "prepared"]

MAKER = "bcd-bench train bcd-landmarks"


def prepared(
    path: Path, header: Mapping[str, str], what: str, compute: Callable[[], dict[str, Tensor]], others: Sequence[Path]
) -> dict[str, Tensor]:
    """The tensors of the file `path`; if it does not exist, those of a file of the same name and header in the folders
    `others`, which is copied, or else those of `compute`, which are saved.

    `header` tells the settings that the tensors depend on, and has the key "format". Raises `UsageError` if the file
    was written with other settings or is damaged.
    """
    form = header["format"]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        other = found(path.name, header, what, others)
        if other is None:
            tensors = compute()
            save_tensors(path, tensors, header)
            return tensors
        partial = path.with_name(f"{path.name}.partial")
        shutil.copyfile(other, partial)
        partial.replace(path)
    written, tensors = read_weight_file(path, form=form, what=what, maker=MAKER)
    if written != header:
        raise UsageError(f"{path}: {what} of other settings", hint="use a different --out, or delete the file")
    return tensors


def found(name: str, header: Mapping[str, str], what: str, folders: Sequence[Path]) -> Path | None:
    """The first file of this name in `folders` whose header contains `header`; others, and damaged ones, are
    ignored."""
    for folder in folders:
        try:
            other = read_weight_header(folder / name, form=header["format"], what=what, maker=MAKER)
            if header.items() <= other.items():
                return folder / name
        except UsageError:
            continue
    return None
