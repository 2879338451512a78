"""Imports MediaPipe without matplotlib.

MediaPipe imports pyplot for drawing functions, which takes a second and which nothing here uses. Matplotlib is imported
when they are called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["import_tasks"]


def import_tasks() -> ModuleType:
    """The module `mediapipe.tasks.python`."""
    with _later("matplotlib", "matplotlib.pyplot"):
        return importlib.import_module("mediapipe.tasks.python")


class _Later(ModuleType):
    """A module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by the import system
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _later(package: str, module: str) -> Iterator[None]:
    """Imports of `module` inside get a stand-in, unless its package is imported already."""
    if package in sys.modules:
        yield
        return
    stand_ins = {name: _Later(name) for name in (package, module)}
    setattr(stand_ins[package], module.rpartition(".")[2], stand_ins[module])
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
