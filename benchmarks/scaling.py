"""What limits a run on many workers: a simulation with measured costs, checked against real runs on this machine.

    python benchmarks/scaling.py check [--ways jobs1,jobs2,jobs8,ray8,slurm8] [--pairs 256] [--output check.json]
    python benchmarks/scaling.py predict [--picture scaling.png] [--output scaling.json]

`check` runs a method that sleeps for every pair, so that many workers fit on a small machine, and simulates the same
runs with the start-up time and the time per batch that the run with one worker took. `predict` simulates 100,000 pairs
of a face suite at 256 x 256 on 1 to 10,000 workers, with all pairs through one main process (`--jobs`, Ray) or in
shards (`--shard`, Slurm), and prints which part is busiest. Costs that cannot be measured on one machine, such as those
of shared storage, are assumptions, listed in `ASSUMED`. Needs simpy.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import simpy
import storage

from bcd_bench import Clip, MethodSpec, Pair, hookimpl

BATCH = 4
DELAY = 0.25
"""Seconds that the method of `check` sleeps for a pair."""


@dataclass(frozen=True)
class Costs:
    """Seconds, unless noted. Times of batches vary by a log-normal factor."""

    pairs: int = 100_000
    batch: int = 4
    pair: float = 4.0
    """A pair of 50 frames of 256 x 256 by `bcd` on one core."""
    spread: float = 0.3
    """Standard deviation of the logarithm of a batch's time."""
    load: float = 8.0
    """A worker: start, import, load the weights."""
    load_bytes: float = 2.5e9
    """Environment and weights, read from shared storage by the first worker of a node."""
    per_node: int = 32
    """Workers of a node."""
    main: float = 0.006
    """The main process, per batch: hand out, receive, record."""
    start: float = 0.0
    """The main process or scheduler, per worker."""
    output_bytes: float = 1.8e6
    """Of a pair."""
    operations: int = 6
    """Of the file system for a pair: create, write, sync, rename, sync the folder, look up."""
    bandwidth: float = 5e9
    """Of the storage, in bytes per second."""
    operation: float = 1 / 20_000
    """Of the storage's metadata server."""
    lifetime: float = 200 * 3600.0
    """Mean time until a worker dies."""
    merge: float = 0.0005
    """Combining a pair of shards, and building the record."""


ASSUMED = {
    "bandwidth": "5 GB/s", "operation": "20,000 operations per second", "lifetime": "200 hours until a worker dies",
    "load_bytes": "2.5 GB of environment and weights, read once per node", "per_node": "32 cores or 8 GPUs",
    "spread": "0.3",
}  # fmt: skip


class Station:
    """A part that serves one request at a time, and how long it was busy."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.busy = env, 0.0
        self.queue = simpy.Resource(env)

    def serve(self, seconds: float) -> Generator[Any, Any, None]:
        with self.queue.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
            self.busy += seconds


def simulate(costs: Costs, workers: int, *, shards: bool, seed: int = 0) -> dict[str, Any]:
    """Run all batches once; how long it takes, and how busy each part is."""
    env, rng = simpy.Environment(), random.Random(seed)
    parts = {name: Station(env) for name in ("main process", "metadata", "bandwidth", "scheduler")}
    batches = -(-costs.pairs // costs.batch)
    queue, computing, deaths = list(range(batches)), [0.0], [0]
    shares = [list(range(index, batches, workers)) for index in range(workers)] if shards else []

    def write(pairs: int) -> Generator[Any, Any, None]:
        yield from parts["metadata"].serve(pairs * costs.operations * costs.operation)
        yield from parts["bandwidth"].serve(pairs * costs.output_bytes / costs.bandwidth)

    def worker(index: int) -> Generator[Any, Any, None]:
        yield from parts["scheduler"].serve(costs.start)
        mine = shares[index] if shards else queue
        loaded = False
        while mine:
            if not loaded:
                if index % costs.per_node == 0:
                    yield from parts["bandwidth"].serve(costs.load_bytes / costs.bandwidth)
                yield env.timeout(costs.load)
                loaded = True
                continue  # others may have taken the rest
            batch = mine.pop()
            seconds = costs.batch * costs.pair * rng.lognormvariate(-(costs.spread**2) / 2, costs.spread)
            if rng.random() < seconds / costs.lifetime:  # it dies in the middle, and the batch is repeated
                yield env.timeout(seconds / 2)
                mine.append(batch)
                deaths[0] += 1
                loaded = False
                continue
            yield env.timeout(seconds)
            computing[0] += seconds
            yield from write(costs.batch)
            if not shards:
                yield from parts["main process"].serve(costs.main)

    processes = [env.process(worker(index)) for index in range(min(workers, batches))]
    env.run(simpy.AllOf(env, processes))
    end = env.now + (costs.pairs * costs.merge if shards else 0.0)
    used = {name: part.busy / end for name, part in parts.items()}
    used["merge"] = (end - env.now) / end
    return {
        "workers": workers,
        "seconds": end,
        "speed_up": costs.pairs * costs.pair / end,
        "efficiency": costs.pairs * costs.pair / end / workers,
        "deaths": deaths[0],
        "busiest": max(used, key=lambda name: used[name]),
        "busy": {name: round(share, 4) for name, share in used.items()},
    }


# Checked against real runs -------------------------------------------------------------------------------------------


class Sleep:
    """Gives the driving clip after sleeping."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.delay = config["delay"]

    def load(self, weights: Path | None, device: str) -> None:
        del weights, device

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> list[Clip]:
        del seed
        time.sleep(self.delay * len(pairs))
        return [pair.motion.load() for pair in pairs]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    return [MethodSpec("sleep", "1", "Sleeps.", "scaling:Sleep", config={"delay": DELAY}, batch_size=BATCH)]


def measured(way: str, pairs: int, folder: Path) -> float:
    """Wall seconds of a run, without scoring."""
    kind, number = way.rstrip("0123456789"), way.lstrip("abcdefghijklmnopqrstuvwxyz")
    path = os.pathsep.join([str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "MANY_PAIRS": str(pairs), "BCD_BENCH_HOME": str(folder / "home")}
    env |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bcd_bench", "run", "--method", "sleep", "--suite", "many-pairs", "--jobs", number]
    command += ["--metric", "flicker", "--out", str(folder / f"{way}-{pairs}")]
    command += {"ray": ["--executor", "ray"], "slurm": ["--executor", "slurm", "--slurm-time", "60"]}.get(kind, [])
    began = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-1500:]}")
    return time.perf_counter() - began


def check(ways: Sequence[str], pairs: int) -> list[dict[str, Any]]:
    """Measured and simulated seconds of each way. Start-up is that of a run with one batch per worker."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="bcd-bench-scaling-") as temporary:
        folder = Path(temporary)
        storage.install(folder, "storage", "scaling")
        per_batch = None
        for way in ways:
            workers = int(way.lstrip("abcdefghijklmnopqrstuvwxyz"))
            few = workers * max(BATCH, 16 if way.startswith("slurm") else 0)
            start = measured(way, few, folder) - few / workers * DELAY
            seconds = measured(way, pairs, folder)
            if per_batch is None:  # of the first way, with one worker
                per_batch = (seconds - start) / (pairs / BATCH) - BATCH * DELAY
            costs = Costs(
                pairs=pairs, batch=BATCH, pair=DELAY, spread=0, load=0, load_bytes=0, output_bytes=0, operation=0,
                lifetime=1e12, merge=0, main=max(per_batch, 0.0),
            )  # fmt: skip
            simulated = simulate(costs, workers, shards=way.startswith("slurm"))["seconds"] + start
            rows.append({"way": way, "pairs": pairs, "start": start, "measured": seconds, "simulated": simulated})
            print(
                f"{way:8} start-up {start:6.1f} s  measured {seconds:7.1f} s  simulated {simulated:7.1f} s  "
                f"{simulated / seconds - 1:+.0%}  load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(f"main process: {1e3 * (per_batch or 0):.1f} ms per batch")
    return rows


# Predicted -----------------------------------------------------------------------------------------------------------

WORKERS = (1, 2, 10, 30, 100, 300, 1000, 3000, 10_000)
CPU, GPU = Costs(), Costs(pair=0.2, batch=16, load=20.0, per_node=8)
SCENARIOS = {
    "CPU cores, one main process": (CPU, False),
    "CPU cores, shards": (replace(CPU, start=0.05), True),
    "CPU cores, one main process, environment read by every worker": (replace(CPU, per_node=1), False),
    "GPUs, one main process": (GPU, False),
    "GPUs, shards": (replace(GPU, start=0.05), True),
}
"""A pair takes 4 s on a core, and 0.2 s on a GPU."""


def predict(repeat: int) -> dict[str, list[dict[str, Any]]]:
    """All scenarios; the median of `repeat` simulations."""
    found = {}
    for name, (costs, shards) in SCENARIOS.items():
        rows = []
        for workers in WORKERS:
            runs = [simulate(costs, workers, shards=shards, seed=seed) for seed in range(repeat)]
            middle = statistics.median_low(run["seconds"] for run in runs)
            rows.append(next(run for run in runs if run["seconds"] == middle))
        found[name] = rows
        print(f"\n{name}\n| workers | time | speed-up | efficiency | busiest part |\n| --- | --- | --- | --- | --- |")
        for row in rows:
            busiest = f"{row['busiest']} {row['busy'][row['busiest']]:.0%}"
            hours = f"{row['seconds'] / 3600:.2f} h" if row["seconds"] > 600 else f"{row['seconds']:.0f} s"
            print(f"| {row['workers']:,} | {hours} | {row['speed_up']:,.0f} | {row['efficiency']:.0%} | {busiest} |")
    return found


def draw(found: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Speed-up over workers, with the ideal line."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    axes.plot(WORKERS, WORKERS, color="0.7", linestyle=":", label="ideal")
    styles = (("C0", "-"), ("C0", "--"), ("C0", ":"), ("C1", "-"), ("C1", "--"))
    for (name, rows), (colour, line) in zip(found.items(), styles, strict=True):
        axes.plot(WORKERS, [row["speed_up"] for row in rows], color=colour, linestyle=line, marker=".", label=name)
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="speed-up over one worker, without start-up")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "predict"))
    parser.add_argument("--ways", default="jobs1,jobs2,jobs8,ray8,slurm8")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.what == "check":
        result: Any = {"rows": check(given.ways.split(","), given.pairs)}
    else:
        found = predict(given.repeat)
        if given.picture:
            draw(found, given.picture)
        costs = {name: asdict(costs) for name, (costs, _) in SCENARIOS.items()}
        result = {"assumed": ASSUMED, "costs": costs, "predicted": found}
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
