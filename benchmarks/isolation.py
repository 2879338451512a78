"""What keeping plugins apart costs: scopes in one process, against a process of its own for each method.

python benchmarks/isolation.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import numpy as np  # as in any run: its random state is part of what is kept
import torch

from bcd_bench.plugin.isolation import PluginScope

ROUNDS, ENTRIES, STARTS = 20, 100, 5


def scope_seconds() -> float:
    """Median seconds to enter and leave a scope whose plugin has set something."""
    scope = PluginScope()
    with scope:
        torch.set_float32_matmul_precision("medium")
        np.random.seed(1)
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(ENTRIES):
            with scope:
                pass
        rounds.append((time.perf_counter() - began) / ENTRIES)
    return statistics.median(rounds)


def process_seconds() -> float:
    """Median seconds to start Python, import torch and the harness's executor, and end: what a process costs before a
    method is loaded."""
    code = "import torch, bcd_bench.run.executor"
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    scope, process = scope_seconds(), process_seconds()
    print(f"a scope, entered and left: {1e3 * scope:.2f} ms; a process with torch: {process:.2f} s")
    print(f"one process costs as much as {process / scope:,.0f} scopes (two to three for each batch and metric)")


if __name__ == "__main__":
    main()
