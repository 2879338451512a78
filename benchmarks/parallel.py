"""Speed-up by worker processes, and their overhead: the same work with one worker and with several, in one run.

    python benchmarks/parallel.py generate [--method bcd] [--suite sprites-procedural] [--pairs 128] [--jobs 2]
    python benchmarks/parallel.py score [--suite heads-cross-128] [--pairs 16] [--jobs 2]
    python benchmarks/parallel.py overhead [--batches 200]

`generate` and `score` measure wall time including the start of the workers (`generate` also without), and check that
the results are equal. `score` uses the default metrics of a suite of faces on outputs of `copy-content`, with an empty
cache each time. `overhead` measures the time per batch of a task that does nothing, for a batch that carries 4 MB back.
Speed-ups mean something only on an idle machine: the load is printed, and by how much two processes without any
communication are faster than one after the other, which is the most that can be expected at that moment.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bcd_bench.plugin.registry import load_registry
from bcd_bench.results.build import write_record
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.pipeline import prepare
from bcd_bench.scoring.score import score_run
from bcd_bench.util.pool import PoolOptions, WorkerPool

SPIN = "t = __import__('time'); e = t.process_time() + 3\nwhile t.process_time() < e: pass"


def attainable(jobs: int) -> float:
    """Speed-up of `jobs` independent processes that only compute, now and on this machine."""
    command = [sys.executable, "-c", SPIN]
    began = time.perf_counter()
    for _ in range(jobs):
        subprocess.run(command, check=True)
    one = time.perf_counter() - began
    began = time.perf_counter()
    for process in [subprocess.Popen(command) for _ in range(jobs)]:
        process.wait()
    return one / (time.perf_counter() - began)


def outputs_hash(run: RunFolder) -> str:
    return hashlib.sha256("".join(str(pair.output_sha256) for pair in run.pairs().values()).encode()).hexdigest()


class Clock:
    """Progress that notes when the first worker had loaded, and when the last pair was done."""

    ready = last = 0.0

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Clock]:
        yield self

    def advance(self, n: int = 1) -> None:
        self.last = time.perf_counter()

    def message(self, text: str) -> None:
        print(text, file=sys.stderr)

    def event(self, kind: str, **details: Any) -> None:
        if kind == "batch" and not self.ready:
            self.ready = time.perf_counter() - details["seconds"]

    @property
    def seconds(self) -> float:
        return self.last - self.ready


def measure(what: str, seconds: dict[int, float], jobs: int, ceiling: float) -> None:
    ratio = seconds[1] / seconds[jobs]
    print(
        f"{what}: 1 worker {seconds[1]:.1f} s, {jobs} workers {seconds[jobs]:.1f} s: {ratio:.2f}x; "
        f"attainable {ceiling:.2f}x; load {os.getloadavg()[0]:.1f}"
    )


def bench_generate(method: str, suite: str, pairs: int, jobs: int) -> None:
    registry, seconds, loaded, hashes = load_registry(), {}, {}, {}
    prepared = prepare(registry, method, suite, limit=pairs, metrics=[])
    ceiling = attainable(jobs)
    for workers in (1, jobs):
        with tempfile.TemporaryDirectory() as folder:
            began, clock = time.perf_counter(), Clock()
            run, _ = generate(
                registry,
                prepared.plan,
                prepared.suite,
                Path(folder),
                jobs=workers,
                pool=PoolOptions(),
                progress=clock,
            )
            seconds[workers], loaded[workers] = time.perf_counter() - began, clock.seconds
            hashes[workers] = outputs_hash(run)
    assert hashes[1] == hashes[jobs], "outputs differ"
    measure(f"generating {pairs} pairs of {suite} with {method}", seconds, jobs, ceiling)
    measure("  without loading", loaded, jobs, ceiling)


def bench_score(suite: str, pairs: int, jobs: int) -> None:
    registry, seconds, records = load_registry(), {}, {}
    prepared = prepare(registry, "copy-content", suite, limit=pairs)
    names = [name for name in prepared.metrics if name not in prepared.missing]
    ceiling = attainable(jobs)
    for workers in (1, jobs):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["BCD_BENCH_HOME"] = str(Path(folder, "home"))
            run, _ = generate(registry, prepared.plan, prepared.suite, Path(folder), jobs=1, pool=PoolOptions())
            began = time.perf_counter()
            results = score_run(registry, run, names, jobs=workers, pool=PoolOptions(), suite=prepared.suite)
            seconds[workers] = time.perf_counter() - began
            write_record(registry, run, results)
            records[workers] = run.record_path.read_bytes()
    assert records[1] == records[jobs], "records differ"
    measure(f"scoring {pairs} outputs of {suite} ({', '.join(names)})", seconds, jobs, ceiling)


def start_nothing(size: int) -> Any:
    payload = os.urandom(size)
    return lambda task: payload


def bench_overhead(batches: int) -> None:
    for size, name in ((0, "empty"), (4 * 2**20, "4 MiB")):
        options = PoolOptions()
        with WorkerPool[int](f"{__name__}:start_nothing", size, what="nothing", jobs=1, options=options) as pool:
            ends = pool.run(iter(range(batches + 1)))
            next(ends)  # started and loaded
            began = time.perf_counter()
            count = sum(1 for _ in ends)
        print(f"overhead per {name} batch: {1e3 * (time.perf_counter() - began) / count:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("generate", "score", "overhead"))
    parser.add_argument("--method", default="bcd")
    parser.add_argument("--suite")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batches", type=int, default=200)
    given = parser.parse_args()
    if given.what == "generate":
        bench_generate(given.method, given.suite or "sprites-procedural", given.pairs or 128, given.jobs)
    elif given.what == "score":
        bench_score(given.suite or "heads-cross-128", given.pairs or 16, given.jobs)
    else:
        bench_overhead(given.batches)


if __name__ == "__main__":
    main()
