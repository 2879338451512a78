"""What all storms need: the toy plugin in a folder of its own, commands as processes, and the comparison with an
undisturbed run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.conftest import install

TOY = Path(__file__).parents[1] / "e2e" / "toy" / "bcd_bench_toy"
HANG = 300.0
"""Seconds after which a command counts as hanging: it takes a few on an idle machine."""
RUN = ("run", "--method", "toy-slow", "--suite", "toy")
COMPARED = ("record.json", "values.json")


@dataclass
class Damage:
    """Pairs, outputs and commands that a storm damaged; a line for each."""

    lost: int = 0
    doubled: int = 0
    different: int = 0
    hangs: int = 0
    unclear: int = 0
    """Commands that ended with a traceback, a wrong exit code, or without a line that says why."""
    lines: list[str] = field(default_factory=list)

    def note(self, kind: str, line: str, count: int = 1) -> None:
        if count:
            setattr(self, kind, getattr(self, kind) + count)
            self.lines.append(f"{kind}: {line}")

    def add(self, other: Damage) -> None:
        for kind in ("lost", "doubled", "different", "hangs", "unclear"):
            setattr(self, kind, getattr(self, kind) + getattr(other, kind))
        self.lines += other.lines

    @property
    def none(self) -> bool:
        return not self.lines


@dataclass(frozen=True)
class Storm:
    """One kind of storm. `strike(lab, folder, rng)` is one try, in an empty folder."""

    name: str
    strike: Callable[[Lab, Path, random.Random], Damage]
    tries: int
    """Tries of the complete kit."""
    needs: Callable[[], str] = lambda: ""
    """Why it cannot be run here, or ""."""


@dataclass
class Ended:
    """A command that ended, or was ended because it hung."""

    code: int
    out: str
    err: str
    hung: bool = False


class Lab:
    """A folder with the toy plugin and undisturbed runs. `env` is that of commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        site = folder / "site"
        shutil.copytree(TOY, site / "bcd_bench_toy", ignore=shutil.ignore_patterns("*.pyc", "__pycache__"))
        install(site, "bcd-bench-toy", "toy", "bcd_bench_toy.plugin")
        shutil.copy(Path(__file__).parent / "rude.py", site / "bcd_bench_rude.py")
        install(site, "bcd-bench-rude", "rude", "bcd_bench_rude")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BCD_BENCH_", "TOY_"))}
        self.env = kept | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])),
            "BCD_BENCH_PLUGINS": "toy,rude",
            "BCD_BENCH_HOME": str(folder / "home"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        self._seconds: dict[str, float] = {}

    def start(self, *arguments: str | Path, cwd: Path, prefix: Iterable[str] = (), **env: str) -> subprocess.Popen[str]:
        """Start `bcd-bench ARGUMENTS` in a process group of its own, behind the command `prefix`."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "bcd_bench", *map(str, arguments)],
            cwd=cwd,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def end(self, process: subprocess.Popen[str], within: float = HANG) -> Ended:
        """Wait for a command; kill it if it hangs."""
        try:
            out, err = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            kill(process)
            out, err = process.communicate()
            return Ended(process.returncode, out, err, hung=True)
        return Ended(process.returncode, out, err)

    def finish(self, *arguments: str | Path, cwd: Path, **env: str) -> Ended:
        """Run `bcd-bench ARGUMENTS` to its end."""
        return self.end(self.start(*arguments, cwd=cwd, **env))

    def timed(self, name: str, *arguments: str, cwd: Path, **env: str) -> float:
        """Run an undisturbed command called `name`, if it has not been run yet, and return the seconds that it took."""
        if name not in self._seconds:
            began = time.perf_counter()
            ended = self.finish(*arguments, cwd=cwd, **env)
            assert ended.code == 0, ended.err
            self._seconds[name] = time.perf_counter() - began
        return self._seconds[name]

    def template(self, name: str, build: Callable[[Path], None] = lambda path: None) -> Path:
        """A folder that `build` fills once."""
        path = self.folder / "templates" / name
        if not path.exists():
            path.mkdir(parents=True)
            build(path)
        return path

    def reference(self) -> Path:
        """The run folder of an undisturbed run."""
        place = self.template("reference")
        self.timed("run", *RUN, cwd=place)
        return only_run(place)

    def run_seconds(self) -> float:
        """How long the undisturbed run took."""
        self.reference()
        return self._seconds["run"]


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 a command and all its workers."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def kill_at_random(
    lab: Lab, folder: Path, rng: random.Random, *command: str, seconds: float, again: str = "", **env: str
) -> None:
    """Start a command and kill it, one to three times, each at any moment of its work. `again` is an option for all
    but the first time."""
    for number in range(rng.randint(1, 3)):
        process = lab.start(*command, *([again] if again and number else []), cwd=folder, **env)
        time.sleep(rng.uniform(0, seconds))
        kill(process)
        process.communicate()


def only_run(out: Path) -> Path:
    """The single run folder below `out`."""
    [plan] = out.rglob("plan.json")
    return plan.parent


def ids_in(run: Path) -> list[str]:
    """Ids of all lines of `pairs.jsonl`."""
    return [json.loads(line)["id"] for line in (run / "pairs.jsonl").read_text().splitlines()]


def compare(run: Path, reference: Path) -> Damage:
    """Differences of a finished run to an undisturbed one."""
    damage = Damage()
    planned = [pair["id"] for pair in json.loads((reference / "plan.json").read_text())["pairs"]]
    found = ids_in(run)
    damage.note("lost", f"pairs {sorted(set(planned) - set(found))}", len(set(planned) - set(found)))
    damage.note("doubled", f"{len(found)} lines for {len(set(found))} pairs", len(found) - len(set(found)))
    for path in [*(reference / name for name in COMPARED), *sorted((reference / "outputs").iterdir())]:
        name = path.relative_to(reference)
        other = run / name
        if not other.exists() or other.read_bytes() != path.read_bytes():
            damage.note("different", str(name))
    extra = {path.name for path in (run / "outputs").iterdir()} - {f"{pair}.mkv" for pair in planned}
    damage.note("different", f"files that do not belong to the run: {sorted(extra)}", len(extra))
    return damage


def judged(ended: Ended, codes: Iterable[int] = (0,)) -> Damage:
    """Whether a command ended in time, with one of these exit codes, without a traceback, and with a line that says
    why if it failed."""
    damage = Damage()
    if ended.hung:
        damage.note("hangs", f"after {HANG:g} s: {ended.err[-300:]}")
    elif ended.code not in codes:
        damage.note("unclear", f"exit code {ended.code}: {ended.err[-600:]}")
    elif "Traceback" in ended.err:
        damage.note("unclear", f"traceback: {ended.err[-600:]}")
    elif ended.code and not any(
        line.startswith(("error: ", "warning: ", "interrupted: ")) for line in ended.err.splitlines()
    ):
        damage.note("unclear", f"exit code {ended.code} without a reason: {ended.err[-300:]}")
    return damage


def finished_like(lab: Lab, folder: Path) -> Damage:
    """Continue the run in `folder` to its end, and compare it with the undisturbed one."""
    damage = judged(lab.finish(*RUN, cwd=folder))
    if damage.none:
        damage.add(compare(only_run(folder), lab.reference()))
    return damage
