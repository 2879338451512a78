"""log.jsonl by name, its window between two lines, and the trackers that get its lines."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from bcd_bench.training import Limits, TrainingLog, TrainingLoop, open_tracker
from bcd_bench.types.errors import MissingDependencyError


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_means_by_hand(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, digits=3)
    log.begin()
    for step, (loss, bits) in enumerate([(1.0, 5.0), (2.0, 5.0), (4.0, 6.0)], 1):
        log.append(step, {"loss": loss, "bits": bits})
    assert log.take_means() == {"loss": 2.333, "bits": 5.333}
    with pytest.raises(ValueError, match="no step has been added"):
        log.take_means()
    log.append(4, {"bits": 1.0})  # other names are fine in a new window
    with pytest.raises(ValueError, match=r"step 5 has the values \('loss',\), the steps before \('bits',\)"):
        log.append(5, {"loss": 1.0})
    log.write(4, {"bits": 1.0})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 4, "bits": 1.0}\n'


def test_a_window_survives_a_checkpoint_and_later_lines_do_not(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    log.begin()
    for step in (2, 4, 6):
        log.write(step, {"loss": step / 2})
    log.append(5, {"loss": 8.0, "bits": 2.0})
    state = json.loads(json.dumps(log.state_dict()))
    resumed = TrainingLog(tmp_path)
    resumed.resume(state, 5)
    assert [line["step"] for line in lines_of(tmp_path)] == [2, 4]
    resumed.append(6, {"loss": 16.0, "bits": 3.0})
    assert resumed.take_means() == {"loss": 12.0, "bits": 2.5}


def test_a_log_of_last_values_and_one_that_does_not_write(tmp_path: Path) -> None:
    last = TrainingLog(tmp_path, mean=False)
    last.append(1, {"loss": 8.0})
    last.append(2, {"loss": 3.0})
    assert last.state_dict() == {"names": ["loss"], "rows": [[3.0]]}
    assert last.take_means() == {"loss": 3.0}
    silent = TrainingLog(tmp_path / "none", write=False, tracker="tensorboard")
    silent.begin()
    silent.append(1, {"loss": 8.0})
    silent.write(1, silent.take_means())
    silent.resume(silent.state_dict(), 1)
    assert not (tmp_path / "none").exists()


class FakeTracker:
    made: list[FakeTracker]

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given, self.named, self.calls = given, named, []
        FakeTracker.made.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


def installed(monkeypatch: pytest.MonkeyPatch, **packages: bool) -> None:
    real = importlib.util.find_spec

    def find(name: str) -> object:
        return (object() if packages[name] else None) if name in packages else real(name)

    monkeypatch.setattr("importlib.util.find_spec", find)


def test_trackers_are_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_tracker("none", tmp_path) is None
    installed(monkeypatch, trackio=False)
    with pytest.raises(MissingDependencyError, match="--set tracker=trackio requires the package 'trackio'") as caught:
        open_tracker("trackio", tmp_path, option="tracker")
    assert caught.value.hint == "pip install trackio"


def test_a_tracker_gets_the_lines_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("accelerate.tracking")
    FakeTracker.made = []
    installed(monkeypatch, trackio=True, tensorboard=True)
    monkeypatch.setattr(tracking, "TensorBoardTracker", FakeTracker)
    monkeypatch.setattr(tracking, "TrackioTracker", FakeTracker)
    log = TrainingLog(tmp_path, tracker="tensorboard")
    log.begin()
    loop = TrainingLoop("toy", 4, log, log_every=2, save_every=9)
    loop.run(Limits(max_steps=2), lambda step: {"loss": float(step)}, lambda: None)
    again = TrainingLog(tmp_path, tracker="tensorboard")
    again.resume(log.state_dict(), 2)
    TrainingLog(tmp_path, tracker="trackio").begin()
    first, second, third = FakeTracker.made
    assert first.calls == ["start", (2, {"loss": 0.5}), "finish"]
    assert first.named == {"purge_step": None}
    assert (second.given, second.named) == (("", tmp_path / "tensorboard"), {"purge_step": 3})
    assert (third.given, third.named["name"]) == (("bcd-bench",), str(tmp_path))


def test_a_tracker_that_fails_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = pytest.importorskip("accelerate.tracking")

    class Broken(FakeTracker):
        def log(self, values: dict[str, float], step: int) -> None:
            raise ConnectionError("the server is away")

    installed(monkeypatch, trackio=True)
    monkeypatch.setattr(tracking, "TrackioTracker", Broken)
    FakeTracker.made = []
    log = TrainingLog(tmp_path, tracker="trackio")
    log.begin()
    for step in (1, 2):
        log.write(step, {"loss": 1.0})
    log.close()
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2]
    assert capsys.readouterr().err.count("warning: trackio: ConnectionError: the server is away") == 1
