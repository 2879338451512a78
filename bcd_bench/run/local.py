"""The executor `local`: batches in worker processes of this machine, or one after another in this process.

A worker that dies costs a retry. The batch is repeated as a whole once, so that an accident (a process killed from
outside) leaves the same bytes as an undisturbed run, then pair by pair, so that only the pair that is to blame fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bcd_bench.io.atomic import fsync_path, temporary_name
from bcd_bench.plugin.loading import plugin_code
from bcd_bench.run.environment import worker_environment
from bcd_bench.run.executor import Batch, Encoded, Outcome, Work, close_method, encoded, load_method, run_batch
from bcd_bench.run.folder import output_in, writing
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.open_pool import Pool, open_pool
from bcd_bench.util.pool import DEATHS, Finished, PoolOptions

__all__ = ["run_in_pool", "run_local"]


def run_local(work: Work, batches: Iterator[Batch], *, jobs: int) -> Iterator[Outcome]:
    """Run batches in `jobs` worker processes, or in this process if `work.pool` is None and `jobs` is 1."""
    if work.pool is not None or jobs > 1:
        yield from run_in_pool(work, batches, jobs=jobs)
        return
    method = load_method(work)
    try:
        for batch in batches:
            yield run_batch(method, batch, seed=work.seed, size=work.size)
    finally:
        with plugin_code(f"method {work.method!r}", "cannot be closed"):
            close_method(method)


@dataclass(frozen=True)
class _Task:
    """A batch, or one pair of it (`index`). `deaths` counts the workers that died on it."""

    batch: Batch
    index: int | None = None
    deaths: int = 0

    @property
    def pairs(self) -> int:
        return len(self.batch.pairs) if self.index is None else 1


@dataclass(frozen=True)
class _Reply:
    """What a worker returns for a task: the results of its pairs. `environment` is sent once by each worker."""

    results: Sequence[Encoded | Failed]
    seconds: float
    environment: dict[str, object] | None


class _Handler:
    """The state of a worker: the loaded method."""

    def __init__(self, work: Work) -> None:
        self._work, self._method, self._told = work, load_method(work), False

    def __call__(self, task: _Task) -> _Reply:
        batch = task.batch
        if task.index is not None:
            batch = Batch(batch.number, [batch.pairs[task.index]])
        outcome = run_batch(self._method, batch, seed=self._work.seed, size=self._work.size)
        environment = None if self._told else worker_environment(self._work.device, self._work.distributions)
        self._told = True
        results = [
            self._stored(pair, encoded(result) if isinstance(result, Clip | Failed) else result)
            if not batch.wanted or pair.id in batch.wanted
            else Failed("not requested")
            for pair, result in zip(batch.pairs, outcome.results, strict=True)
        ]
        return _Reply(results, outcome.seconds, environment)

    def _stored(self, pair: Pair, result: Encoded | Failed) -> Encoded | Failed:
        """The output, moved from memory to a file if the main process expects files."""
        if self._work.outputs is None or isinstance(result, Failed):
            return result
        temporary = temporary_name(output_in(self._work.outputs, pair.id))
        with writing(self._work.outputs):
            temporary.write_bytes(result.data)
            fsync_path(temporary)
        return replace(result, data=b"", file=temporary)

    def close(self) -> None:
        with plugin_code(f"method {self._work.method!r}", "cannot be closed"):
            close_method(self._method)


def start_worker(work: Work) -> _Handler:
    """Load the method in a worker process."""
    return _Handler(work)


class _Split:
    """A batch that is run pair by pair: the results so far."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.seconds = batch, 0.0
        self.results: list[Encoded | Failed | None] = [
            None if not batch.wanted or pair.id in batch.wanted else Failed("not requested") for pair in batch.pairs
        ]

    def open(self) -> list[int]:
        """Indices of the pairs without a result."""
        return [index for index, result in enumerate(self.results) if result is None]


def run_in_pool(work: Work, batches: Iterator[Batch], *, jobs: int) -> Iterator[Outcome]:
    """Run batches in a pool of `jobs` workers: that of `work.pool`, by default processes of this machine."""
    options = work.pool or PoolOptions()
    splits: dict[int, _Split] = {}
    pool: Pool[_Task] = open_pool(
        f"{__name__}:start_worker", work, what=f"method {work.method!r}", jobs=jobs, options=options
    )

    def limit(task: _Task) -> float | None:
        return None if options.timeout is None else options.timeout * task.pairs

    with pool:
        for end in pool.run((_Task(batch) for batch in batches), limit):
            if end.error is not None:
                raise end.error
            batch = end.task.batch
            reply = end.value if end.lost is None else None
            if reply is not None and end.task.index is None:
                outcome: Outcome | None = Outcome(batch, reply.results, reply.seconds)
            else:
                outcome = _next_step(end, reply, splits, pool, options.timeout)
            if outcome is not None:
                events = tuple(pool.events)
                pool.events.clear()
                environment = None if reply is None else reply.environment
                yield replace(outcome, peak_memory=end.peak_memory, environment=environment, events=events)


def _next_step(
    end: Finished[_Task],
    reply: _Reply | None,
    splits: dict[int, _Split],
    pool: Pool[_Task],
    timeout: float | None,
) -> Outcome | None:
    """Decide what follows a lost worker or a single pair of a batch. Returns the batch's outcome if it is complete."""
    task, batch = end.task, end.task.batch
    deaths = task.deaths + (end.lost is not None)
    if task.index is None:
        pool.events.append(("batch_retried", {"batch": batch.number, "reason": end.lost}))
        if deaths == 1 and not end.timed_out:
            pool.again(_Task(batch, deaths=deaths))
            return None
        split = splits[batch.number] = _Split(batch)
        if len(batch.pairs) > 1 or (deaths < DEATHS and not end.timed_out):
            pool.again(*(_Task(batch, index, min(deaths, DEATHS - 1)) for index in split.open()))
            return None
        task = _Task(batch, 0)
    split = splits[batch.number]
    assert task.index is not None, "whole batches are handled above"
    if reply is not None:
        split.results[task.index], split.seconds = reply.results[0], split.seconds + reply.seconds
    elif end.timed_out:
        split.results[task.index] = Failed(f"no result within {timeout:g} s (--timeout)")
    elif deaths < DEATHS:
        pool.again(replace(task, deaths=deaths))
        return None
    else:
        split.results[task.index] = Failed(f"its worker died {DEATHS} times ({end.lost})")
    if split.open():
        return None
    del splits[batch.number]
    return Outcome(batch, [result for result in split.results if result is not None], split.seconds)
