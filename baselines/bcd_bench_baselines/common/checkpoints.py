"""Published checkpoint files into modules: read as data only, matched key by key, refused with one clear line.

A published file is what `torch.save` or safetensors wrote: either entries (`generator`, `kp_detector`, ...), each a
state dict, or one state dict by itself. Nothing in it is ever executed.
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
"""What (Distributed)DataParallel puts before every key."""
SHOWN = 3
"""How many keys an error names before it counts the rest."""
UNSAFE = re.compile(r"(?:Unsupported (?:global|class|operand)|GLOBAL|class) ['\"]?([\w.]+)")

M = TypeVar("M", bound=nn.Module)


def blank(make: Callable[[], M]) -> M:
    """Build a module without drawing initial weights: all its tensors are undefined until they are loaded.

    It must not compute buffers in its constructor that no state dict holds.
    """
    with torch.device("meta"):
        module = make()
    return module.to_empty(device="cpu").eval().requires_grad_(False)


def load_published(
    modules: Mapping[str, nn.Module], path: Path, *, model: str, flat: bool = False, hint: str | None = None
) -> None:
    """Fill `modules` (entry name -> module) from the published file of `model`; other entries are ignored.

    With `flat` the file itself is the state dict of the one module. A prefix `module.` is taken off. Every key and
    shape has to be that of the module, no more and no less; numbers are converted to the module's type.

    Raises `UsageError`, naming what was expected and what was found, for a file of another model, one that is
    truncated, and one with anything but data in it. Modules are untouched then.
    """
    expected = f"a checkpoint of {model} ({_described(modules, flat)})"
    content = read_checkpoint(path, expected=expected, hint=hint)
    states: dict[str, dict[str, Tensor]] = {}
    for name, module in modules.items():
        entry: Any = content if flat else content.get(name)
        if not isinstance(entry, Mapping) or not entry:
            found = _listed(map(str, content)) if entry is None else f"{name!r} holding {type(entry).__name__}"
            raise UsageError(f"{path} is not {expected}: it has no entry {name!r}, but {found}", hint=hint)
        state = strip_prefix({str(key): value for key, value in entry.items()})
        problem = "; ".join(_differences(module.state_dict(), state))
        if problem:
            place = "" if flat else f" in entry {name!r}"
            raise UsageError(f"{path} is not {expected}:{place} {problem}", hint=hint)
        states[name] = state
    for name, module in modules.items():
        module.load_state_dict(states[name])


def read_checkpoint(path: Path, *, expected: str, hint: str | None = None) -> Mapping[str, Any]:
    """The mapping that a `torch.save` or safetensors file holds, on the CPU. Code in it is refused, never run.

    `expected` says in errors what the file should be. Raises `UsageError` for a file that cannot be read, is
    truncated, or holds anything but tensors, numbers, texts and containers of them.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file; expected {expected}", hint=hint)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"PK"
        if zipped and not zipfile.is_zipfile(path):  # the directory of a zip file is at its end
            raise UsageError(f"{path} is truncated; expected {expected}", hint=hint)
        with torch.serialization.safe_globals(_harmless()):
            # mapped where that can be: optimizer states beside the networks are then never read
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UsageError:
        raise
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path} {_refusal(error)}; expected {expected}", hint=hint) from error
    except Exception as error:  # torch and safetensors raise many kinds for damaged bytes
        said = one_line(error, place=False)[:160]
        raise UsageError(
            f"{path} is truncated or no checkpoint file ({said}); expected {expected}", hint=hint
        ) from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds {type(content).__name__}, not a state dict; expected {expected}", hint=hint)
    return content


def strip_prefix(state: Mapping[str, Any]) -> dict[str, Any]:
    """Keys without the prefix of data-parallel wrappers, where they have it."""
    stripped = {}
    for key, value in state.items():
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
        stripped[key] = value
    return stripped


def _harmless() -> list[Any]:
    """NumPy's scalars and number types, which old files hold beside the networks (epochs, losses)."""
    from numpy._core.multiarray import scalar

    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *kinds]


def _refusal(error: pickle.UnpicklingError) -> str:
    named = UNSAFE.search(str(error))
    if named:
        return f"holds code or objects ({named[1]}) beside data and was refused"
    return "is truncated or no checkpoint file"


def _described(modules: Mapping[str, nn.Module], flat: bool) -> str:
    counts = {name: len(module.state_dict()) for name, module in modules.items()}
    if flat:
        return f"one state dict of {next(iter(counts.values()))} tensors"
    return "entries " + ", ".join(f"{name!r} of {count} tensors" for name, count in counts.items())


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> Iterator[str]:
    """What of `found` is not as in `wanted`; nothing where all is well."""
    if missing := [key for key in wanted if key not in found]:
        yield f"{len(missing)} of {len(wanted)} tensors are missing ({_listed(missing)})"
    if more := [key for key in found if key not in wanted]:
        yield f"{len(more)} are not of this model ({_listed(more)})"
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
