"""The same run with every executor: equal records and outputs, and what an executor costs.

    python benchmarks/executors.py same [--method bcd] [--suite sprites-procedural] [--limit 64] [--ways …]
    python benchmarks/executors.py overhead [--pairs 256,2048] [--ways jobs2,ray2,slurm2]
    python benchmarks/executors.py pools [--batches 300]

Ways: `sequential` (Python, in one process), `jobs2`, `shards4` (four commands one after the other, the last of which
merges), `ray2` (a local Ray cluster with two workers), `slurm4` (an array of four tasks); the number can be changed.
`same` compares the bytes of the record and the hashes of all outputs with those of the first way. `overhead` runs
`copy-content` on tiny clips with two numbers of pairs and takes the slope as the time per batch and the rest as
start-up, both of the median of `--repeat` runs. `pools` sends batches of `copy-content` with tiny clips, as they are
planned, to one worker that does nothing with them, on this machine and on Ray. Every run gets an empty feature cache.
Commit first: records contain the state of the checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bcd_bench.plugin.registry import load_registry
from bcd_bench.run.executor import Batch
from bcd_bench.run.pipeline import prepare
from bcd_bench.util.open_pool import open_pool
from bcd_bench.util.pool import PoolOptions

SEQUENTIAL = """
import sys
import bcd_bench as bb
method, suite, limit, metrics, out = sys.argv[1:]
names = metrics.split(",") if metrics else None
bb.evaluate(method, suite, limit=int(limit) or None, metrics=names, out=out, progress=False)
"""


def commands(way: str, method: str, suite: str, limit: int, metrics: str, out: Path) -> list[list[str]]:
    """The commands of one way to make the same run."""
    if way == "sequential":
        return [[sys.executable, "-c", SEQUENTIAL, method, suite, str(limit), metrics, str(out)]]
    match = re.fullmatch(r"(jobs|shards|ray|slurm)(\d+)", way)
    if match is None:
        raise SystemExit(f"unknown way {way}")
    kind, number = match[1], match[2]
    run = [sys.executable, "-m", "bcd_bench", "run", "--method", method, "--suite", suite, "--out", str(out)]
    run += ["--limit", str(limit)] if limit else []
    run += ["--metric", metrics] if metrics else []
    if kind == "shards":
        return [[*run, "--jobs", "1", "--shard", f"{index}/{number}"] for index in range(1, int(number) + 1)]
    executor = {"jobs": [], "ray": ["--executor", "ray"], "slurm": ["--executor", "slurm", "--slurm-time", "120"]}[kind]
    return [[*run, "--jobs", number, *executor]]


def run_way(way: str, method: str, suite: str, limit: int, metrics: str, scratch: Path) -> tuple[Path, float]:
    """Make the run; returns its folder and the wall time in seconds."""
    out = scratch / way
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BCD_BENCH_HOME": str(scratch / f"home-{way}")}
    began = time.perf_counter()
    for command in commands(way, method, suite, limit, metrics, out):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    seconds = time.perf_counter() - began
    records = list(out.glob("**/record.json"))
    if len(records) != 1:
        raise SystemExit(f"{way}: {len(records)} records; {done.stderr[-2000:]}")
    return records[0].parent, seconds


def digest(run: Path) -> tuple[str, str, int]:
    """Hashes of the record's bytes and of all output files, and the number of finished pairs."""
    outputs = hashlib.sha256()
    files = sorted((run / "outputs").iterdir())
    for file in files:
        outputs.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    lines = [json.loads(line) for line in (run / "pairs.jsonl").read_text().splitlines()]
    return hashlib.sha256((run / "record.json").read_bytes()).hexdigest(), outputs.hexdigest(), len(lines)


def same(arguments: argparse.Namespace) -> int:
    first: tuple[str, str, int] | None = None
    different = 0
    with tempfile.TemporaryDirectory(prefix="bcd-bench-executors-", dir=arguments.scratch) as folder:
        for way in arguments.ways.split(","):
            run, seconds = run_way(
                way, arguments.method, arguments.suite, arguments.limit, arguments.metrics, Path(folder)
            )
            found = digest(run)
            first = first or found
            different += found != first
            verdict = "same" if found == first else "DIFFERENT"
            hashes = f"record {found[0][:16]}  outputs {found[1][:16]}"
            print(f"{way:12} {seconds:7.1f} s  {hashes}  {found[2]} pairs  {verdict}")
            sys.stdout.flush()
    return int(different > 0)


def overhead(arguments: argparse.Namespace) -> int:
    few, many = (int(part) for part in arguments.pairs.split(","))
    batches = (many - few) / 16  # pairs in a batch of copy-content
    load = os.getloadavg()[0]
    print(f"copy-content on sprites-procedural, {few} and {many} pairs, median of {arguments.repeat}; load {load:.1f}")
    for way in arguments.ways.split(","):
        walls: dict[int, list[float]] = {few: [], many: []}
        for _ in range(arguments.repeat):
            for limit in (few, many):
                with tempfile.TemporaryDirectory(prefix="bcd-bench-executors-", dir=arguments.scratch) as folder:
                    _, seconds = run_way(way, "copy-content", "sprites-procedural", limit, "flicker", Path(folder))
                    walls[limit].append(seconds)
        slope = (statistics.median(walls[many]) - statistics.median(walls[few])) / batches
        start = statistics.median(walls[few]) - slope * few / 16
        print(f"{way:12} {1000 * slope:7.1f} ms per batch, start-up and end {start:6.1f} s")
        sys.stdout.flush()
    return 0


def start_nothing(argument: str) -> Callable[[Batch], int]:
    return lambda batch: len(batch.pairs)


def pools(arguments: argparse.Namespace) -> int:
    prepared = prepare(load_registry(), "copy-content", "sprites-procedural")
    batch = Batch(0, list(prepared.plan.suite_pairs(prepared.suite))[:16])
    print(f"batches of 16 pairs that one worker does nothing with; load {os.getloadavg()[0]:.1f}")
    settings = {"address": "local", "cpus": 1.0, "gpus": 0.0, "wait": 600}
    for name, options in (
        ("local", PoolOptions()),
        ("ray", PoolOptions(factory="bcd_bench_executors.ray_pool:RayPool", settings=settings)),
        ("ray again", PoolOptions(factory="bcd_bench_executors.ray_pool:RayPool", settings=settings)),
    ):
        began, ends = time.perf_counter(), []
        with open_pool("executors:start_nothing", "", what="nothing", jobs=1, options=options) as pool:
            for end in pool.run(batch for _ in range(arguments.batches)):
                assert end.value == 16
                ends.append(time.perf_counter())
        steps = [1000 * (after - before) for before, after in itertools.pairwise(ends)]
        median, tenth = statistics.median(steps), sorted(steps)[len(steps) // 10]
        first = ends[0] - began
        print(f"{name:10} {median:6.2f} ms per batch (fastest tenth {tenth:.2f}), {first:5.1f} s to the first one")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("same", "overhead", "pools"))
    parser.add_argument("--method", default="bcd")
    parser.add_argument("--suite", default="sprites-procedural")
    parser.add_argument("--limit", type=int, default=64, help="0 takes all pairs")
    parser.add_argument("--metrics", default="", help="default: those of the suite and the method")
    parser.add_argument("--pairs", default="256,2048")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--ways", default=None)
    parser.add_argument("--scratch", default=None, help="folder for the runs, on storage that all nodes see")
    arguments = parser.parse_args()
    if arguments.ways is None:
        arguments.ways = "sequential,jobs2,shards4,ray2,slurm4" if arguments.command == "same" else "jobs2,ray2,slurm2"
    return {"same": same, "overhead": overhead, "pools": pools}[arguments.command](arguments)


if __name__ == "__main__":
    sys.exit(main())
