"""Hostile files for every reader, in a process of its own, which may not crash."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.storms.kit import Damage, Lab, Storm
from tests.storms.readers import READERS

CORPUS = Path(__file__).parent / "corpus"
"""Files that earlier storms found to reach much of the readers; they are tried as they are, before new ones."""
ROOT = Path(__file__).parents[2]


def hostile(name: str, lab: Lab, folder: Path, rng: random.Random, tries: int = 1000) -> Damage:
    """`tries` changed files: each is read, or refused with one line."""
    seed = folder / f"seed{READERS[name].suffix}"
    seed.write_bytes(READERS[name].seed(lab.reference()))
    known = CORPUS / name.replace(" ", "-")
    if known.is_dir():
        shutil.copytree(known, folder / "out" / "corpus")
    command = [sys.executable, "-m", "tests.storms.fuzz", name, "--seed-file", seed, "--tries", str(tries)]
    command += ["--seed", str(rng.randrange(10**6)), "--out", folder / "out"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, errors="replace", check=False)
    damage = Damage()
    if ended.returncode:
        damage.note("unclear", f"{name}: the reader's process ended with {ended.returncode}: {ended.stderr[-500:]}")
    report = folder / "out" / "found.json"
    if report.exists():
        for found in json.loads(report.read_text())["found"]:
            damage.note(found["kind"], f"{name}: {found['line']} ({folder / 'out' / found['file']})")
    return damage


STORMS = [Storm(f"hostile files: {name}", partial(hostile, name), 1) for name in READERS]
