"""Reads and writes the global state of the process. Each aspect has a reader and a writer function."""

from __future__ import annotations

import contextlib
import gc
import locale
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "ABSENT",
    "DEFAULTS",
    "NEVER_KEPT",
    "Reader",
    "State",
    "Writer",
    "equal",
    "read_state",
    "torch_aspects",
    "umask",
    "write_state",
]


ABSENT = object()


_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGUSR1", "SIGUSR2")


Reader = Callable[[], Any]


Writer = Callable[[Any], object]


State = dict[str, Any]


_loaded: dict[str, Mapping[str, tuple[Reader, Writer]]] = {}
"""The aspects of the libraries that have been imported."""


def _aspects() -> dict[str, tuple[Reader, Writer]]:
    """All aspects that exist now; those of a library appear once its import has finished."""
    available = dict(_ASPECTS)
    for module, aspects in _ASPECTS_OF.items():
        if module in sys.modules and _whole(module):
            if module not in _loaded:
                _loaded[module] = aspects()
            available |= _loaded[module]
    return available


def read_state() -> State:
    state: State = {}
    for name, (read, _) in _aspects().items():
        with contextlib.suppress(RuntimeError, AttributeError):  # this version of a library cannot report it
            state[name] = read()
    return state


def write_state(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Set every aspect of `wanted` that differs in `found`. Errors (a deleted working directory) are ignored."""
    aspects = _aspects()
    for name, value in wanted.items():
        if name in aspects and not equal(value, found.get(name, ABSENT)):
            with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
                aspects[name][1](value)


def equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple) and len(one) < 8:  # may contain arrays; longer tuples are random states of plain numbers
        return len(one) == len(other) and all(equal(x, y) for x, y in zip(one, other, strict=True))
    if hasattr(one, "tobytes"):  # a NumPy array
        return bool(one.tobytes() == other.tobytes())
    if hasattr(one, "numpy"):  # a tensor
        return bool(one.numpy().tobytes() == other.numpy().tobytes())
    return bool(one == other)


def _whole(module: str) -> bool:
    """True if the import of a module has finished."""
    return not getattr(getattr(sys.modules[module], "__spec__", None), "_initializing", False)


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - compared as text
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
    with warnings.catch_warnings():  # invalidates the cached filters of the C code
        pass


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _set_collecting(wanted: bool) -> None:
    (gc.enable if wanted else gc.disable)()


_ASPECTS: Mapping[str, tuple[Reader, Writer]] = {
    "stdout": (lambda: sys.stdout, lambda stream: setattr(sys, "stdout", stream)),
    "stderr": (lambda: sys.stderr, lambda stream: setattr(sys, "stderr", stream)),
    "umask": (umask, os.umask),
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


NEVER_KEPT = ("stdout", "stderr", "signals", "excepthook")
"""Aspects that are reset for every call of a plugin, so that Ctrl-C and the output keep working."""


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


def torch_aspects() -> Mapping[str, tuple[Reader, Writer]]:
    import torch

    backends, cuda = torch.backends, torch.backends.cuda

    def flag(owner: Any, name: str) -> tuple[Reader, Writer]:
        return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)

    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def set_deterministic(wanted: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(wanted[0], warn_only=wanted[1])

    def set_device(device: Any) -> None:
        torch.set_default_device(None if device == torch.device("cpu") else device)  # None means CPU and is faster

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


DEFAULTS: State = {
    "logging disabled": 0,
    "logging level": 30,
    "logging handlers": [],
    "decimal precision": 28,
    "start method": None,
    "socket timeout": None,
    "numpy errors": {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
}
"""The initial state of libraries, for those that are first imported by a plugin."""


_ASPECTS_OF: Mapping[str, Callable[[], Mapping[str, tuple[Reader, Writer]]]] = {
    "random": _random,
    "logging": _logging,
    "decimal": _decimal,
    "multiprocessing": _multiprocessing,
    "socket": _socket,
    "numpy": _numpy,
    "torch": torch_aspects,
}
