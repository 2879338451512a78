"""Progress: counts, rates and times as text, plain lines in a pipe, a bar on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import (
    BarProgress,
    LoggedProgress,
    NoProgress,
    PlainProgress,
    Progress,
    describe,
    format_seconds,
    note_event,
    note_failures,
    open_progress,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (187, "3m07s"), (3599.6, "1h00m"), (7500, "2h05m")],
)
def test_seconds_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.floats(0, 1e7))
def test_seconds_are_within_a_minute_of_the_truth(seconds: float) -> None:
    parts = dict.fromkeys("hms", 0) | {unit: int(n) for n, unit in re.findall(r"(\d+)([hms])", format_seconds(seconds))}
    assert abs(parts["h"] * 3600 + parts["m"] * 60 + parts["s"] - seconds) <= (60 if parts["h"] else 0.51)
    assert parts["m"] < 60
    assert parts["s"] < 60


def test_the_rate_counts_only_what_was_done_now() -> None:
    assert describe(10, 50, 10, 0.0, "pairs") == "10/50 pairs"
    assert describe(30, 50, 10, 4.0, "pairs") == "30/50 pairs, 5.0 pairs/s, 4s left"
    assert describe(11, 50, 10, 20.0, "pairs") == "11/50 pairs, 20.0 s/pair, 13m00s left"
    assert describe(50, 50, 10, 80.0, "steps") == "50/50 steps, 2.0 s/step, 1m20s"


def work(progress: Progress) -> None:
    with progress.task("generate", total=4, done=1) as task:
        task.advance()
        task.message("pair x failed: why [not] <b>")
        task.advance(2)


def test_plain_lines_at_the_start_and_the_end() -> None:
    stream = io.StringIO()
    work(PlainProgress(stream, interval=1000))
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["generate: 1/4 pairs", "pair x failed: why [not] <b>"]
    assert re.fullmatch(r"generate: 4/4 pairs, .*", lines[2])
    assert len(lines) == 3


def test_plain_lines_at_every_interval() -> None:
    stream = io.StringIO()
    work(PlainProgress(stream, interval=0))
    assert [line.partition(" pairs")[0] for line in stream.getvalue().splitlines() if "generate" in line] == [
        "generate: 1/4",
        "generate: 2/4",
        "generate: 4/4",
    ]


def test_a_task_that_raises_still_says_how_far_it_came() -> None:
    stream = io.StringIO()
    with (
        contextlib.suppress(KeyError),
        PlainProgress(stream, interval=1000).task("train", total=9, unit="steps") as task,
    ):
        task.advance(3)
        raise KeyError
    assert stream.getvalue().splitlines()[-1].startswith("train: 3/9 steps")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    work(BarProgress(stream))
    shown = stream.getvalue()
    assert "pair x failed: why [not] <b>" in shown
    assert "4/4 pairs" in shown


def test_the_stream_decides() -> None:
    assert isinstance(open_progress(stream=Terminal()), BarProgress)
    assert isinstance(open_progress(stream=io.StringIO()), PlainProgress)
    work(NoProgress())


def test_a_log_has_every_event_and_shows_what_it_wraps(tmp_path: Path) -> None:
    shown, path = io.StringIO(), tmp_path / "log.jsonl"
    path.write_text('{"event": "earlier"}\n')
    progress = LoggedProgress(path, PlainProgress(shown))
    with progress.task("generate", total=3, done=1) as task:
        note_failures(task, 1)
        task.advance(2)
        task.message("pair p1 failed: é")
        note_event(task, "worker_died", pid=7, reason="SIGKILL")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line.pop("event") for line in lines] == [
        "earlier", "task_started", "progress", "message", "worker_died", "task_ended"
    ]  # fmt: skip
    assert all(line.pop("time") > 1.7e9 for line in lines[1:])
    assert lines[1:5] == [
        {"task": "generate", "total": 3, "done": 1, "unit": "pairs"},
        {"task": "generate", "done": 3, "failed": 1},
        {"task": "generate", "text": "pair p1 failed: é"},
        {"task": "generate", "pid": 7, "reason": "SIGKILL"},
    ]
    assert (lines[5]["done"], lines[5]["seconds"] >= 0) == (3, True)
    assert "pair p1 failed: é" in shown.getvalue()
    assert "generate: 3/3 pairs, 1 failed, " in shown.getvalue()


def test_an_event_without_a_log_is_nothing() -> None:
    with NoProgress().task("generate", total=1) as task:
        note_event(task, "worker_died", pid=7)


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--log-json .*nowhere.*: No such file or directory"):
        open_progress(io.StringIO(), log=tmp_path / "nowhere" / "log.jsonl")


def test_a_full_disk_ends_the_log_and_not_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    progress = LoggedProgress(full, NoProgress())
    with progress.task("generate", total=1) as task:
        task.advance()
    assert capsys.readouterr().err == "warning: --log-json /dev/full: No space left on device; logging ends\n"
