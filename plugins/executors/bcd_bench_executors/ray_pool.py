"""The executor `ray`: a pool of Ray actors, each of which holds a loaded method, or loaded metrics.

An actor has one task at a time, so there are never more batches in flight than actors. Clips do not travel through
Ray: batches refer to files, and actors write outputs into the run folder, which has to be on storage that all nodes
share. An actor that dies, or whose node dies, is replaced; the harness decides what becomes of its task.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from bcd_bench.run.elsewhere import inherited_environment
from bcd_bench.types.errors import UsageError, one_line
from bcd_bench.util.machine import peak_memory
from bcd_bench.util.pool import DEATHS, THREAD_VARIABLES, Finished, PoolOptions, sendable, worker_threads
from bcd_bench_executors.ray_cluster import connect, gpus_per_worker, is_ours, resources

__all__ = ["RayPool"]

T = TypeVar("T")

TICK = 0.5
"""Seconds after which waiting for Ray is interrupted, so that signals and time limits are noticed."""
GRACE = 5.0
"""Seconds that idle actors have to close their method before they are killed."""


class _Actor:
    """The code of an actor: a handler, loaded once."""

    def hello(self, folder: str) -> tuple[int, str]:
        """The process and the host of the actor. Relative paths mean what they mean on the machine of the command."""
        if Path(folder).is_dir():
            os.chdir(folder)
        return os.getpid(), socket.gethostname()

    def load(self, start: str, argument: Any) -> tuple[str, Any, float]:
        module, _, name = start.partition(":")
        try:
            self._handler = getattr(importlib.import_module(module), name)(argument)
        except BaseException as error:  # noqa: BLE001 - raised by the command
            return "unloadable", sendable(error), peak_memory()
        return "ready", None, peak_memory()

    def run(self, task: Any) -> tuple[str, Any, float]:
        try:
            value = self._handler(task)
        except BaseException as error:  # noqa: BLE001 - raised by the command
            return "raised", sendable(error), peak_memory()
        return "done", value, peak_memory()

    def close(self) -> None:
        close = getattr(self._handler, "close", None)
        if close is not None:
            close()


class _Worker:
    """An actor as the command sees it. `reference` is what it is doing, `state` one of "placing", "loading", "ready"
    and "busy"."""

    def __init__(self, actor: Any, reference: Any) -> None:
        self.actor, self.reference = actor, reference
        self.state = "placing"
        self.task: Any = None
        self.deadline: float | None = None
        self.host = ""
        self.pid = 0


class RayPool(Generic[T]):
    """Up to `jobs` actors on a Ray cluster: `util.open_pool.Pool`.

    Raises `MissingDependencyError` if Ray is not installed, and `UsageError` if the cluster does not answer.
    """

    def __init__(self, start: str, argument: Any, *, what: str, jobs: int, options: PoolOptions) -> None:
        self._start, self._argument, self._what = start, argument, what
        self._jobs, self._options = jobs, options
        self._workers: list[_Worker] = []
        self._again: deque[T] = deque()
        self._load_deaths = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._ray: Any = None
        self._shared: Any = None
        self._since = 0.0

    def __enter__(self) -> RayPool[T]:
        self._ray = connect(self._options.settings)
        self._shared = self._ray.put(self._argument)
        return self

    def __exit__(self, *raised: object) -> None:
        idle = [worker for worker in self._workers if worker.state == "ready"]
        if idle:
            with suppress(Exception):  # they are killed in any case
                self._ray.wait([worker.actor.close.remote() for worker in idle], num_returns=len(idle), timeout=GRACE)
        for worker in self._workers:
            self._kill(worker)
        self._workers.clear()
        self._shared = None

    def again(self, *tasks: T) -> None:
        self._again.extendleft(reversed(tasks))

    def run(self, tasks: Iterator[T], limit: Callable[[T], float | None] = lambda task: None) -> Iterator[Finished[T]]:
        waiting: deque[T] = deque()
        self._since = time.monotonic()

        def pending() -> bool:
            if not self._again and not waiting:
                waiting.extend([task for task in [next(tasks, _END)] if task is not _END])
            return bool(self._again or waiting)

        while True:
            for worker in self._workers:
                if worker.state == "ready" and pending():
                    task = self._again.popleft() if self._again else waiting.popleft()
                    self._send(worker, task, limit(task))
            busy = any(worker.state == "busy" for worker in self._workers)
            loading = any(worker.state in ("placing", "loading") for worker in self._workers)
            if pending():
                if not self._workers or (len(self._workers) < self._jobs and not loading):
                    self._launch(self._jobs - len(self._workers))
            elif not busy:
                return
            finished = self._wait()
            if finished is not None:
                yield finished

    def _launch(self, count: int) -> None:
        """Start actors. Those after a death are started one by one, since they may die while loading."""
        settings = self._options.settings
        threads = dict.fromkeys(THREAD_VARIABLES, str(worker_threads()))
        actor = self._ray.remote(_Actor).options(
            num_cpus=0 if is_ours() else settings["cpus"],  # a local cluster has nobody to share with
            num_gpus=gpus_per_worker(settings, self._options.device),
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": threads | inherited_environment()},
        )
        for _ in range(count if not self._load_deaths else min(count, 1)):
            handle = actor.remote()
            self._workers.append(_Worker(handle, handle.hello.remote(str(Path.cwd()))))

    def _send(self, worker: _Worker, task: T, seconds: float | None) -> None:
        worker.task, worker.state = task, "busy"
        worker.deadline = None if seconds is None else time.monotonic() + seconds
        worker.reference = worker.actor.run.remote(task)

    def _wait(self) -> Finished[T] | None:
        """Wait for the next event. Returns the end of a task, or None if only the state of a worker has changed."""
        references = {worker.reference: worker for worker in self._workers if worker.reference is not None}
        if not references:
            return None
        done, _ = self._ray.wait(list(references), num_returns=1, timeout=TICK)
        for reference in done:
            worker = references[reference]
            worker.reference = None
            try:
                reply = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                return self._bury(worker, _reason(error))
            return self._received(worker, reply)
        now = time.monotonic()
        for worker in self._workers:
            if worker.deadline is not None and worker.deadline <= now:
                return self._bury(worker, "it took too long", timed_out=True)
        patience = float(self._options.settings["wait"])
        if self._since + patience < now and all(worker.state == "placing" for worker in self._workers):
            found = resources(self._ray)
            raise UsageError(
                f"no Ray worker was placed within {patience:g} s; the cluster has {found['CPU']:g} CPUs and "
                f"{found['GPU']:g} GPUs",
                hint="ray status; --ray-cpus N, --ray-gpus N, --ray-wait SECONDS",
            )
        return None

    def _received(self, worker: _Worker, reply: Any) -> Finished[T] | None:
        if worker.state == "placing":
            worker.pid, worker.host = reply
            worker.state = "loading"
            worker.reference = worker.actor.load.remote(self._start, self._shared)
            self.events.append(("worker_started", {"pid": worker.pid, "host": worker.host}))
            return None
        kind, content, peak = reply
        if kind == "unloadable":
            raise content
        if kind == "ready":
            worker.state, self._load_deaths = "ready", 0
            return None
        task, worker.task, worker.state, worker.deadline = worker.task, None, "ready", None
        if kind == "raised":
            return Finished(task, error=content, peak_memory=peak)
        return Finished(task, content, peak_memory=peak)

    def _bury(self, worker: _Worker, reason: str, *, timed_out: bool = False) -> Finished[T] | None:
        """Remove an actor that has died or has to. Returns the end of its task."""
        self._workers.remove(worker)
        self._kill(worker)
        self.events.append(("worker_died", {"pid": worker.pid, "host": worker.host, "reason": reason}))
        if worker.state == "busy":
            return Finished(worker.task, lost=reason, timed_out=timed_out)
        self._load_deaths += 1
        others = [other for other in self._workers if other.state in ("ready", "busy")]
        if self._load_deaths >= DEATHS and not others:
            raise UsageError(f"{self._what} cannot be loaded: its Ray worker died {DEATHS} times ({reason})")
        if self._load_deaths >= DEATHS:
            self._jobs = len(self._workers)
            self.events.append(("workers_reduced", {"jobs": self._jobs, "reason": reason}))
        return None

    def _kill(self, worker: _Worker) -> None:
        with suppress(Exception):  # it is dead already, or the connection is
            self._ray.kill(worker.actor)


_END: Any = object()


def _reason(error: BaseException) -> str:
    """Why an actor is gone, in a few words: Ray's own text has many lines and the paths of the machine."""
    name, text = type(error).__name__, str(error).lower()
    if "node" in name.lower() or "node has died" in text or "node died" in text or "node was terminated" in text:
        return "the node of the worker died"
    if "outofmemory" in name.lower() or "out of memory" in text.replace("killer", "") or "memory monitor" in text:
        return "the worker was killed, out of memory?"
    if "actor" in name.lower() or "worker" in name.lower():
        return "the process of the worker ended"
    return one_line(error, place=False)
