"""Run folders with many pairs: every command on `copy-content` and tiny clips, as a user calls it.

    python benchmarks/storage.py [--pairs 10000,100000] [--out FOLDER]

For each number of pairs: time and peak memory of a run that is killed halfway, of the same command again (with the time
until it continues), of a rerun of the finished run, of `status`, `verify`, `report` and `bundle`, and the size of the
folder. The goals: a run continues within 5 s, and the peak does not grow with the number of outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench import Clip, ClipRef, Pair, Suite, SuiteSpec, hookimpl

SIDE, FRAMES, PEOPLE, CLIPS = 16, 2, 50, 1000
RESUME_LIMIT = 5.0
"""Seconds until a run of any size continues."""


@dataclass(frozen=True)
class Noise:
    """A clip of random pixels."""

    seed: int

    def load(self) -> Clip:
        frames = np.random.default_rng(self.seed).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
        return Clip(frames, 25.0, str(self.seed))

    def describe(self) -> dict[str, Any]:
        return {"noise": self.seed}


def many_pairs(data: Mapping[str, Path]) -> Suite:
    """A suite of `MANY_PAIRS` pairs."""
    del data
    clips = [ClipRef(f"clip-{n}", Noise(n), {"subject": n % PEOPLE}, frames=FRAMES) for n in range(CLIPS)]
    pairs = [
        Pair(f"{n:06d}", clips[n % CLIPS], clips[(7 * n + n // CLIPS) % CLIPS], target=clips[(n + 1) % CLIPS])
        for n in range(int(os.environ["MANY_PAIRS"]))
    ]
    return Suite("many-pairs", "1", pairs, (SIDE, SIDE), 25.0, ("target-psnr", "flicker"))


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return [SuiteSpec("many-pairs", "1", "Tiny clips of noise.", "storage:many_pairs")]


def install(folder: Path, *modules: str) -> None:
    """Write what `pip install` would write for these files as plugins."""
    info = folder / "many_pairs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: many-pairs\nVersion: 1\n")
    lines = [f"{module} = {module}" for module in modules]
    (info / "entry_points.txt").write_text("\n".join(["[bcd_bench]", *lines, ""]))


@dataclass(frozen=True)
class Bench:
    """Commands on one run folder."""

    out: Path
    env: dict[str, str]

    @property
    def run(self) -> Path:
        return next(self.out.glob("*/copy-content/*/plan.json"), self.out / "plan.json").parent

    def done(self) -> int:
        """Finished pairs."""
        path = self.run / "pairs.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.out / "log.txt").open("ab")
        return subprocess.Popen(
            [sys.executable, "-m", "bcd_bench", *arguments], env=self.env, cwd=self.out, stdout=log, stderr=log
        )

    def measure(self, name: str, *arguments: str, until: int | None = None) -> dict[str, Any]:
        """Seconds and peak memory of one command; `until` kills it when that many pairs are done."""
        before, began, continued = self.done(), time.perf_counter(), None
        process = self.start(*arguments)
        while (ended := os.wait4(process.pid, os.WNOHANG)) == (0, 0, ended[2]):
            done = self.done()
            if continued is None and done > before:
                continued = time.perf_counter() - began
            if until is not None and done >= until:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.05 if continued is None else 0.5)
        code = os.waitstatus_to_exitcode(ended[1])
        row: dict[str, Any] = {
            "what": name,
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(ended[2].ru_utime + ended[2].ru_stime, 1),
            "peak_mb": round(ended[2].ru_maxrss / 1024),
            "done": self.done(),
        }
        if continued is not None:
            row["continued_after"] = round(continued, 1)
        if code not in (0, -signal.SIGKILL):
            row["exit_code"] = code
        print(json.dumps(row), flush=True)
        return row


def bench(pairs: int, folder: Path) -> bool:
    """All stages. True if the run continued in time and every pair is there once."""
    folder.mkdir(parents=True)
    install(folder, "storage")
    path = os.pathsep.join([str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    out = folder / "runs"
    out.mkdir()
    bench = Bench(out, os.environ | {"PYTHONPATH": path, "MANY_PAIRS": str(pairs), "BCD_BENCH_HOME": str(folder)})
    run = ("run", "--method", "copy-content", "--suite", "many-pairs", "--out", ".", "--jobs", "1")
    print(json.dumps({"pairs": pairs, "load": os.getloadavg()[0]}), flush=True)
    bench.measure("run, killed halfway", *run, until=pairs // 2)
    resumed = bench.measure("run, continued", *run)
    bench.measure("run, finished before", *run)
    place = str(bench.run)
    bench.measure("status", "status", place)
    bench.measure("verify", "verify", place)
    bench.measure("report", "report", place)
    bench.measure("bundle", "bundle", place, "--output", "run.bundle.zip")
    files = [file for file in bench.run.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    ids = [json.loads(line)["id"] for line in (bench.run / "pairs.jsonl").read_text().splitlines()]
    once = sorted(ids) == [f"{n:06d}" for n in range(pairs)]
    print(json.dumps({"files": len(files), "mb": round(size / 1e6, 1), "every pair once": once}), flush=True)
    return once and resumed["continued_after"] <= RESUME_LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="10000,100000")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.out or Path(temporary)).absolute()
        good = [bench(int(pairs), folder / pairs) for pairs in given.pairs.split(",")]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
