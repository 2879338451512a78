"""Generation: resuming, failing pairs, retries, locks, stops, and outputs that never depend on any of them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import toy_plugin

from bcd_bench import Clip, Failed, Pair
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run import executor as executor_module
from bcd_bench.run import generate as generate_module
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import GenerateSummary, generate
from bcd_bench.run.plan import make_plan
from bcd_bench.types.errors import Interrupted, MissingDependencyError, UsageError


@pytest.fixture
def registry() -> Registry:
    toy_plugin.Noise.calls.clear()
    return Registry.from_modules([toy_plugin])


def run(
    registry: Registry, out: Path, method: str = "noise", suite: str = "toy", *, retry: bool = False, **plan: object
) -> tuple[RunFolder, GenerateSummary]:
    made = load_suite(registry, suite)
    return generate(registry, make_plan(registry, method, made, **plan), made, out, retry_failed=retry)  # type: ignore[arg-type]


def outputs(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.outputs_dir.iterdir())}


def lines(folder: RunFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in folder.pairs_path.read_text().splitlines()]


def test_a_run_writes_every_pair_once_in_the_batches_of_the_plan(registry: Registry, tmp_path: Path) -> None:
    folder, summary = run(registry, tmp_path)
    assert summary == GenerateSummary(n_pairs=10, n_done_before=0, n_generated=10, n_failed=0, first_error=None)
    assert [len(call) for call in toy_plugin.Noise.calls] == [4, 4, 2]
    assert [line["id"] for line in lines(folder)] == [f"p{i:02d}" for i in range(10)]
    assert folder.path == tmp_path / "toy@1" / "noise" / folder.plan.run_id
    assert sorted(p.name for p in folder.path.iterdir() if not p.name.startswith(".")) == [
        "env.json", "outputs", "pairs.jsonl", "plan.json", "scores"
    ]  # fmt: skip
    for result in folder.pairs().values():
        clip = folder.read_output(result)
        assert (clip.sha256, len(clip), clip.fps, clip.id) == (result.output_sha256, 4, 8.0, result.id)


def test_a_finished_run_is_not_run_again(registry: Registry, tmp_path: Path) -> None:
    folder, _ = run(registry, tmp_path)
    before, noted = outputs(folder), folder.pairs_path.read_bytes()
    toy_plugin.Noise.calls.clear()
    _, summary = run(registry, tmp_path)
    assert toy_plugin.Noise.calls == []
    assert (summary.n_done_before, summary.n_generated) == (10, 0)
    assert (outputs(folder), folder.pairs_path.read_bytes()) == (before, noted)


def test_an_unfinished_batch_runs_again_whole_and_gives_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    whole, _ = run(registry, tmp_path / "whole")
    folder, _ = run(registry, tmp_path / "torn")
    noted = folder.pairs_path.read_bytes().splitlines(keepends=True)
    folder.pairs_path.write_bytes(b"".join(noted[:6]) + noted[6][:20])  # killed in the middle of a line
    (folder.outputs_dir / f".p09.mkv.1{'.part'}").write_bytes(b"half")
    folder.output_path("p08").unlink()
    toy_plugin.Noise.calls.clear()
    _, summary = run(registry, tmp_path / "torn")
    assert toy_plugin.Noise.calls == [["p04", "p05", "p06", "p07"], ["p08", "p09"]]
    assert (summary.n_done_before, summary.n_generated) == (4, 6)
    assert outputs(folder) == outputs(whole)
    assert [line["id"] for line in lines(folder)] == [f"p{i:02d}" for i in range(10)]


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_an_output_that_is_not_whole_is_made_again(registry: Registry, tmp_path: Path, damage: str) -> None:
    folder, _ = run(registry, tmp_path)
    before = outputs(folder)
    path = folder.output_path("p05")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-7])
    _, summary = run(registry, tmp_path)
    assert summary.n_generated == 4
    assert outputs(folder) == before


def test_failing_pairs_cost_themselves_alone(registry: Registry, tmp_path: Path) -> None:
    folder, summary = run(registry, tmp_path, "fragile")
    errors = {result.id: result.error for result in folder.pairs().values() if result.status == "failed"}
    assert (errors.pop("p08") or "").startswith("output info is not plain JSON: ")
    assert folder.pairs()["p09"].info == {"codes": [1, 2]}
    assert errors.pop("p01", "").startswith("RuntimeError: the codebook is on fire (toy_plugin.py:")
    assert errors == {
        "p04": "no face found",
        "p05": "output has 3 frames, but its driving clip has 4",
        "p06": "output is 8x24, but the suite is 16x24",
        "p07": "output is ndarray, not a Clip",
    }
    assert summary.n_failed == 6
    assert summary.first_error is not None
    assert "codebook" in summary.first_error
    assert sorted(outputs(folder)) == ["p00.mkv", "p02.mkv", "p03.mkv", "p09.mkv"]


def test_failed_pairs_are_tried_again_only_when_asked(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run(registry, tmp_path, "fragile")
    kept = outputs(folder)
    monkeypatch.setenv("TOY_MENDED", "1")
    toy_plugin.Noise.calls.clear()
    _, summary = run(registry, tmp_path, "fragile")
    assert (toy_plugin.Noise.calls, summary.n_failed) == ([], 6)
    _, summary = run(registry, tmp_path, "fragile", retry=True)
    assert (summary.n_done_before, summary.n_generated, summary.n_failed) == (10, 6, 0)
    assert [len(call) for call in toy_plugin.Noise.calls] == [4, 4, 2], "whole batches, as the plan fixed them"
    after = outputs(folder)
    assert {name: after[name] for name in kept} == kept
    whole, _ = run(registry, tmp_path / "whole", "fragile")
    again = outputs(whole)
    assert {name: after[name] for name in after if name not in kept} == {
        name: again[name] for name in after if name not in kept
    }
    assert [line["id"] for line in lines(folder)] == [f"p{i:02d}" for i in range(10)]


def test_a_retry_that_fails_again_keeps_the_failure(registry: Registry, tmp_path: Path) -> None:
    folder, _ = run(registry, tmp_path, "fragile")
    before = outputs(folder)
    _, summary = run(registry, tmp_path, "fragile", retry=True)
    assert (summary.n_generated, summary.n_failed) == (6, 6)
    assert (outputs(folder), len(lines(folder))) == (before, 10)


def test_another_seed_gives_another_run_and_the_same_seed_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    first, _ = run(registry, tmp_path / "a", seed=1)
    second, _ = run(registry, tmp_path / "b", seed=1)
    third, _ = run(registry, tmp_path / "a", seed=2)
    assert outputs(first) == outputs(second)
    assert first.plan.run_id == second.plan.run_id != third.plan.run_id
    assert not set(outputs(first).values()) & set(outputs(third).values())


def test_a_method_that_cannot_load_is_one_clear_line(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'unloadable' cannot be loaded: ValueError: no such device \(toy_plugin"):
        run(registry, tmp_path, "unloadable")
    with pytest.raises(MissingDependencyError, match="needs the package 'a_package_that_is_not_there'") as caught:
        run(registry, tmp_path, "needs-package")
    assert caught.value.exit_code == 3


def test_a_begun_run_does_not_change_its_device(registry: Registry, tmp_path: Path) -> None:
    folder, _ = run(registry, tmp_path)
    folder.output_path("p00").unlink()
    with pytest.raises(UsageError, match="started on device 'cpu' and cannot be resumed on 'cuda'"):
        run(registry, tmp_path, device="cuda")


def test_two_processes_do_not_write_to_one_run(registry: Registry, tmp_path: Path) -> None:
    folder, _ = run(registry, tmp_path)
    with folder.locked(), pytest.raises(UsageError, match="is being written by another process"):
        run(registry, tmp_path)
    run(registry, tmp_path)


def test_a_full_disk_stops_the_run_with_one_line_and_the_run_continues(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(registry, tmp_path / "whole")
    written = 0
    real = executor_module.encode_lossless

    def full(clip: object) -> bytes:
        nonlocal written
        written += 1
        if written == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(clip)  # type: ignore[arg-type]

    monkeypatch.setattr(executor_module, "encode_lossless", full)
    with pytest.raises(UsageError, match=r"cannot write to .*: No space left on device"):
        run(registry, tmp_path / "full")
    monkeypatch.undo()
    folder = RunFolder(tmp_path / "full" / whole.plan.folder)
    assert sorted(outputs(folder)) == [f"p{i:02d}.mkv" for i in range(4)], "a half-written batch leaves nothing"
    assert len(folder.pairs()) == 4
    run(registry, tmp_path / "full")
    assert outputs(folder) == outputs(whole)


def test_an_unwritable_place_is_one_clear_line(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot write to .*file/toy@1/noise/\w+: Not a directory"):
        run(registry, tmp_path / "file")


def test_another_executor_gives_the_same_bytes_in_any_order(registry: Registry, tmp_path: Path) -> None:
    whole, _ = run(registry, tmp_path / "whole")
    suite = load_suite(registry, "toy")
    folder, summary = generate(
        registry, make_plan(registry, "noise", suite), suite, tmp_path / "x", executor="backwards", jobs=2
    )
    assert (summary.n_generated, summary.n_failed) == (10, 0)
    assert outputs(folder) == outputs(whole)
    assert [line["id"] for line in lines(folder)] == [f"p{i:02d}" for i in range(10)]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (SystemExit(3), "SystemExit: 3 (test_generate.py:"),
        (Mute(), "Mute: (its message cannot be shown) (test_generate.py:"),
        (ValueError("\udc80\x00\n\x1b[31m"), "ValueError: \ufffd\ufffd \ufffd[31m (test_generate.py:"),
    ],
)
def test_whatever_a_method_raises_costs_its_pair_alone(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, error: str
) -> None:
    def transfer(self: toy_plugin.Noise, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        for pair in pairs:
            if pair.id == "p03":
                raise raised
            yield Failed("not \udc80 today") if pair.id == "p04" else pair.motion.load()

    monkeypatch.setattr(toy_plugin.Noise, "transfer", transfer)
    folder, summary = run(registry, tmp_path)
    assert summary.n_failed == 2
    assert (folder.pairs()["p03"].error or "").startswith(error)
    assert folder.pairs()["p04"].error == "not \ufffd today"


@pytest.mark.parametrize(
    ("execute", "error"),
    [
        (None, "TypeError: 'NoneType' object is not callable"),
        (lambda work, batches, *, jobs: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda work, batches, *, jobs: sys.exit(3), "SystemExit: 3"),
    ],
)
def test_a_broken_executor_is_one_clear_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execute: object, error: str
) -> None:
    monkeypatch.setattr(toy_plugin, "run_backwards", execute)
    suite = load_suite(registry, "toy")
    with pytest.raises(UsageError, match=f"executor 'backwards' failed: {error}"):
        generate(registry, make_plan(registry, "noise", suite), suite, tmp_path, executor="backwards", jobs=2)


def test_an_output_that_cannot_be_encoded_is_a_failed_pair(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = executor_module.encode_lossless
    refused = iter([False, True] + [False] * 8)

    def encode(clip: Clip) -> bytes:
        return real(Clip(clip.frames, 1e-9) if next(refused) else clip)

    monkeypatch.setattr(executor_module, "encode_lossless", encode)
    folder, summary = run(registry, tmp_path)
    assert summary.n_failed == 1
    error = folder.pairs()["p01"].error
    assert error == "output cannot be encoded: a video file cannot store 1e-09 frames per second"


class Heard:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int, int]] = []
        self.advanced = 0
        self.messages: list[str] = []

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Heard]:
        self.tasks.append((name, total, done))
        yield self

    def advance(self, n: int = 1) -> None:
        self.advanced += n

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_progress_counts_pairs_and_tells_the_first_failures(registry: Registry, tmp_path: Path) -> None:
    heard = Heard()
    suite = load_suite(registry, "toy-open")
    generate(registry, make_plan(registry, "oracle", suite), suite, tmp_path, progress=heard)
    assert (heard.tasks, heard.advanced) == ([("generate", 10, 0)], 10)
    assert heard.messages[0] == "pair p00 failed: the pair has no ground-truth target"
    assert len(heard.messages) == 6
    assert heard.messages[5].startswith("more pairs failed; ")
    again = Heard()
    generate(registry, make_plan(registry, "oracle", suite), suite, tmp_path, progress=again)
    assert again.tasks == []


def test_data_that_moved_is_found_again(registry: Registry, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        data = {"toys": tmp_path / name}
        suite = load_suite(registry, "toy-data", data)
        folder, _ = generate(registry, make_plan(registry, "noise", suite, data=data), suite, tmp_path / "runs")
        assert RunFolder(folder.path).plan.suite.data == {"toys": str(tmp_path / name)}


def test_an_unknown_executor_is_named(registry: Registry, tmp_path: Path) -> None:
    suite = load_suite(registry, "toy")
    with pytest.raises(UsageError, match="unknown executor 'slurm'"):
        generate(registry, make_plan(registry, "noise", suite), suite, tmp_path, executor="slurm")


def test_the_environment_names_no_machine_and_a_changed_one_is_added(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run(registry, tmp_path)
    text = (folder.path / "env.json").read_text()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text
    first = folder.env()
    assert first["packages"]["numpy"]
    assert first["plugins"]["bcd_bench"]["source_sha256"]
    monkeypatch.setattr(generate_module, "environment", lambda registry, device: {**first, "cpu": "another"})
    for _ in range(2):
        folder.output_path("p00").unlink()
        run(registry, tmp_path)
    assert folder.env() == {**first, "resumed_in": [{**first, "cpu": "another"}]}


SCRIPT = """
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import toy_plugin
from bcd_bench.types.errors import Interrupted
from bcd_bench.run.generate import generate
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.plan import make_plan
from bcd_bench.plugin.registry import Registry
registry = Registry.from_modules([toy_plugin])
suite = load_suite(registry, "toy")
try:
    generate(registry, make_plan(registry, "noise", suite), suite, Path(sys.argv[2]))
except Interrupted as stop:
    print(stop)
    sys.exit(stop.exit_code)
"""


def start(out: Path, waits_at: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(out)]
    return subprocess.Popen(command, env={**os.environ, "TOY_WAITS_AT": waits_at}, stdout=subprocess.PIPE, text=True)


def wait_for_pairs(out: Path, n: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if sum(path.read_bytes().count(b"\n") for path in out.glob("*/*/*/pairs.jsonl")) >= n:
            return
        time.sleep(0.01)
    raise AssertionError(f"{n} pairs were not reached, exit code {process.poll()}")


def test_killed_three_times_and_finished_is_byte_identical(registry: Registry, tmp_path: Path) -> None:
    whole, _ = run(registry, tmp_path / "whole")
    out = tmp_path / "killed"
    for n, waits_at in ((0, "p02"), (4, "p06"), (8, "p09")):
        process = start(out, waits_at)
        if n == 0:
            while not list(out.glob("*/*/*/plan.json")) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.1)
        else:
            wait_for_pairs(out, n, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    folder, summary = run(registry, out)
    assert summary.n_failed == 0
    assert [line["id"] for line in lines(folder)] == [f"p{i:02d}" for i in range(10)]
    assert outputs(folder) == outputs(whole)


def test_a_signal_while_the_last_batch_is_written_loses_nothing_and_still_stops(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = executor_module.encode_lossless

    def encode(clip: Clip) -> bytes:
        if clip.id == "p09":
            os.kill(os.getpid(), signal.SIGINT)
        return real(clip)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(executor_module, "encode_lossless", encode)
    with pytest.raises(Interrupted, match="interrupted after 10 of 10 pairs"):
        run(registry, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    _, summary = run(registry, tmp_path)
    assert (summary.n_done_before, summary.n_generated) == (10, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_with_code_4_and_the_run_continues(
    registry: Registry, tmp_path: Path, number: signal.Signals
) -> None:
    whole, _ = run(registry, tmp_path / "whole")
    out = tmp_path / "stopped"
    process = start(out, "p06")
    wait_for_pairs(out, 4, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=3600)
    assert (process.returncode, said.startswith("interrupted after ")) == (Interrupted.exit_code, True)
    folder = RunFolder(out / whole.plan.folder)
    assert len(folder.pairs()) == 4
    assert not list(folder.outputs_dir.glob(".*"))
    run(registry, out)
    assert outputs(folder) == outputs(whole)
