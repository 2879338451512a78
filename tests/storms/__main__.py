"""All storms, by one command.

    python -m tests.storms [--only NAME,...] [--tries N] [--seed 0] [--output report.md]

`--tries` limits the tries of every kind. Ends with exit code 1 if anything was lost, doubled, different, hung or
unclear. Disks are mounted in a temporary folder, for which root is needed; kinds that cannot be run are skipped with a
reason.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.storms import disks, hostile, kills, plugins, processes
from tests.storms.kit import Damage, Lab, Storm

STORMS: list[Storm] = [*processes.STORMS, *kills.STORMS, *disks.STORMS, *plugins.STORMS, *hostile.STORMS]
HEADER = "| storm | tries | lost | doubled | different | hangs | unclear | seconds |\n| --- " + "| --- " * 7 + "|"


def strike(storm: Storm, lab: Lab, seed: int, tries: int) -> tuple[Damage, float]:
    """`tries` tries of one kind, each seeded by its number."""
    total, began = Damage(), time.perf_counter()
    for number in range(tries):
        folder = lab.folder / "tries" / f"{storm.name.replace(' ', '-').replace(chr(39), '')}-{number}"
        folder.mkdir(parents=True)
        damage = storm.strike(lab, folder, random.Random(f"{storm.name} {seed} {number}"))
        for line in damage.lines:
            print(f"{storm.name}, try {number}: {line}", file=sys.stderr, flush=True)
        total.add(damage)
        if damage.none:
            shutil.rmtree(folder)
    return total, time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--tries", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    known = {storm.name: storm for storm in STORMS}
    names = given.only.split(",") if given.only else list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"--only {unknown[0]}: choose from {', '.join(known)}")
    chosen = [known[name] for name in names]
    lines, good = [HEADER], True
    print(HEADER)
    with tempfile.TemporaryDirectory() as temporary:
        lab = Lab(Path(temporary))
        for storm in chosen:
            reason = storm.needs()
            tries = min(storm.tries, given.tries or storm.tries)
            if reason:
                line = f"| {storm.name} | skipped: {reason} |" + " |" * 6
            else:
                damage, seconds = strike(storm, lab, given.seed, tries)
                good = good and damage.none
                cells = (damage.lost, damage.doubled, damage.different, damage.hangs, damage.unclear)
                line = f"| {storm.name} | {tries} | {' | '.join(map(str, cells))} | {seconds:.0f} |"
            print(line, flush=True)
            lines.append(line)
    print(f"load at the end: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
