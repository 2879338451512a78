"""Imports the objects that specs refer to, and guards calls of plugin code."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.types.errors import BcdBenchError, MissingDependencyError, UsageError, one_line
from bcd_bench.util.collector import collector_paused

__all__ = ["load_code", "load_factory", "plugin_code"]


def load_factory(factory: str) -> Any:
    """Import "package.module:Name" and return the object. Raises ImportError or AttributeError as Python does."""
    module, _, name = factory.partition(":")
    if not module or not name:
        raise ImportError(f"{factory!r} is not of the form 'package.module:Name'")
    with collector_paused():
        return getattr(importlib.import_module(module), name)


def load_code(factory: str, what: str) -> Any:
    """Import the object that a spec's `factory` refers to; `what` is its name in error messages.

    Raises `MissingDependencyError` if a package is not installed, and `UsageError` for any other exception of the
    plugin's code.
    """
    with plugin_code(what, "cannot be loaded"):
        return load_factory(factory)


@contextlib.contextmanager
def plugin_code(what: str, trouble: str) -> Iterator[None]:
    """Convert exceptions of a plugin's code into errors with a one-line message, "<what> <trouble>: <reason>".

    Changes to the global state of the process are undone at the end (`isolation.PluginScope`). Raises
    `MissingDependencyError` if a package is not installed and `UsageError` for any other exception. Errors that are
    already a `BcdBenchError` are re-raised unchanged.
    """
    try:
        with PluginScope():
            yield
    except BcdBenchError:
        raise
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{what} needs the package {error.name!r}", hint=f"pip install {error.name}"
        ) from error
    except BaseException as error:
        if not raised_by_plugin(error):
            raise
        raise UsageError(f"{what} {trouble}: {one_line(error)}") from error
