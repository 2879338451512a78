"""`bcd_bench.training`, by values computed by hand, and by the complete trainer that docs/training.md shows."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 (after the look for torch)

from bcd_bench.plugin.specs import TrainRequest  # noqa: E402
from bcd_bench.training import (  # noqa: E402
    CHECKPOINT,
    EMA,
    AcceleratedProcesses,
    Every,
    Limits,
    TrainingLog,
    TrainingLoop,
    check_finite,
    check_settings,
    checkpoints_to_resume,
    count_parameters,
    first_difference,
    leaving_process_group,
    read_checkpoint,
    resolve_precision,
    restoring,
    save_torch,
    seconds_per_step,
    writing_checkpoint,
    writing_into,
)
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "training.md"

Train = Callable[[TrainRequest], None]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names of the complete trainer in docs/training.md."""
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "toy_trainer"}
    exec(compile(code, PAGE.name, "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def train(page: dict[str, Any]) -> Train:
    trainer: Train = page["train"]
    return trainer


def request(out: Path, **changed: Any) -> TrainRequest:
    fields: dict[str, Any] = {
        "preset": "", "overrides": {"steps": 40}, "out": out, "resume": False, "max_steps": None, "max_minutes": None,
        "device": "cpu", "data": {}, "plan_only": False,
    }  # fmt: skip
    return TrainRequest(**{**fields, **changed})


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def tensors_of(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from tensors_of(inner)


# A whole trainer ------------------------------------------------------------------------------------------------------


def test_the_trainer_of_the_page_learns_and_writes_what_the_page_says(train: Train, tmp_path: Path) -> None:
    train(request(tmp_path / "run", overrides={"steps": 200}))
    lines = lines_of(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(10, 201, 10))
    assert set(lines[0]) == {"step", "loss", "gradient_norm"}
    assert lines[-1]["loss"] < 0.01 * lines[0]["loss"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"checkpoint.pt", "config.json", "log.jsonl", "model.safetensors"}


@pytest.mark.parametrize("stops", [1, 7, 10, 25])
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    page: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: int
) -> None:
    train, check = page["train"], page["check_finite"]
    train(request(tmp_path / "whole"))

    def stop_there(step: int, *given: Any, **named: Any) -> None:
        if step + 1 == stops:
            os.kill(os.getpid(), signal.SIGTERM)
        check(step, *given, **named)

    with monkeypatch.context() as patch:
        patch.setitem(page, "check_finite", stop_there)
        with pytest.raises(Interrupted, match=f"^stopped at step {stops} of 40; everything is saved$"):
            train(request(tmp_path / "parts"))
    train(request(tmp_path / "parts", resume=True))
    assert (tmp_path / "parts/log.jsonl").read_text() == (tmp_path / "whole/log.jsonl").read_text()
    states = [torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts")]
    pairs = list(zip(*(tensors_of(state) for state in states), strict=True))
    assert len(pairs) > 8  # weights, average, two moments and a step count of each weight
    assert all(torch.equal(first, second) for first, second in pairs)


def test_a_run_is_neither_overwritten_nor_made_up(train: Train, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint to resume") as caught:
        train(request(tmp_path, resume=True))
    assert caught.value.hint == "start without --resume"
    train(request(tmp_path, max_steps=5))
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UsageError, match="already contains a training run") as caught:
        train(request(tmp_path))
    assert caught.value.hint == "add --resume to continue it, or use a different --out"
    with pytest.raises(
        UsageError, match=r"checkpoint\.pt: was created with a different recipe: lr was 0\.05, is 0\.1$"
    ):
        train(request(tmp_path, resume=True, overrides={"steps": 40, "lr": 0.1}))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_loss_that_is_not_finite_changes_no_weight(
    page: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[nn.Linear] = []

    def spoilt(*sizes: int) -> nn.Linear:
        made.append(nn.Linear(*sizes))
        made[0].weight.data[0, 0] = float("nan")
        return made[0]

    monkeypatch.setitem(page, "nn", SimpleNamespace(Linear=spoilt, utils=nn.utils))
    with pytest.raises(BcdBenchError, match="step 0: the loss or its gradient is not finite") as caught:
        page["train"](request(tmp_path))
    assert "loss nan, gradient_norm nan); no weights were updated" in str(caught.value)
    assert caught.value.hint == "retrain with a lower learning rate: a different --out, and --set lr=0.025"
    torch.manual_seed(0)
    assert torch.equal(made[0].weight.detach()[0, 1:], nn.Linear(4, 1).weight.detach()[0, 1:])
    assert not (tmp_path / CHECKPOINT).exists()


def test_the_time_limit_ends_a_run_which_goes_on(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(request(tmp_path, max_minutes=1e-9))
    assert "--max-minutes 1e-09 is over at step 1 of 40; everything is saved; rerun the same command with --resume" in (
        capsys.readouterr().out
    )
    train(request(tmp_path, resume=True, max_steps=3))
    train(request(tmp_path, resume=True, max_steps=2))  # is behind it: nothing to do
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 3


# Limits ---------------------------------------------------------------------------------------------------------------


def test_limits_hold_over_stages() -> None:
    now = [100.0]
    limits = Limits(30, 2.0, clock=lambda: now[0])
    assert [limits.last_step(20, before) for before in (0, 20, 30, 40)] == [20, 10, 0, -10]
    assert not limits.time_is_over()
    now[0] += 119.9
    assert not limits.time_is_over()
    now[0] += 0.1
    assert limits.time_is_over()
    assert limits.reason == "--max-minutes 2 is over"
    free = Limits()
    assert (free.last_step(20, 1000), free.time_is_over()) == (20, False)


# Checkpoints ----------------------------------------------------------------------------------------------------------


class Calls:
    """A pickle that would run code."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["TRAP"],))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle", "list"])
def test_a_damaged_or_foreign_checkpoint_is_one_line(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trap = tmp_path / CHECKPOINT, tmp_path / "trap"
    monkeypatch.setenv("TRAP", str(trap))
    save_torch(path, {"description": {"what": "toy"}, "a": torch.ones(1000)})
    assert read_checkpoint(path, what="toy")["a"].sum() == 1000
    whole = path.read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "pickle": pickle.dumps(Calls())}
    if damage == "list":
        save_torch(path, [1, 2])
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(UsageError, match=r"checkpoint\.pt: (cannot be read|is not a checkpoint of 'toy')") as caught:
        read_checkpoint(path, what="toy")
    assert "\n" not in str(caught.value)
    assert caught.value.hint is not None
    assert not trap.exists()


def test_a_checkpoint_of_another_trainer_or_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_torch(path, {"description": {"what": "other"}})
    with pytest.raises(UsageError, match="is not a checkpoint of 'toy', but of 'other'"):
        read_checkpoint(path, what="toy")
    with (
        pytest.raises(UsageError, match=r"is incompatible with this version .* \(KeyError: 'model'\)"),
        restoring(path),
    ):
        read_checkpoint(path, what="other")["model"]
    with pytest.raises(UsageError, match="size mismatch for weight"), restoring(path):
        nn.Linear(2, 1).load_state_dict(nn.Linear(3, 1).state_dict())


def test_the_first_setting_that_differs_is_named(tmp_path: Path) -> None:
    old = {"preset": {"model": {"width": 4}, "train": {"lr": 0.1, "betas": [0.9, 0.99]}}, "precision": "fp32"}
    same = {"preset": {"train": {"betas": (0.9, 0.99), "lr": 0.1}, "model": {"width": 4}}, "precision": "bf16"}
    check_settings(tmp_path, old, same, parts=("preset",))  # order and tuples do not count
    with pytest.raises(UsageError, match="was created with a different precision: 'fp32' is not 'bf16'"):
        check_settings(tmp_path, old, same, parts=("preset", "precision"))
    assert first_difference(old, {**old, "preset": {"model": {"width": 4}, "train": {"lr": 0.2}}}) == (
        "preset.train.betas was [0.9, 0.99], is None"
    )
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == "b was None, is 2"


def test_a_run_of_several_stages_and_prepared_work_are_found(tmp_path: Path) -> None:
    checkpoints = [tmp_path / stage / CHECKPOINT for stage in ("one", "two")]
    assert checkpoints_to_resume(tmp_path, resume=False, checkpoints=checkpoints) == []
    (tmp_path / "one").mkdir()
    checkpoints[0].touch()
    assert checkpoints_to_resume(tmp_path, resume=True, checkpoints=checkpoints) == checkpoints[:1]
    with pytest.raises(UsageError, match=r"one: already contains a training run"):
        checkpoints_to_resume(tmp_path, resume=False, checkpoints=checkpoints)
    prepared = tmp_path / "config.json"
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        checkpoints_to_resume(tmp_path, resume=True, prepared=prepared)
    prepared.touch()
    assert checkpoints_to_resume(tmp_path, resume=True, prepared=prepared) == []
    assert checkpoints_to_resume(tmp_path, resume=False, prepared=prepared) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="cannot be written") as caught, writing_into(out):
            pass
        assert caught.value.hint == "use a different --out"


# The moving average ---------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=torch.float64))
        self.register_buffer("mean", torch.tensor([value], dtype=torch.float64))
        self.register_buffer("count", torch.tensor(int(value)))


def moved(model: Toy, value: float) -> Toy:
    model.load_state_dict(Toy(value).state_dict())
    return model


def test_the_average_by_hand() -> None:
    model = Toy(0)
    ema = EMA(model, decay=0.25)
    assert [ema.decay_at(n) for n in range(4)] == [0.1, 2 / 11, 0.25, 0.25]
    ema.update(moved(model, 10), 0)  # 0.1 * 0 + 0.9 * 10
    assert ema.module.weight.item() == pytest.approx(9)
    ema.update(moved(model, 20), 1)  # 2/11 * 9 + 9/11 * 20
    assert ema.module.weight.item() == pytest.approx(18)
    ema.update(moved(model, 2), 2)  # 0.25 * 18 + 0.75 * 2
    assert ema.module.weight.item() == pytest.approx(6)
    assert (ema.module.mean.item(), ema.module.count.item()) == (2, 2)
    ema.update(moved(model, 16), 0)  # begun again: 0.1 * 6 + 0.9 * 16
    assert ema.module.weight.item() == pytest.approx(15)
    assert not ema.module.training
    assert not ema.module.weight.requires_grad
    ema.copy_from(moved(model, 3))
    assert ema.module.weight.item() == 3


def test_ramps_and_buffers_by_hand() -> None:
    model = Toy(0)
    ema = EMA(model, 0.9, ramp=(0, 10), buffers="average")
    ema.update(moved(model, 7), 0)  # a copy
    assert (ema.module.weight.item(), ema.module.mean.item(), ema.module.count.item()) == (7, 7, 7)
    ema.update(moved(model, 18), 1)  # 1/11 * 7 + 10/11 * 18
    assert ema.module.weight.item() == pytest.approx(17)
    assert ema.module.mean.item() == pytest.approx(17)
    assert ema.module.count.item() == 18
    assert EMA(model, 0.9, ramp=(1, 1)).decay_at(0) == 0.9
    assert EMA(model, 0.999).decay_at(8990) == 0.999 > EMA(model, 0.999).decay_at(8980)
    for decay, ramp in ((1.0, (1, 10)), (-0.1, (1, 10)), (0.9, (2, 1)), (0.9, (0, 0)), (0.9, (-1, 1))):
        with pytest.raises(ValueError, match=r"^(decay|ramp)"):
            EMA(model, decay, ramp=ramp)


# The loop -------------------------------------------------------------------------------------------------------------


def test_the_order_of_what_a_loop_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Any] = []

    def note(name: str, values: dict[str, float] | None = None) -> Callable[[int], dict[str, float] | None]:
        def called(done: int) -> dict[str, float] | None:
            events.append((name, done, len(lines_of(tmp_path))))
            return values

        return called

    log = TrainingLog(tmp_path, digits=2)
    log.begin()
    loop = TrainingLoop("toy", 7, log, log_every=4, save_every=3)
    finished = loop.run(
        Limits(),
        lambda step: {"loss": float(step)},
        lambda: events.append(("save", loop.step, len(lines_of(tmp_path)))),
        validate=Every(3, note("validate", {"error": 1 / 3})),
        draw=Every(5, note("draw")),
        derive=lambda line: {"double": 2 * line["loss"]},
        describe=lambda line: f"loss is {line['loss']}",
    )
    assert finished
    assert events == [
        ("validate", 3, 0), ("save", 3, 1), ("draw", 5, 2), ("validate", 6, 2), ("save", 6, 3), ("validate", 7, 3),
        ("draw", 7, 4), ("save", 7, 4),
    ]  # fmt: skip
    assert lines_of(tmp_path) == [
        {"step": 3, "loss": 1.0, "error": 0.33, "double": 2.0},
        {"step": 4, "loss": 3.0, "double": 6.0},
        {"step": 6, "loss": 4.5, "error": 0.33, "double": 9.0},
        {"step": 7, "loss": 6.0, "error": 0.33, "double": 12.0},
    ]
    assert "step 4: loss is 3.0" in capsys.readouterr().err


def test_the_last_step_has_a_line_and_one_checkpoint(tmp_path: Path) -> None:
    log, saved = TrainingLog(tmp_path), []
    log.begin()
    loop = TrainingLoop("toy", 6, log, log_every=4, save_every=3)
    loop.run(Limits(), lambda step: {"loss": float(step)}, lambda: saved.append(loop.step))
    assert lines_of(tmp_path) == [{"step": 4, "loss": 1.5}, {"step": 6, "loss": 4.5}]
    assert saved == [3, 6]


def test_stages_share_their_limits(tmp_path: Path) -> None:
    limits, ends = Limits(max_steps=7), []
    for number in range(3):
        if limits.last_step(4, 4 * number) <= 0:
            break
        log = TrainingLog(tmp_path, write=False)
        loop = TrainingLoop(f"stage {number}", 4, log, log_every=2, save_every=2, steps_before=4 * number)
        ends.append((loop.run(limits, lambda step: {"loss": 1.0}, lambda: None), loop.step))
    assert ends == [(True, 4), (False, 3)]


def test_work_before_an_update_can_be_broken_off(tmp_path: Path) -> None:
    log, saved = TrainingLog(tmp_path), []
    log.begin()
    loop = TrainingLoop("toy", 9, log, log_every=1, save_every=99)

    def train_step(step: int) -> dict[str, float]:
        with loop.interruptible():
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
                pytest.fail("the work went on")
        return {"loss": 0.0}

    with pytest.raises(Interrupted, match="stopped at step 2 of 9"):
        loop.run(Limits(), train_step, lambda: saved.append(loop.step))
    assert saved == [2]
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2]
    with loop.interruptible():  # outside a run it is nothing
        pass


class TwoProcesses:
    """This process, and another one that wants to stop after `stops` looks."""

    def __init__(self, *, is_main: bool, stops: int) -> None:
        self.is_main, self.looks, self.stops, self.waited = is_main, 0, stops, 0

    def any(self, flag: bool) -> bool:
        self.looks += 1
        return flag or self.looks >= self.stops

    def wait(self) -> None:
        self.waited += 1


@pytest.mark.parametrize("is_main", [True, False])
def test_all_processes_stop_after_the_same_step(
    tmp_path: Path, is_main: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = TwoProcesses(is_main=is_main, stops=3)
    log = TrainingLog(tmp_path, write=is_main)
    log.begin()
    loop = TrainingLoop("toy", 9, log, log_every=2, save_every=99, processes=processes)
    with pytest.raises(Interrupted, match="stopped at step 3 of 9"):
        loop.run(Limits(), lambda step: {"loss": 0.0}, lambda: None)
    assert processes.waited == 1
    assert ("step 2: loss 0" in capsys.readouterr().err) == (tmp_path / "log.jsonl").exists() == is_main


TOGETHER = """
import os, sys
from accelerate import Accelerator
from bcd_bench.types.errors import Interrupted
from bcd_bench.training import AcceleratedProcesses, Limits, TrainingLog, TrainingLoop, leaving_process_group
from pathlib import Path

accelerator = Accelerator(cpu=True)
processes = AcceleratedProcesses(accelerator)
log = TrainingLog(Path(sys.argv[1]), write=processes.is_main)
log.begin()
loop = TrainingLoop("toy", 9, log, log_every=2, save_every=99, processes=processes)
me = accelerator.process_index

def train_step(step):
    if me == 1 and step == 3:
        import signal
        os.kill(os.getpid(), signal.SIGTERM)
    return {"loss": float(step)}

try:
    with leaving_process_group():
        loop.run(Limits(), train_step, lambda: None)
except Interrupted as stop:
    Path(sys.argv[1], f"end-{me}").write_text(str(stop))
"""


@pytest.mark.slow
def test_two_processes_of_accelerate_stop_together(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    ends = [(tmp_path / f"end-{number}").read_text() for number in (0, 1)]
    assert ends == ["stopped at step 4 of 9; everything is saved"] * 2
    assert [line["step"] for line in lines_of(tmp_path)] == [2, 4]


@pytest.mark.parametrize(("error", "left"), [(None, 1), (Interrupted("stopped"), 1), (UsageError("a full disk"), 0)])
def test_a_group_of_processes_is_left_if_all_have_ended(
    error: Exception | None, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: calls.append(1))
    with pytest.raises(type(error)) if error else nullcontext(), leaving_process_group():
        if error:
            raise error
    assert len(calls) == left


def test_one_process_of_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate")
    processes = AcceleratedProcesses(accelerate.Accelerator(cpu=True))
    assert (processes.is_main, processes.any(True), processes.any(False)) == (True, True, False)
    processes.wait()


# The small parts ------------------------------------------------------------------------------------------------------


def test_every_value_that_is_not_finite_is_named() -> None:
    check_finite(3, {"loss": 1.0, "gradient_norm": 1e30}, rate=0.1, setting="train.lr")
    with pytest.raises(BcdBenchError, match=r"^step 3: .* \(gradient_norm inf, bits nan\); no weights were updated$"):
        check_finite(
            3, {"loss": 1.0, "gradient_norm": float("inf"), "bits": float("nan")}, rate=0.1, setting="train.lr"
        )


def test_auto_is_what_the_device_is_fast_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcd_bench.training.precision.fast_bf16", lambda device: device == "cuda")
    assert [resolve_precision("auto", device) for device in ("cpu", "cuda")] == ["fp32", "bf16"]
    assert [resolve_precision(name, "cuda") for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    with pytest.raises(ValueError, match="must be one of auto, fp32, bf16"):
        resolve_precision("fp8", "cpu")


def test_figures_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    steps: list[int] = []
    assert seconds_per_step(steps.append) == 2.0
    assert steps == [0, 1, 2]
    assert count_parameters(nn.Linear(4, 3)) == 15


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the checkpoint of step 4 cannot be written"), writing_checkpoint(tmp_path, 4):
        save_torch(tmp_path / "missing" / CHECKPOINT, {})


def test_importing_the_toolkit_imports_neither_torch_nor_accelerate() -> None:
    code = "import sys, bcd_bench.training; print({'torch', 'accelerate', 'safetensors'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
