"""Worker processes that survive what they run: crashes, kills and hangs cost one task and are reported.

`concurrent.futures` gives up all of its workers when one dies, and pools with a shared queue (Pebble, for example) can
lose the lock of the queue with a killed worker. Here every worker has a pipe of its own, so a worker that dies at any
moment affects only its task. Workers are started with `spawn`: CUDA, threads and locks of native libraries do not
survive a fork.

This module imports nothing heavy, so that a new process sets its threads before numeric libraries are loaded.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bcd_bench.types.errors import BcdBenchError, UsageError, one_line
from bcd_bench.util.interrupts import ignore_interrupts
from bcd_bench.util.machine import peak_memory

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["DEATHS", "THREAD_VARIABLES", "Finished", "PoolOptions", "WorkerPool", "sendable", "worker_threads"]

T = TypeVar("T")

DEATHS = 3
"""Workers that may die on a task, or in a row while they load, before it is given up."""
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""Numeric libraries read their number of threads from these when they are loaded."""
GRACE = 5.0
"""Seconds that an idle worker has to close its method before it is killed."""


def worker_threads() -> int:
    """Threads per worker: OMP_NUM_THREADS if it is set to a number, else 1.

    The number is deliberately independent of `--jobs`: sums and matrix products of numeric libraries can differ in the
    last bits between numbers of threads, and results must not depend on the number of workers.
    """
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(value) if value.isdecimal() and int(value) > 0 else 1


@dataclass(frozen=True)
class PoolOptions:
    """How workers run. `timeout` is in seconds per pair (None: no limit), `devices` are values of CUDA_VISIBLE_DEVICES
    that workers of this machine receive in turn (empty: unchanged).

    `factory` is the `ExecutorSpec.pool` of an executor (empty: processes of this machine), `settings` are its settings
    (`--set executor.K=V`), and `device` is the value of `--device`.
    """

    timeout: float | None = None
    devices: tuple[str, ...] = ()
    factory: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True)
class Finished(Generic[T]):
    """The end of one task: its `value`, or the `error` that it raised, or `lost`: why its worker is gone.

    `timed_out` is True if the worker was ended because the task took too long. `peak_memory` is that of the worker so
    far, in MiB (0 if it is lost).
    """

    task: T
    value: Any = None
    error: BaseException | None = None
    lost: str | None = None
    timed_out: bool = False
    peak_memory: float = 0.0


class _Worker:
    def __init__(self, process: SpawnProcess, pipe: connection.Connection) -> None:
        self.process, self.pipe = process, pipe
        self.ready = False
        self.task: Any = None
        self.busy = False
        self.deadline: float | None = None


class WorkerPool(Generic[T]):
    """Up to `jobs` workers, each of which calls `start(argument)` once and then the returned handler for every task.

    `start` is "package.module:function". If the handler has a method `close`, it is called at the end. `what` names the
    loaded object in error messages. Use it as a context manager: on leaving, idle workers are closed and busy ones are
    killed. Tasks, results and the argument are pickled.
    """

    def __init__(self, start: str, argument: Any, *, what: str, jobs: int, options: PoolOptions) -> None:
        self._start, self._argument, self._what = start, argument, what
        self._jobs, self._options = jobs, options
        self._workers: list[_Worker] = []
        self._again: deque[T] = deque()
        self._load_deaths = 0
        self._started = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        """What happened to workers since the list was last cleared: (kind, details), for logs."""

    def __enter__(self) -> WorkerPool[T]:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def again(self, *tasks: T) -> None:
        """Put tasks in front of the queue, for use between two results of `run`."""
        self._again.extendleft(reversed(tasks))

    def run(self, tasks: Iterator[T], limit: Callable[[T], float | None] = lambda task: None) -> Iterator[Finished[T]]:
        """Run every task and yield how it ended, in the order of completion.

        `limit` gives the seconds that a task may take, counted from when its worker has loaded. Raises what loading
        raised. If workers die while they load, three times in a row, the work goes on with those that have loaded;
        raises `UsageError` if there are none.
        """
        waiting: deque[T] = deque()

        def pending() -> bool:
            if not self._again and not waiting:
                waiting.extend([task for task in [next(tasks, _END)] if task is not _END])
            return bool(self._again or waiting)

        while True:
            for worker in list(self._workers):
                if worker.ready and not worker.busy and worker.process.exitcode is not None:
                    self._bury(worker, None)  # killed while idle: no task is to blame
                elif worker.ready and not worker.busy and pending():
                    task = self._again.popleft() if self._again else waiting.popleft()
                    self._send(worker, task, limit(task))
            busy = sum(worker.busy for worker in self._workers)
            loading = sum(not worker.ready for worker in self._workers)
            if pending():
                if not self._workers or (len(self._workers) < self._jobs and not loading):
                    self._launch(self._jobs - len(self._workers))
            elif not busy:
                return
            finished = self._wait()
            if finished is not None:
                yield finished

    def close(self) -> None:
        """End all workers: idle ones are asked to and get a few seconds; all others are killed."""
        idle = [worker for worker in self._workers if worker.ready and not worker.busy]
        for worker in idle:
            with contextlib.suppress(OSError, ValueError):  # it is dead already
                worker.pipe.send(None)
        deadline = time.monotonic() + GRACE
        for worker in idle:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        for worker in self._workers:
            self._end(worker)
        self._workers.clear()

    def _launch(self, count: int) -> None:
        """Start workers. Those after a death are started one by one, since they may die while loading."""
        for _ in range(count if not self._load_deaths else min(count, 1)):
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            device = (
                self._options.devices[self._started % len(self._options.devices)] if self._options.devices else None
            )
            process = context.Process(target=_work, args=(theirs, self._start, self._argument), name="bcd-bench-worker")
            with _variables(device), _without_interrupts():
                process.start()
            theirs.close()  # so that a dead worker is the end of its pipe
            self._started += 1
            self._workers.append(_Worker(process, ours))
            self.events.append(("worker_started", {"pid": process.pid, "device": device}))

    def _send(self, worker: _Worker, task: T, seconds: float | None) -> None:
        worker.task, worker.busy = task, True
        worker.deadline = None if seconds is None else time.monotonic() + seconds
        with contextlib.suppress(OSError):  # it died while idle; `_wait` notices
            worker.pipe.send(task)

    def _wait(self) -> Finished[T] | None:
        """Wait for the next event. Returns the end of a task, or None if only the state of a worker has changed."""
        waits: dict[Any, _Worker] = {worker.pipe: worker for worker in self._workers}
        waits |= {worker.process.sentinel: worker for worker in self._workers}
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        patience = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        ready = connection.wait(list(waits), patience)
        for one in ready:
            worker = waits[one]
            try:
                if worker.pipe.poll():
                    return self._receive(worker)
            except (EOFError, OSError):
                pass  # it died in the middle of a message
            return self._bury(worker, None)
        late = [worker for worker in self._workers if worker.deadline is not None]
        for worker in late:
            if worker.deadline is not None and worker.deadline <= time.monotonic():
                return self._bury(worker, "timeout")
        return None

    def _receive(self, worker: _Worker) -> Finished[T] | None:
        kind, content, peak = worker.pipe.recv()
        if kind == "unloadable":
            raise content
        if kind == "ready":
            worker.ready, self._load_deaths = True, 0
            return None
        task, worker.task, worker.busy, worker.deadline = worker.task, None, False, None
        if kind == "raised":
            return Finished(task, error=content, peak_memory=peak)
        return Finished(task, content, peak_memory=peak)

    def _bury(self, worker: _Worker, cause: str | None) -> Finished[T] | None:
        """Remove a worker that has died or has to. Returns the end of its task."""
        self._workers.remove(worker)
        if cause is None:
            worker.process.join(GRACE)  # the pipe ends a moment before the process
        reason = "it took too long" if cause else _reason(worker.process.exitcode)
        self._end(worker)
        self.events.append(("worker_died", {"pid": worker.process.pid, "reason": reason}))
        if worker.busy:
            return Finished(worker.task, lost=reason, timed_out=cause is not None)
        if not worker.ready:
            self._load_deaths += 1
            if self._load_deaths >= DEATHS and not any(other.ready for other in self._workers):
                raise UsageError(f"{self._what} cannot be loaded: its process died {DEATHS} times ({reason})")
            if self._load_deaths >= DEATHS:  # the others work: there may be memory for no more than these
                self._jobs = len(self._workers)
                self.events.append(("workers_reduced", {"jobs": self._jobs, "reason": reason}))
        return None

    @staticmethod
    def _end(worker: _Worker) -> None:
        """Kill a worker and the processes that it has started, and release what belongs to it."""
        if worker.process.pid is not None:
            with contextlib.suppress(OSError):  # nothing is left of its group
                os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


_END: Any = object()


@contextlib.contextmanager
def _variables(device: str | None) -> Iterator[None]:
    """The environment that a new worker inherits: its number of threads, and its CUDA device."""
    changes = dict.fromkeys(THREAD_VARIABLES, str(worker_threads()))
    changes = {name: value for name, value in changes.items() if not os.environ.get(name)}
    if device is not None:
        changes["CUDA_VISIBLE_DEVICES"] = device
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start workers with Ctrl-C blocked, so that they print no traceback if it arrives while they import."""
    resource_tracker.ensure_running()  # it would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reason(code: int | None) -> str:
    """Why a process ended, from its exit code: the same text for the same cause."""
    if code is None:
        return "the worker stopped responding"
    if code >= 0:
        return f"the worker ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    explained = {"SIGKILL": "out of memory?", "SIGSEGV": "segmentation fault"}.get(name)
    return f"the worker was killed by {name}" + (f", {explained}" if explained else "")


def _work(pipe: connection.Connection, start: str, argument: Any) -> None:
    """The main function of a worker."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C is for the main process, and a hanging method is killed with its child processes
    ignore_interrupts()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # warnings of batch systems: the main process decides what follows
    threading.Thread(target=_end_with_parent, name="bcd-bench-parent", daemon=True).start()
    try:
        module, _, name = start.partition(":")
        handler = getattr(importlib.import_module(module), name)(argument)
    except BaseException as error:  # noqa: BLE001 - raised in the main process
        with contextlib.suppress(OSError):
            _send(pipe, "unloadable", error)
        return
    with contextlib.suppress(EOFError, OSError):  # the main process is gone
        _send(pipe, "ready", None)
        while (task := pipe.recv()) is not None:
            try:
                value = handler(task)
            except BaseException as error:  # noqa: BLE001 - raised in the main process
                _send(pipe, "raised", error)
            else:
                _send(pipe, "done", value)
    close = getattr(handler, "close", None)
    if close is not None:
        close()


def sendable(error: BaseException) -> BaseException:
    """The exception of a worker as one that can be pickled and raised in the main process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception of any library
        error = UsageError(one_line(error))
    if not isinstance(error, BcdBenchError):
        error.__traceback__ = None
    return error


def _send(pipe: connection.Connection, kind: str, content: Any) -> None:
    if isinstance(content, BaseException):
        content = sendable(content)
    pipe.send((kind, content, peak_memory()))


def _end_with_parent() -> None:
    """Wait for the end of the main process, however it ends, then end this process and its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)
