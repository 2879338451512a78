"""Load published checkpoint files into modules: data only, checked key by key, rejected with one clear line.

A published file was written by `torch.save` or safetensors: either entries (`generator`, `kp_detector`, ...), each a
state dict, or a single state dict. Code in it is never executed.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bcd_bench.types.errors import UsageError, one_line

__all__ = ["blank", "load_published", "read_checkpoint", "strip_prefix"]

PREFIXES = ("module.",)
"""Prefixes that (Distributed)DataParallel adds to every key."""
SHOWN = 3
"""Number of keys that an error lists before it counts the others."""
UNSAFE = re.compile(r"(?:Unsupported (?:global|class|operand)|GLOBAL|class) ['\"]?([\w.]+)")

M = TypeVar("M", bound=nn.Module)


def blank(make: Callable[[], M]) -> M:
    """Build a module without initialising weights: all its tensors are undefined until they are loaded.

    Its constructor must not compute buffers that are not in its state dict.
    """
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu").eval().requires_grad_(False)
    return module


def load_published(
    modules: Mapping[str, nn.Module], path: Path, *, model: str, flat: bool = False, hint: str | None = None
) -> None:
    """Fill `modules` (entry name -> module) from the published file of `model`; other entries are ignored.

    With `flat` the file itself is the state dict of the single module. A prefix `module.` is removed. Keys and shapes
    must match those of the module exactly; numbers are converted to the module's type. Raises `UsageError`, with the
    expected and the actual contents, for a file of another model, a truncated file, and a file with anything but data
    in it. The modules are unchanged then.
    """
    expected = f"a checkpoint of {model} ({_described(modules, flat)})"
    content = read_checkpoint(path, expected=expected, hint=hint)
    states: dict[str, dict[str, Tensor]] = {}
    for name, module in modules.items():
        entry: Any = content if flat else content.get(name)
        if not isinstance(entry, Mapping) or not entry:
            content_text = (
                _listed(map(str, content)) if entry is None else f"{name!r} containing {type(entry).__name__}"
            )
            raise UsageError(f"{path} is not {expected}: it has no entry {name!r}, but {content_text}", hint=hint)
        state = strip_prefix({str(key): value for key, value in entry.items()})
        problem = "; ".join(_differences(module.state_dict(), state))
        if problem:
            location = "" if flat else f" in entry {name!r}"
            raise UsageError(f"{path} is not {expected}:{location} {problem}", hint=hint)
        states[name] = state
    for name, module in modules.items():
        module.load_state_dict(states[name])


def read_checkpoint(path: Path, *, expected: str, hint: str | None = None) -> Mapping[str, Any]:
    """The mapping stored in a `torch.save` or safetensors file, on the CPU. Code in it is rejected, never run.

    `expected` describes the expected file in errors. Raises `UsageError` for a file that cannot be read, is truncated,
    or contains anything but tensors, numbers, strings and containers of them.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file; expected {expected}", hint=hint)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: Mapping[str, Any] = load_file(path)
            return tensors
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"PK"
        if zipped and not zipfile.is_zipfile(path):  # the directory of a zip file is at its end
            raise UsageError(f"{path} is truncated; expected {expected}", hint=hint)
        with torch.serialization.safe_globals(_harmless()):
            # memory-mapped if possible: optimizer states stored with the networks are then never read
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UsageError:
        raise
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path} {_refusal(error)}; expected {expected}", hint=hint) from error
    except Exception as error:  # torch and safetensors raise many kinds of errors for damaged bytes
        reason = one_line(error, place=False)[:160]
        raise UsageError(
            f"{path} is truncated or not a checkpoint file ({reason}); expected {expected}", hint=hint
        ) from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} contains {type(content).__name__}, not a state dict; expected {expected}", hint=hint)
    return content


def strip_prefix(state: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the prefix of data-parallel wrappers from keys that have it."""
    stripped = {}
    for key, value in state.items():
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
        stripped[key] = value
    return stripped


def _harmless() -> list[Any]:
    """NumPy's scalars and number types, which old files contain in addition to the networks (epochs, losses)."""
    from numpy._core.multiarray import scalar

    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *kinds]


def _refusal(error: pickle.UnpicklingError) -> str:
    match = UNSAFE.search(str(error))
    if match:
        return f"contains code or objects ({match[1]}) in addition to data and was rejected"
    return "is truncated or not a checkpoint file"


def _described(modules: Mapping[str, nn.Module], flat: bool) -> str:
    counts = {name: len(module.state_dict()) for name, module in modules.items()}
    if flat:
        return f"one state dict of {next(iter(counts.values()))} tensors"
    return "entries " + ", ".join(f"{name!r} of {count} tensors" for name, count in counts.items())


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> Iterator[str]:
    """Differences of `found` from `wanted`; empty if there are none."""
    if missing := [key for key in wanted if key not in found]:
        yield f"{len(missing)} of {len(wanted)} tensors are missing ({_listed(missing)})"
    if unexpected := [key for key in found if key not in wanted]:
        yield f"{len(unexpected)} do not belong to this model ({_listed(unexpected)})"
    shapes = []
    for key in wanted.keys() & found.keys():
        shape = list(found[key].shape) if isinstance(found[key], Tensor) else type(found[key]).__name__
        if shape != list(wanted[key].shape):
            shapes.append(f"{key} is {shape}, expected {list(wanted[key].shape)}")
    if shapes:
        yield _listed(sorted(shapes))


def _listed(names: Any) -> str:
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more if every else "nothing"
