"""Plugins that print, fork, leak, hang or exit."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tests.storms.kit import Damage, Lab, Storm, judged, only_run

BAD = "c2-m1"
"""The pair with which a fatal method does not come back."""
HARMLESS = ("print", "fork", "chdir", "environment", "thread", "random", "signals", "leak", "close")
FATAL = ("exit", "exit-now", "interrupt", "hang")
EATS = "eat"


MEMORY = Path("/sys/fs/cgroup/memory")
"""Control groups of memory, of version 1."""
ALLOWED = 2**30
"""Bytes that a command and its workers may have together; they need a third of it."""
KILLED = "its worker died 3 times (the worker was killed by SIGKILL, out of memory?)"


def misbehaves(manner: str, lab: Lab, folder: Path, rng: random.Random, prefix: Iterable[str] = ()) -> Damage:
    """All other pairs are those of an undisturbed run; at most the bad pair fails, with its reason and exit code 1."""
    reference, fatal = lab.reference(), manner in (*FATAL, EATS)
    jobs = str(rng.randint(1, 2))
    command = ("run", "--method", "rude", "--suite", "toy", "--jobs", jobs, "--set", f"manner={manner}")
    command += ("--set", f"victim={BAD}")
    limit = ("--timeout", "8") if manner == "hang" else ()
    ended = lab.end(lab.start(*command, *limit, cwd=folder, prefix=prefix))
    damage = judged(ended, codes=(1,) if fatal else (0,))
    if not list(folder.rglob("plan.json")):
        damage.note("lost", "no run")
        return damage
    run = only_run(folder)
    failed = {BAD} if fatal else set()
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
    reasons = {line["error"] for line in lines if line["status"] == "failed"}
    damage.note("unclear", f"reasons {sorted(reasons)}", int(manner == EATS and reasons != {KILLED}))
    return damage


def out_of_memory(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """The method allocates more than the command may have: the kernel kills its worker."""
    group = MEMORY / f"bcd-bench-storm-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(ALLOWED))
        join = f'echo $$ > {group / "cgroup.procs"} && exec "$@"'
        return misbehaves(EATS, lab, folder, rng, prefix=("sh", "-c", join, "sh"))
    finally:
        deadline = time.monotonic() + 10
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        group.rmdir()


def needs_memory_groups() -> str:
    if os.geteuid() == 0 and os.access(MEMORY / "memory.limit_in_bytes", os.R_OK):
        return ""
    return "needs root and control groups of memory (version 1)"


STORMS = [
    Storm(f"a method that misbehaves: {manner}", partial(misbehaves, manner), 2) for manner in (*HARMLESS, *FATAL)
]
STORMS.append(Storm("a method that needs more memory than there is", out_of_memory, 2, needs_memory_groups))
