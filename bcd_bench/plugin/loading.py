"""Import of what a spec names, and the guard around plugin code."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.types.errors import BcdBenchError, MissingDependencyError, UsageError, one_line

__all__ = ["load_code", "load_factory", "plugin_code"]


def load_factory(factory: str) -> Any:
    """Import "package.module:Name" and return the object. Raises ImportError or AttributeError as Python does."""
    module, _, name = factory.partition(":")
    if not module or not name:
        raise ImportError(f"{factory!r} is not of the form 'package.module:Name'")
    return getattr(importlib.import_module(module), name)


def load_code(factory: str, what: str) -> Any:
    """Import what a spec's `factory` names; `what` names the thing in messages.

    Raises `MissingDependencyError` for a package that is not installed, and `UsageError` for whatever else the
    plugin's code raises.
    """
    with plugin_code(what, "cannot be loaded"):
        return load_factory(factory)


@contextlib.contextmanager
def plugin_code(what: str, trouble: str) -> Iterator[None]:
    """Turn what a plugin's code raises into one clear line, "<what> <trouble>: <why>"; what it does to the state of the
    process is undone at the end (`isolation.PluginScope`).

    Raises `MissingDependencyError` for a package that is not installed and `UsageError` for anything else; errors that
    are the user's to mend pass through.
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
