"""Processes that are killed, stopped, started twice, or whose clock or folder moves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from tests.storms.kit import RUN, Damage, Lab, Storm, compare, finished_like, judged, kill, kill_at_random, only_run

PAUSE = 60.0
"""Seconds for which a process is stopped."""
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
SHARDS = 2


def kill_run(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    seconds = lab.run_seconds()
    kill_at_random(lab, folder, rng, *RUN, "--jobs", str(rng.randint(1, 2)), seconds=seconds)
    return finished_like(lab, folder)


def kill_score(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """Scores and record are missing, as after an interrupted run."""

    def unscored(path: Path) -> None:
        shutil.copytree(lab.reference(), path / "run")
        shutil.rmtree(path / "run" / "scores")
        for name in ("record.json", "values.json", "timing.json"):
            (path / "run" / name).unlink()

    command = ("score", "run", "--jobs", "1")
    seconds = lab.timed("score", *command, cwd=lab.template("timed-score", unscored))
    unscored(folder)
    kill_at_random(lab, folder, rng, *command, seconds=seconds)
    damage = judged(lab.finish(*command, cwd=folder))
    damage.add(compare(folder / "run", lab.reference()))
    return damage


def kill_merge(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    def build(path: Path) -> None:
        for number in range(1, SHARDS + 1):  # each on a machine of its own, since the last one would merge
            machine = lab.folder / f"machine-{number}"
            machine.mkdir()
            ended = lab.finish(*RUN, "--jobs", "1", "--shard", f"{number}/{SHARDS}", cwd=machine)
            assert ended.code == 0, ended.err
            shutil.copytree(machine, path, dirs_exist_ok=True)

    template = lab.template("shards", build)
    command = ("merge", str(only_run(template).relative_to(template)))

    def copied(path: Path) -> None:
        shutil.copytree(template, path, dirs_exist_ok=True)

    seconds = lab.timed("merge", *command, cwd=lab.template("timed-merge", copied))
    copied(folder)
    kill_at_random(lab, folder, rng, *command, seconds=seconds)
    ended = lab.finish(*command, cwd=folder)
    if "merged already" in ended.err:  # it was killed between merging and scoring, or after everything
        ended = lab.finish("score", *command[1:], cwd=folder)
    damage = judged(ended)
    damage.add(compare(only_run(folder), lab.reference()))
    return damage


def stopped(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """SIGSTOP for a minute at any moment."""
    reference = lab.reference()
    seconds = lab.run_seconds()
    process = lab.start(*RUN, "--jobs", "2", cwd=folder)
    time.sleep(rng.uniform(0, seconds))
    try:
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(PAUSE)
        os.killpg(process.pid, signal.SIGCONT)
    except ProcessLookupError:
        pass  # it had ended
    damage = judged(lab.end(process))
    damage.add(compare(only_run(folder), reference))
    return damage


def clock_set_back(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """The clock is set back by up to 100 days while the command runs."""
    reference = lab.reference()
    clock = folder / "clock"
    clock.write_text("+0\n")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    out = folder / "work"
    out.mkdir()
    process = lab.start(*RUN, cwd=out, **fake)
    time.sleep(rng.uniform(0.5, 3))
    clock.write_text(f"-{rng.randint(1, 8_640_000)}\n")
    damage = judged(lab.end(process))
    if damage.none:
        damage.add(compare(only_run(out), reference))
    return damage


def started_twice(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """Two identical commands at once: one may be refused, no work is doubled."""
    reference = lab.reference()
    processes = [lab.start(*RUN, cwd=folder)]
    time.sleep(rng.uniform(0, 1))
    processes.append(lab.start(*RUN, cwd=folder))
    ends = [lab.end(process) for process in processes]
    damage = Damage()
    for ended in ends:
        damage.add(judged(ended, codes=(0, 2)))
    if all(ended.code for ended in ends):
        damage.note("unclear", f"both were refused: {ends[0].err[-300:]}")
    damage.add(compare(only_run(folder), reference))
    return damage


def copied_while_running(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """A copy of the folder, taken at any moment, continues to the same end."""
    reference = lab.reference()
    seconds = lab.run_seconds()
    original, copy = folder / "original", folder / "copy"
    original.mkdir()
    process = lab.start(*RUN, cwd=original)
    time.sleep(rng.uniform(0, seconds))
    subprocess.run(["cp", "-r", str(original), str(copy)], check=False, capture_output=True)  # files come and go
    damage = judged(lab.end(process))
    damage.add(compare(only_run(original), reference))
    damage.add(finished_like(lab, copy))
    return damage


def moved_while_running(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """The folder is moved away at any moment; the same command continues it at its new place."""
    reference = lab.reference()
    seconds = lab.run_seconds()
    before, after = folder / "before", folder / "after"
    before.mkdir()
    process = lab.start(*RUN, "--out", str(before / "runs"), cwd=folder)
    time.sleep(rng.uniform(0, seconds))
    before.rename(after)
    damage = judged(lab.end(process), codes=(0, 2))
    ended = lab.finish(*RUN, "--out", str(after / "runs"), cwd=folder)
    damage.add(judged(ended))
    damage.add(compare(only_run(after), reference))
    return damage


def kill_study(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """The server is killed while ratings come in: what it had confirmed is stored, once."""
    from bcd_bench.study.design import Study
    from bcd_bench.study.store import DATABASE_NAME, Store
    from tests.core.test_study_server import SCORES, make_study

    study: Study = make_study(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    damage, confirmed = Damage(), set[str]()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def ask(path: str, body: Any) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        return json.loads(opener.open(request, timeout=30).read())

    def serve() -> subprocess.Popen[str]:
        server = lab.start("study", "serve", folder, "--port", str(port), "--rate-limit", "1000", cwd=folder)
        deadline = time.monotonic() + HANG_OF_A_SERVER
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        return server

    server, state, strike = serve(), None, rng.randint(0, len(study.media()))
    for number in range(1000):
        try:
            state = ask("/api/start", {}) if state is None else state
            if not state["item"]:
                break
            item = state["item"]["id"]
            if number == strike:
                threading.Timer(rng.uniform(0, 0.02), kill, [server]).start()
            state = ask("/api/rating", {"item": item, "scores": SCORES, "seconds": 1.0})
            confirmed.add(item)
        except OSError:
            kill(server)
            server.communicate()
            server, state = serve(), None
    kill(server)
    server.communicate()
    stored = [rating.item for rating in Store(folder / DATABASE_NAME).ratings()]
    damage.note("lost", f"ratings {confirmed - set(stored)}", len(confirmed - set(stored)))
    damage.note("doubled", "ratings", len(stored) - len(set(stored)))
    if state is None or state["item"]:
        damage.note("lost", "the rater could not finish")
    return damage


HANG_OF_A_SERVER = 60.0
"""Seconds until a server must answer."""


def needs_faketime() -> str:
    return "" if FAKETIME else "faketime is not installed"


def needs_study() -> str:
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn", "limits") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


STORMS = [
    Storm("kill -9 of run", kill_run, 100),
    Storm("kill -9 of score", kill_score, 100),
    Storm("kill -9 of merge", kill_merge, 100),
    Storm("kill -9 of the study's server", kill_study, 100, needs_study),
    Storm("SIGSTOP for a minute", stopped, 5),
    Storm("clock set back", clock_set_back, 20, needs_faketime),
    Storm("the same command twice", started_twice, 20),
    Storm("folder copied while running", copied_while_running, 20),
    Storm("folder moved while running", moved_while_running, 20),
]
