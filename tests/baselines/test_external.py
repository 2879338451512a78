"""`external`: a worker's faults cost their pair, it is started again, and nothing of it is left."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench import Clip, Failed, Pair, Suite
from bcd_bench.io.image_sequence import write_frames
from bcd_bench.plugin.registry import Registry
from bcd_bench.run.executor import Batch, Work
from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.run.generate import generate
from bcd_bench.run.local import run_local
from bcd_bench.run.plan import make_plan
from bcd_bench.testing import checks_for, practice_pairs
from bcd_bench.types.errors import UsageError
from bcd_bench_baselines import plugin
from bcd_bench_baselines.external.exchange import output_path, read_output, write_input
from bcd_bench_baselines.external.method import External, Worked
from bcd_bench_baselines.external.worker import Worker, WorkerFailed

WORKER = Path(__file__).parent / "worker.py"
PAGE = Path(__file__).parents[2] / "docs" / "external.md"
SIZE = (16, 24)
FACTORY = "bcd_bench_baselines.external.method:External"


def pairs_of(*faults: str) -> list[Pair]:
    pairs = practice_pairs(len(faults), size=SIZE, frames=3)
    return [
        dataclasses.replace(pair, id=f"{fault}-{i}") for i, (pair, fault) in enumerate(zip(pairs, faults, strict=True))
    ]


def command(pids: Path, *more: str) -> str:
    return shlex.join([sys.executable, "-S", str(WORKER), str(pids), *more])


def settings(pids: Path, *more: str, **changes: Any) -> dict[str, Any]:
    config = {"cmd": command(pids, *more), "name": "", "cwd": "", "files": [], "frames": "png", "timeout": 60}
    return {**config, **changes}


def gone(pid: int) -> bool:
    """Whether no such process runs; one that ended and was not collected by its parent yet runs no more."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def test_every_fault_costs_its_own_pair(tmp_path: Path) -> None:
    faults = (
        "fine",
        "crash",
        "fine",
        "killed",
        "short",
        "garbage",
        "other",
        "endless",
        "sorry",
        "told",
        "list",
        "fine",
    )
    pairs = pairs_of(*faults)
    method = External(settings(tmp_path / "pids"))
    method.load(None, "cuda:1")
    results = list(method.transfer(pairs, seed=7))
    method.close()
    said = {fault: result.reason for fault, result in zip(faults, results, strict=True) if isinstance(result, Failed)}
    assert said.pop("crash") == 'the worker ended with exit code 3: File "model.py", line 3 | ValueError: boom'
    assert said.pop("killed").startswith("the worker was killed by SIGKILL")
    assert said.pop("garbage").startswith("cannot read video 000001.png: ")
    assert said.pop("endless").startswith("the worker wrote a line of more than 1048576 bytes")
    assert said.pop("other").startswith('the worker answered for another pair: {"pair": "another"}')
    assert said == {
        "short": "the worker wrote 2 frames, its driving clip has 3",
        "sorry": "the worker reported an error: no face found",
        "list": "the worker's info is not a JSON object",
    }
    for pair, result in zip(pairs, results, strict=True):
        if isinstance(result, Clip):
            assert np.array_equal(result.frames, pair.motion.load().frames)
            assert result.fps == pair.motion.load().fps
    told = results[faults.index("told")]
    assert isinstance(told, Clip)
    assert told.info == {"seed": pair_seed(7, "told-9"), "device": "cuda:1"}
    pids = pids_in(tmp_path / "pids")
    assert len(pids) == 5, "started once, and again after each of four ends"
    assert all(map(gone, pids))


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    [pair] = pairs_of("small")
    content = practice_pairs(1, size=(8, 8), frames=3)[0].content
    method = External(settings(tmp_path / "pids"))
    [result] = method.transfer([dataclasses.replace(pair, content=content)], seed=0)
    method.close()
    assert result == Failed("the worker wrote frames of 8x8, not 3 frames of 16x24")


def test_a_worker_that_hangs_is_ended_with_its_children_and_started_again(tmp_path: Path) -> None:
    hang, fine = pairs_of("hang", "fine")
    worked = Worked(shlex.split(command(tmp_path / "pids")), cwd=None, frames="png", timeout=60)
    assert isinstance(worked.one(fine, seed=0, device="cpu"), Clip)
    worked._timeout = 2.0  # the worker runs already: this is time enough to get as far as hanging
    result = worked.one(hang, seed=0, device="cpu")
    assert isinstance(result, Failed)
    assert result.reason.startswith("the worker did not answer within 2 s")
    worked._timeout = 60
    assert isinstance(worked.one(fine, seed=0, device="cpu"), Clip)
    worked.close()
    assert all(map(gone, pids_in(tmp_path / "pids")))


def test_a_command_that_never_answers_is_given_up(tmp_path: Path) -> None:
    method = External(settings(tmp_path / "pids", "no module named torch"))
    results = list(method.transfer(pairs_of(*["fine"] * 5), seed=0))
    reasons = [result.reason for result in results if isinstance(result, Failed)]
    assert reasons[:3] == ["the worker ended with exit code 1: ImportError: no module named torch"] * 3
    assert reasons[3:] == [f"the command failed 3 times and never answered: {reasons[0]}"] * 2
    assert len(pids_in(tmp_path / "pids")) == 3


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def interrupt() -> None:
        while not (pids.exists() and len(pids_in(pids)) == 2):  # the worker, and the child it started
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    work = Work("external", FACTORY, settings(pids), None, "cpu", 0, SIZE)
    thread = threading.Thread(target=interrupt, daemon=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            next(run_local(work, iter([Batch(0, pairs_of("hang"))]), jobs=1))
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert [gone(pid) for pid in pids_in(pids)] == [True, True]


def test_a_worker_that_is_forgotten_is_ended(tmp_path: Path) -> None:
    worker = Worker(shlex.split(command(tmp_path / "pids")))
    request = {"pair": "sorry", "motion": str(tmp_path / "m"), "output": str(tmp_path / "o")}
    (tmp_path / "m").mkdir()
    assert worker.ask(request, 60)["error"] == "no face\nfound"
    del worker
    assert [gone(pid) for pid in pids_in(tmp_path / "pids")] == [True]


def test_a_closed_worker_does_not_answer(tmp_path: Path) -> None:
    worker = Worker(shlex.split(command(tmp_path / "pids")))
    worker.close()
    with pytest.raises(WorkerFailed, match="the worker ended with exit code 0"):
        worker.ask({"pair": "x"}, 60)


@pytest.mark.parametrize("kind", ["png", "npy", "mkv"])
def test_clips_are_exchanged_without_loss(tmp_path: Path, kind: Any) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    output = output_path(tmp_path, kind)
    given = write_input(tmp_path, "motion", Clip(frames, 25.0), kind)
    if kind == "png":
        output.rmdir()
    given.rename(output)
    assert np.array_equal(read_output(output, kind, 3, SIZE), frames)
    with pytest.raises(UsageError, match=r"3 frames|\[3, 16, 24, 3\]"):
        read_output(output, kind, 4, SIZE)
    with pytest.raises(UsageError, match=r"16x24|\[3, 16, 24, 3\]"):
        read_output(output, kind, 3, (16, 16))


def test_arrays_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "output.npy"
    with pytest.raises(UsageError, match=r"did not write output\.npy"):
        read_output(path, "npy", 3, SIZE)
    path.write_bytes(b"garbage")
    with pytest.raises(UsageError, match="does not begin like a NumPy file"):
        read_output(path, "npy", 3, SIZE)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="is not an array"):
        read_output(path, "npy", 3, SIZE)
    np.save(path, np.zeros((3, *SIZE, 3), np.float32))
    with pytest.raises(UsageError, match=r"wrote float32 \[3, 16, 24, 3\], not uint8"):
        read_output(path, "npy", 3, SIZE)
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(UsageError, match="wrote an archive"):
        read_output(path, "npy", 3, SIZE)
    path.write_bytes(b"PK\x03\x04 and no archive")
    with pytest.raises(UsageError, match="wrote an archive"):
        read_output(path, "npy", 3, SIZE)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cmd": ""}, "needs a command"),
        ({"cmd": "python 'x"}, "cannot be split into words"),
        ({"cwd": "no/such"}, "cwd=no/such: no such folder"),
        ({"files": "no-such.pt"}, "no-such.pt: no such file"),
        ({"frames": "jpg"}, "frames='jpg': must be one of png, npy, mkv"),
        ({"timeout": 0}, "timeout=0 must be a positive number of seconds"),
        ({"timeout": "soon"}, "timeout='soon'"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_planned(changes: dict[str, Any], match: str) -> None:
    suite = Suite("s", "1", practice_pairs(1), (64, 64), 8.0)
    with pytest.raises(UsageError, match=match):
        make_plan(Registry.from_modules([plugin]), "external", suite, config={"cmd": "true", **changes})


def test_a_command_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    method = External(settings(tmp_path, cmd="no-such-command-here x"))
    with pytest.raises(UsageError, match="the command 'no-such-command-here' cannot be started: No such file"):
        method.load(None, "cpu")


def test_the_contents_of_files_decide_the_run(tmp_path: Path) -> None:
    registry, suite = Registry.from_modules([plugin]), Suite("s", "1", practice_pairs(1), (64, 64), 8.0)
    script, weights = tmp_path / "mine.py", tmp_path / "weights"
    script.write_text("1")
    weights.mkdir()
    (weights / "a.pt").write_bytes(b"1")

    def plan(**more: Any) -> Any:
        config = {"cmd": "python mine.py --fast", "cwd": str(tmp_path), "files": "weights", **more}
        return make_plan(registry, "external", suite, config=config)

    before = plan()
    found = before.identity["method"]["config"]
    assert found["cmd"] == ["python", "mine.py", "--fast"]
    assert set(found["files"]) == {"mine.py", "weights"}
    assert str(tmp_path) not in json.dumps(found)
    assert plan(timeout=7, cmd=f"python {script} --fast").run_id == before.run_id
    (weights / ".git").mkdir()
    (weights / ".git" / "index").write_bytes(b"x")
    assert plan().run_id == before.run_id
    others = {plan(name="n").run_id, plan(frames="npy").run_id, plan(cmd="python mine.py").run_id}
    script.write_text("2")
    others.add(plan().run_id)
    (weights / "a.pt").write_bytes(b"2")
    others.add(plan().run_id)
    assert len(others | {before.run_id}) == 6


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The program that the page shows."""
    [code] = re.findall(r'^```python\n("""my_method\.py.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 30
    path = tmp_path / "my_method.py"
    path.write_text(code)
    return path


def test_the_example_of_the_page_runs(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    registry = Registry.from_modules([plugin])
    suite = Suite("s", "1", practice_pairs(2, size=SIZE, frames=3), SIZE, 8.0)
    config = {"cmd": f"{sys.executable} {example}", "frames": "npy"}
    run, done = generate(registry, make_plan(registry, "external", suite, config=config), suite, tmp_path / "runs")
    assert done.n_failed == 0
    for pair in suite.pairs:
        output = run.read_output(run.pairs()[pair.id]).frames
        assert np.array_equal(output[0], pair.content.load().frames[0])
        assert output.shape == pair.motion.load().frames.shape


@pytest.mark.slow
def test_folder_and_external_conform(tmp_path: Path) -> None:
    for pair in practice_pairs(3):
        write_frames(tmp_path / pair.id, pair.motion.load())
    pids = tmp_path / "pids"
    config = {"folder": {"path": str(tmp_path)}, "external": {"cmd": command(pids)}}
    for check in checks_for("baselines", only=list(config), config=config):
        if "registers_without_torch" not in str(check):
            check()
    assert all(map(gone, pids_in(pids)))
