"""Plugin code in one process, kept from changing what the next plugin (or the harness) relies on.

Methods, metrics and extractors of one command share a Python process. Whatever one of them sets globally (torch's
default type, matmul precision, threads, random states, the working directory, …) would change the results of the next
one under its usual run id. A `PluginScope` gives each plugin its own view of that state: what it sets holds whenever
its own code runs, and nowhere else.

What Python cannot take back stays shared: monkey patches, imported modules, and the state of native libraries that no
function tells.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.util
import locale
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType
from typing import Any

from bcd_bench import stopping

__all__ = ["PluginScope", "harness_umask", "raised_by_plugin"]

_ABSENT = object()
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGUSR1", "SIGUSR2")

Reader = Callable[[], Any]
Writer = Callable[[Any], object]
State = dict[str, Any]


class PluginScope:
    """The global state of one plugin: `with scope:` around its code, as often as it is called.

    At the first time the plugin finds the harness's own state, later the one it left. What it prints goes to stderr.
    Scopes may be nested (a metric that asks for features runs an extractor); only one thread at a time can be inside of
    scopes, and for any other thread they do nothing.
    """

    def __init__(self) -> None:
        self._own: State = {}
        """What this plugin has set to something else than the harness."""
        self._before: list[State] = []

    def __enter__(self) -> None:
        if not _enter_thread():
            return
        with stopping.held():
            before = _read()
            _stack.append(before)
            self._before.append(before)
            _write(_stack[0] | self._own, before)
            if len(_stack) == 1:
                _TorchWatcher.install()
            sys.stdout = _Unclosable(sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _owner != threading.get_ident():
            return
        with stopping.held():
            before = self._before.pop()
            try:
                after = _read()
                if kind is KeyboardInterrupt and after["signals"] != before["signals"]:
                    stopping.note_interrupt()  # a handler of the plugin has taken the user's Ctrl-C
                self._own = {name: value for name, value in after.items() if self._kept(name, value)}
                _write(_LATE | before, after)
            finally:
                _leave()

    @staticmethod
    def _kept(name: str, value: Any) -> bool:
        return name not in _NEVER_KEPT and not _equal(value, _stack[0].get(name, _LATE.get(name, _ABSENT)))


def raised_by_plugin(error: BaseException) -> bool:
    """Whether code of a plugin is to blame for what came out of it, rather than somebody who wants the program to stop.

    Guards catch `BaseException`, since foreign runtimes raise such (pyo3's PanicException, trio's Cancelled), and
    `sys.exit` in a plugin must not end a run as if it were ours. Only the user's Ctrl-C and SIGTERM pass.
    """
    return not isinstance(error, KeyboardInterrupt) or not stopping.user_interrupted()


class _Unclosable:
    """A stream that is somebody else's to close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def close(self) -> None:
        """Write out what is waiting, and stay open."""
        self._stream.flush()


_stack: list[State] = []
"""The state found by every scope that is open; the first is the harness's own."""
_loaded: dict[str, Mapping[str, tuple[Reader, Writer]]] = {}
"""The aspects of libraries that were imported."""
_owner: int | None = None
_lock = threading.Lock()


def _free_lock_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_lock_in_child)


def _enter_thread() -> bool:
    """Whether this thread may open a scope; it then owns them until the last one is left."""
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
    """The umask of the harness, whatever a plugin that is at work has set."""
    with _lock:
        return int(_stack[0]["umask"]) if _stack else _umask()


def _aspects() -> dict[str, tuple[Reader, Writer]]:
    """Every aspect of the state that there is now; those of a library once it is imported to its end."""
    found = dict(_ASPECTS)
    for module, aspects in _ASPECTS_OF.items():
        if module in sys.modules and _whole(module):
            if module not in _loaded:
                _loaded[module] = aspects()
            found |= _loaded[module]
    return found


def _read() -> State:
    state: State = {}
    for name, (read, _) in _aspects().items():
        with contextlib.suppress(RuntimeError, AttributeError):  # this version of a library does not tell
            state[name] = read()
    return state


def _write(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Set every aspect that is not as wanted; one that the system refuses to set (a folder that is gone) stays."""
    aspects = _aspects()
    for name, value in wanted.items():
        if name in aspects and not _equal(value, found.get(name, _ABSENT)):
            with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
                aspects[name][1](value)


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple) and len(one) < 8:  # may hold arrays; longer ones are states of numbers
        return len(one) == len(other) and all(_equal(x, y) for x, y in zip(one, other, strict=True))
    if hasattr(one, "tobytes"):  # a NumPy array
        return bool(one.tobytes() == other.tobytes())
    if hasattr(one, "numpy"):  # a tensor
        return bool(one.numpy().tobytes() == other.numpy().tobytes())
    return bool(one == other)


def _whole(module: str) -> bool:
    """Whether a module has been imported to its end."""
    return not getattr(getattr(sys.modules[module], "__spec__", None), "_initializing", False)


# What Python itself holds


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - text, as it is compared
    except OSError:  # it was removed
        return None


def _set_folder(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _set_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _handlers() -> dict[int, Any]:
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    return {number: signal.getsignal(number) for number in numbers}


def _set_handlers(wanted: dict[int, Any]) -> None:
    for number, handler in wanted.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    with warnings.catch_warnings():  # tells the C code that they have changed
        pass


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _set_collecting(wanted: bool) -> None:
    (gc.enable if wanted else gc.disable)()


_ASPECTS: Mapping[str, tuple[Reader, Writer]] = {
    "stdout": (lambda: sys.stdout, lambda stream: setattr(sys, "stdout", stream)),
    "stderr": (lambda: sys.stderr, lambda stream: setattr(sys, "stderr", stream)),
    "umask": (_umask, os.umask),
    "folder": (_folder, _set_folder),
    "environment": (lambda: dict(os.environ), _set_environment),
    "signals": (_handlers, _set_handlers),
    "warnings": (lambda: list(warnings.filters), _set_filters),
    "showwarning": (lambda: warnings.showwarning, lambda function: setattr(warnings, "showwarning", function)),
    "path": (lambda: list(sys.path), _set_path),
    "recursion": (sys.getrecursionlimit, sys.setrecursionlimit),
    "collecting": (gc.isenabled, _set_collecting),
    "locale": (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    "excepthook": (lambda: sys.excepthook, lambda hook: setattr(sys, "excepthook", hook)),
}
_NEVER_KEPT = ("stdout", "stderr", "signals", "excepthook")
"""What a plugin gets anew at every call: a run has to stay stoppable, and its output in its place."""


# What libraries hold, looked at once they are imported


def _random() -> Mapping[str, tuple[Reader, Writer]]:
    import random

    return {"random": (random.getstate, random.setstate)}


def _logging() -> Mapping[str, tuple[Reader, Writer]]:
    import logging

    return {
        "logging disabled": (lambda: logging.root.manager.disable, logging.disable),
        "logging level": (lambda: logging.root.level, logging.root.setLevel),
        "logging handlers": (lambda: list(logging.root.handlers), _set_log_handlers),
    }


def _set_log_handlers(handlers: list[Any]) -> None:
    import logging

    logging.root.handlers[:] = handlers


def _decimal() -> Mapping[str, tuple[Reader, Writer]]:
    import decimal

    return {
        "decimal precision": (
            lambda: decimal.getcontext().prec,
            lambda digits: setattr(decimal.getcontext(), "prec", digits),
        )
    }


def _multiprocessing() -> Mapping[str, tuple[Reader, Writer]]:
    import multiprocessing

    return {
        "start method": (
            lambda: multiprocessing.get_start_method(allow_none=True),
            lambda name: multiprocessing.set_start_method(name, force=True),
        )
    }


def _socket() -> Mapping[str, tuple[Reader, Writer]]:
    import socket

    return {"socket timeout": (socket.getdefaulttimeout, socket.setdefaulttimeout)}


def _numpy() -> Mapping[str, tuple[Reader, Writer]]:
    import numpy as np

    return {
        "numpy random": (np.random.get_state, np.random.set_state),
        "numpy errors": (np.geterr, lambda errors: np.seterr(**errors)),
        "numpy printing": (np.get_printoptions, lambda options: np.set_printoptions(**options)),
    }


def _torch() -> Mapping[str, tuple[Reader, Writer]]:
    import torch

    backends, cuda = torch.backends, torch.backends.cuda

    def flag(owner: Any, name: str) -> tuple[Reader, Writer]:
        return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)

    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def set_deterministic(wanted: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(wanted[0], warn_only=wanted[1])

    def set_device(device: Any) -> None:
        torch.set_default_device(None if device == torch.device("cpu") else device)  # None is the faster CPU

    def flushes() -> bool:
        return bool((torch.tensor(1e-39, dtype=torch.float32, device="cpu") * 1).item() == 0)

    def cuda_states() -> tuple[Any, ...]:
        return tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()

    def set_cuda_states(states: tuple[Any, ...]) -> None:
        if states:
            torch.cuda.set_rng_state_all(list(states))

    return {
        "torch dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch device": (torch.get_default_device, set_device),
        "torch matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        "torch threads": (torch.get_num_threads, torch.set_num_threads),
        "torch gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch deterministic": (
            deterministic,
            set_deterministic,
        ),
        "torch denormals": (flushes, torch.set_flush_denormal),
        "torch anomalies": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        "torch random": (torch.get_rng_state, torch.set_rng_state),
        "torch cuda random": (cuda_states, set_cuda_states),
        "cudnn enabled": flag(backends.cudnn, "enabled"),
        "cudnn benchmark": flag(backends.cudnn, "benchmark"),
        "cudnn deterministic": flag(backends.cudnn, "deterministic"),
        "cudnn tf32": flag(backends.cudnn, "allow_tf32"),
        "mkldnn enabled": flag(backends.mkldnn, "enabled"),
        "flash attention": (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
        "efficient attention": (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
        "plain attention": (cuda.math_sdp_enabled, cuda.enable_math_sdp),
    }


_LATE: State = {
    "logging disabled": 0,
    "logging level": 30,
    "logging handlers": [],
    "decimal precision": 28,
    "start method": None,
    "socket timeout": None,
    "numpy errors": {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
}
"""What libraries hold when they are imported, for those that a plugin imports first."""

_ASPECTS_OF: Mapping[str, Callable[[], Mapping[str, tuple[Reader, Writer]]]] = {
    "random": _random,
    "logging": _logging,
    "decimal": _decimal,
    "multiprocessing": _multiprocessing,
    "socket": _socket,
    "numpy": _numpy,
    "torch": _torch,
}


class _TorchWatcher(importlib.abc.MetaPathFinder):
    """Notes torch's own state at the moment it is imported inside of a scope, for the scopes that are open: they were
    entered before there was anything to note, and some of it (its number of threads) has no fixed default."""

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
        if spec is not None and spec.loader is not None:  # only looked for, as many libraries do, or imported
            spec.loader = _NotingLoader(spec.loader)
        return spec


class _NotingLoader(importlib.abc.Loader):
    """A module's loader that notes its state once it is imported."""

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
        fresh = {name: read() for name, (read, _) in _torch().items()}
        for state in _stack:
            state |= fresh
