"""How long the command line takes to answer, against importing the two libraries that it cannot do without.

    python benchmarks/startup.py

Each command is run in turn several times; printed are medians and their ratio to `python -c "import typer, rich"`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REFERENCE = [sys.executable, "-c", "import typer, rich"]
COMMANDS = {"--help": ["--help"], "list": ["list"]}
ROUNDS = 15


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    commands = {name: [sys.executable, "-m", "bcd_bench", *words] for name, words in COMMANDS.items()}
    taken: dict[str, list[float]] = {name: [] for name in ["reference", *commands]}
    for round_ in range(ROUNDS + 1):
        for name, command in {"reference": REFERENCE, **commands}.items():
            spent = seconds(command)
            if round_:  # the first round fills the file cache
                taken[name].append(spent)
    reference = statistics.median(taken["reference"])
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:<10} {median * 1000:7.1f} ms   {median / reference:5.2f} x")


if __name__ == "__main__":
    main()
