"""Isolates the global state of plugins that share a process.

The methods, metrics and extractors of one command share a Python process. Global settings that one of them changes
(torch's default dtype, matmul precision, threads, random states, the working directory, …) would change the results of
the next one without changing its run id. A `PluginScope` gives each plugin its own view of this state: the settings
of a plugin apply while its own code runs, and only then.

Changes that Python cannot undo remain shared: monkey patches, imported modules, and state of native libraries that no
function can read.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType
from typing import Any

from bcd_bench.plugin.process_state import (
    ABSENT,
    DEFAULTS,
    NEVER_KEPT,
    State,
    equal,
    read_state,
    torch_aspects,
    umask,
    write_state,
)
from bcd_bench.util import interrupts

__all__ = ["PluginScope", "harness_umask", "raised_by_plugin"]


class PluginScope:
    """The global state of one plugin. Wrap every call of the plugin's code in `with scope:`.

    On first entry the plugin sees the state of the harness, later the state that it left behind. Its output to stdout
    is redirected to stderr. Scopes can be nested (a metric that needs features runs an extractor). Only one thread at a
    time can be inside scopes; in any other thread they do nothing.
    """

    def __init__(self) -> None:
        self._own: State = {}
        """The parts of the state in which this plugin differs from the harness."""
        self._before: list[State] = []

    def __enter__(self) -> None:
        if not _enter_thread():
            return
        with interrupts.held():
            before = read_state()
            _stack.append(before)
            self._before.append(before)
            write_state(_stack[0] | self._own, before)
            if len(_stack) == 1:
                _TorchWatcher.install()
            sys.stdout = _Unclosable(sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _owner != threading.get_ident():
            return
        with interrupts.held():
            before = self._before.pop()
            try:
                after = read_state()
                if kind is KeyboardInterrupt and after["signals"] != before["signals"]:
                    interrupts.note_interrupt()  # a signal handler of the plugin received the user's Ctrl-C
                self._own = {name: value for name, value in after.items() if self._kept(name, value)}
                write_state(DEFAULTS | before, after)
            finally:
                _leave()

    @staticmethod
    def _kept(name: str, value: Any) -> bool:
        return name not in NEVER_KEPT and not equal(value, _stack[0].get(name, DEFAULTS.get(name, ABSENT)))


def raised_by_plugin(error: BaseException) -> bool:
    """True if an exception comes from a plugin's code, rather than from a user who interrupts the program.

    Guards catch `BaseException`, because third-party runtimes raise subclasses of it (pyo3's PanicException, trio's
    Cancelled), and `sys.exit` in a plugin must not end the run. Only the user's Ctrl-C and SIGTERM are re-raised.
    """
    return not isinstance(error, KeyboardInterrupt) or not interrupts.user_interrupted()


class _Unclosable:
    """A wrapper around a stream whose `close` only flushes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def close(self) -> None:
        """Flush the stream without closing it."""
        self._stream.flush()


_stack: list[State] = []
"""The state before each open scope was entered; the first is that of the harness."""
_owner: int | None = None
_lock = threading.Lock()


def _free_lock_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent process may hold the lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_lock_in_child)


def _enter_thread() -> bool:
    """True if this thread may open a scope. If so, it owns the scopes until it leaves the last one."""
    global _owner
    with _lock:
        if _owner is None:
            _owner = threading.get_ident()
    return _owner == threading.get_ident()


def _leave() -> None:
    global _owner
    _stack.pop()
    if not _stack:
        _TorchWatcher.remove()
        _owner = None


def harness_umask() -> int:
    """The umask of the harness, even while a plugin with a different umask is running."""
    with _lock:
        return int(_stack[0]["umask"]) if _stack else umask()


class _TorchWatcher(importlib.abc.MetaPathFinder):
    """Records torch's initial state if torch is imported inside a scope, and adds it to the states of the open scopes.
    These were entered before torch was imported, and parts of its state (the number of threads) have no fixed
    default."""

    _installed: _TorchWatcher | None = None
    _looking = False

    @classmethod
    def install(cls) -> None:
        if "torch" not in sys.modules and cls._installed is None:
            cls._installed = cls()
            sys.meta_path.insert(0, cls._installed)

    @classmethod
    def remove(cls) -> None:
        if cls._installed is not None:
            with contextlib.suppress(ValueError):  # a plugin may have rebuilt the list
                sys.meta_path.remove(cls._installed)
            cls._installed = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch" or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:  # many libraries look for torch without importing it
            spec.loader = _NotingLoader(spec.loader)
        return spec


class _NotingLoader(importlib.abc.Loader):
    """Wraps the loader of torch to record torch's state once it is imported."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _TorchWatcher.remove()
        fresh = {name: read() for name, (read, _) in torch_aspects().items()}
        for state in _stack:
            state |= fresh
