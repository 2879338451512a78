"""Nested mappings, lists, scalars and arrays in one `.npz` file, without pickle."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench.io.atomic import write_bytes_atomic

__all__ = ["load_tree", "save_tree"]

_TREE = "tree"
_ARRAY = "__array__"


def save_tree(path: Path, tree: Any) -> None:
    """Write `tree` (dicts with string keys, lists, tuples, JSON scalars, NumPy arrays) atomically.

    Tuples come back as lists. Raises `TypeError` for anything else, such as object arrays.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    skeleton = json.dumps(_pack(tree, arrays), allow_nan=True)
    buffer = io.BytesIO()
    np.savez(buffer, **{_TREE: np.array(skeleton)}, **arrays)  # type: ignore[arg-type]
    write_bytes_atomic(path, buffer.getvalue())


def load_tree(path: Path) -> Any:
    """Read a tree written by `save_tree`. Raises `ValueError` or `OSError` if the file is damaged."""
    try:
        # Read from memory: with a path, NumPy leaves a damaged file open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
            return _unpack(json.loads(str(data[_TREE])), data)
    except (KeyError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # zipfile raises RuntimeError, or its subclass NotImplementedError, for encryption and unknown compression
        raise ValueError(f"{path}: not a tree of arrays ({error})") from error


def _pack(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("arrays of Python objects cannot be stored")
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return _pack(np.asarray(value), arrays)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value) or _ARRAY in value:
            raise TypeError(f"keys must be strings other than {_ARRAY!r}, got {list(value)[:5]}")
        return {key: _pack(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(item, arrays) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _unpack(value: Any, data: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return data[value[_ARRAY]]
        return {key: _unpack(item, data) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, data) for item in value]
    return value
