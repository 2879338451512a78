"""Opens a pool of workers: processes of this machine, or what an executor of a plugin provides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from bcd_bench.util.pool import Finished, PoolOptions, WorkerPool

__all__ = ["Pool", "open_pool"]

T = TypeVar("T")


class Pool(Protocol[T]):
    """Workers that have loaded something and run one task after another. `util.pool.WorkerPool` is the built-in one.

    `ExecutorSpec.pool` refers to a callable that is called as `WorkerPool` is: `(start, argument, *, what, jobs,
    options)`. In every worker, `start` ("package.module:function") is called once with `argument`, and the handler that
    it returns with every task. Tasks, results and the argument can be pickled.

    A pool does not decide what follows a failure. It reports that the worker of a task is gone (`Finished.lost`), or
    was ended because the task took too long (`Finished.timed_out`), and replaces the worker; the caller submits the
    task again, splits it or gives it up.
    """

    events: list[tuple[str, dict[str, Any]]]
    """What happened to workers: (kind, details), for logs. The caller empties it."""

    def __enter__(self) -> Pool[T]: ...

    def __exit__(self, *raised: object) -> None:
        """End all workers, busy ones too."""

    def again(self, *tasks: T) -> None:
        """Put tasks in front of the queue, between two results of `run`."""

    def run(self, tasks: Iterator[T], limit: Callable[[T], float | None] = ...) -> Iterator[Finished[T]]:
        """Run every task and yield how it ended, in any order.

        `limit` gives the seconds that a task may take once its worker has loaded (None: no limit). A task is taken from
        `tasks` only when a worker is about to receive it. Raises what loading raised.
        """


def open_pool(start: str, argument: Any, *, what: str, jobs: int, options: PoolOptions) -> Pool[Any]:
    """A pool of up to `jobs` workers of the executor that `options` name. The arguments are those of `WorkerPool`."""
    if not options.factory:
        return WorkerPool(start, argument, what=what, jobs=jobs, options=options)
    from bcd_bench.plugin.loading import load_code

    pool: Pool[Any] = load_code(options.factory, "the executor")(start, argument, what=what, jobs=jobs, options=options)
    return pool
