"""The fingerprint of a Python object: its source code and its state.

Methods and metrics of installed plugins are identified by the source of their package. Objects defined in a notebook
or script have no package. Two such objects have the same fingerprint if the source of their class, the functions and
constants it uses, and the values of their attributes are equal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
import sys
from collections.abc import Mapping
from pathlib import PurePath
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

from bcd_bench.assets.hashing import hash_json, sha256_file

__all__ = ["fingerprint"]

MAX_DEPTH = 20
"""Maximum nesting of attributes; an object that is nested deeper cannot be hashed."""


_NO_MEMBERS = frozenset(
    [
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__annotations__",
        "__abstractmethods__",
        "__firstlineno__",
        "__static_attributes__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__slots__",
        "__hash__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__parameters__",
        "__orig_bases__",
    ]
)
"""Class attributes that Python adds automatically."""
_DESCRIPTORS = (MemberDescriptorType, GetSetDescriptorType)


class _NotHashableError(Exception):
    pass


def fingerprint(obj: object) -> str | None:
    """sha256 over the source and the state of an object, a class or a function.

    None if part of it cannot be hashed: source that is not available (`python -`), open files, generators, objects of
    extension modules. NumPy arrays, PyTorch tensors and modules are hashed by their values.
    """
    try:
        return hash_json(_Describer().describe(obj, 0))
    except _NotHashableError:
        return None


class _Describer:
    """Converts an object to JSON types; each object is described only once."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []

    def describe(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _NotHashableError
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, bytes | bytearray):
            return {"bytes": hashlib.sha256(value).hexdigest()}
        if isinstance(value, PurePath):
            return {"path": str(value)}
        if id(value) in self._numbers:
            return {"seen": self._numbers[id(value)]}
        self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)  # keeps the object alive, so that its id is not reused
        return self._compound(value, depth + 1)

    def _compound(self, value: Any, depth: int) -> Any:
        if isinstance(value, list | tuple):
            return [self.describe(item, depth) for item in value]
        if isinstance(value, Mapping):
            return {"mapping": [[self.describe(k, depth), self.describe(v, depth)] for k, v in value.items()]}
        if isinstance(value, set | frozenset):
            return {"set": sorted(hash_json(self.describe(item, depth)) for item in value)}
        if isinstance(value, ModuleType):
            return _module(value)
        if isinstance(value, MethodType):
            return [self.describe(value.__func__, depth), self.describe(value.__self__, depth)]
        if isinstance(value, FunctionType):
            return self._function(value, depth)
        if isinstance(value, type):
            return self._class(value, depth)
        array = _array(value)
        if array is not None:
            return array
        return self._instance(value, depth)

    def _function(self, function: FunctionType, depth: int) -> Any:
        if _installed(function.__module__):
            return _named(function)
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            raise _NotHashableError from None
        code, used = function.__code__, {}
        for name in sorted(_names(code)):
            if name in function.__globals__:
                used[name] = self.describe(function.__globals__[name], depth)
        cells = [self.describe(_content(cell), depth) for cell in function.__closure__ or ()]
        defaults = [function.__defaults__, function.__kwdefaults__]
        return {"source": source, "uses": used, "closure": cells, "defaults": self.describe(defaults, depth)}

    def _class(self, cls: type, depth: int) -> Any:
        if cls.__module__ == "builtins" or _installed(cls.__module__):
            return _named(cls)
        members = {}
        fields = vars(cls).get("__dataclass_fields__", {})
        for name, member in sorted(vars(cls).items()):
            if name in _NO_MEMBERS or name.startswith("_abc_") or isinstance(member, _DESCRIPTORS):
                continue
            if fields and isinstance(member, FunctionType) and _generated(member):
                continue
            members[name] = self.describe(_unwrapped(member), depth)
        members["fields"] = [[name, str(field.type), self._default(field, depth)] for name, field in fields.items()]
        bases = [self.describe(base, depth) for base in cls.__bases__]
        return {"class": cls.__qualname__, "members": members, "bases": bases}

    def _default(self, field: Any, depth: int) -> Any:
        defaults = [field.default, field.default_factory]
        return [self.describe(value, depth) for value in defaults if value is not dataclasses.MISSING]

    def _instance(self, value: Any, depth: int) -> Any:
        described: dict[str, Any] = {"of": self.describe(type(value), depth)}
        if hasattr(value, "state_dict") and hasattr(value, "named_modules"):  # a torch module
            tensors = [*value.named_parameters(), *value.named_buffers()]
            described["tensors"] = {name: _array(tensor) for name, tensor in tensors}
            described["modules"] = [
                [name, self.describe(type(module), depth), self.describe(_attributes(module), depth)]
                for name, module in value.named_modules()
            ]
            return described
        state = getattr(value, "__dict__", None)
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        if state is None and not slots:
            raise _NotHashableError
        state = {**(state or {}), **{name: getattr(value, name) for name in slots if hasattr(value, name)}}
        described["state"] = {str(name): self.describe(item, depth) for name, item in sorted(state.items())}
        return described


def _module(module: ModuleType) -> Any:
    """A module by its version, or by the hash of its file if it belongs to no installed package."""
    file = getattr(module, "__file__", None)
    own = file is not None and not _installed(module.__name__)
    version = sha256_file(file) if own and file else str(getattr(module, "__version__", ""))
    return {"module": module.__name__, "version": version}


def _attributes(module: Any) -> dict[str, Any]:
    """The attributes of a torch module beside its tensors and submodules, such as sizes and rates."""
    import torch

    return {name: value for name, value in sorted(vars(module).items()) if name not in vars(torch.nn.Module())}


def _generated(function: FunctionType) -> bool:
    """True if `dataclass` generated this method from the fields."""
    return function.__code__.co_filename in ("<string>", dataclasses.__file__)


def _names(code: Any) -> set[str]:
    """The global names that a code object and the functions in it use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names(constant)
    return names


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _unwrapped(member: Any) -> Any:
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, property):
        return [member.fget, member.fset, member.fdel]
    return getattr(member, "func", member) if type(member).__name__ == "cached_property" else member


def _array(value: Any) -> Any:
    """Type, shape and content of a NumPy array or scalar, or of a tensor; None for anything else."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        import torch

        tensor = value.detach().cpu().contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "sha256": hashlib.sha256(data).hexdigest()}
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        if getattr(value.dtype, "hasobject", True):
            raise _NotHashableError
        data, shape = value.tobytes(), list(getattr(value, "shape", ()))
        return {"dtype": str(value.dtype), "shape": shape, "sha256": hashlib.sha256(data).hexdigest()}
    return None


def _installed(module: str | None) -> bool:
    """True if a module belongs to Python or to an installed package, so that its version identifies it."""
    name = module or ""
    if name.partition(".")[0] in sys.stdlib_module_names and name != "__main__":
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and file is not None and ("site-packages" in file or name.startswith("bcd_bench"))


def _named(obj: Any) -> Any:
    """Describe a function or class of an installed package by its name, version and the hash of its module."""
    module = sys.modules.get(obj.__module__)
    file = getattr(module, "__file__", None)
    top = sys.modules.get(obj.__module__.partition(".")[0])
    return {
        "name": f"{obj.__module__}.{obj.__qualname__}",
        "version": str(getattr(top, "__version__", "")),
        "sha256": sha256_file(file) if file and file.endswith(".py") and "site-packages" not in file else "",
    }
