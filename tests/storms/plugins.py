"""Plugins that print, fork, leak, hang or exit."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

from tests.storms.kit import Damage, Lab, Storm, judged, only_run

BAD = "c2-m1"
"""The pair with which a fatal method does not come back."""
HARMLESS = ("print", "fork", "chdir", "environment", "thread", "random", "signals", "leak", "close")
FATAL = ("exit", "exit-now", "interrupt", "hang")


def misbehaves(manner: str, lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """All other pairs are those of an undisturbed run; at most the bad pair fails, with its reason and exit code 1."""
    reference = lab.reference()
    jobs = str(rng.randint(1, 2))
    command = ("run", "--method", "rude", "--suite", "toy", "--jobs", jobs, "--set", f"manner={manner}")
    command += ("--set", f"victim={BAD}")
    limit = ("--timeout", "8") if manner == "hang" else ()
    ended = lab.finish(*command, *limit, cwd=folder)
    damage = judged(ended, codes=(1,) if manner in FATAL else (0,))
    if not list(folder.rglob("plan.json")):
        damage.note("lost", "no run")
        return damage
    run = only_run(folder)
    failed = {BAD} if manner in FATAL else set()
    lines = [json.loads(line) for line in (run / "pairs.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (reference / "pairs.jsonl").read_text().splitlines()]
    damage.note("doubled", "pairs", len(lines) - len({line["id"] for line in lines}))
    found = {line["id"]: line["output_sha256"] for line in lines if line["status"] == "ok"}
    for line in expected:
        if line["id"] in failed:
            damage.note("different", f"{manner}: {line['id']} did not fail", int(line["id"] in found))
        elif line["id"] not in found:
            damage.note("lost", f"{manner}: {line['id']}")
        elif found[line["id"]] != line["output_sha256"]:
            damage.note("different", f"{manner}: {line['id']}")
    return damage


STORMS = [
    Storm(f"a method that misbehaves: {manner}", partial(misbehaves, manner), 2) for manner in (*HARMLESS, *FATAL)
]
