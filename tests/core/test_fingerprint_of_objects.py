"""Two objects have one fingerprint if, and only if, their source and their state are the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench.plugin.fingerprint import fingerprint

FACTOR = 2


def helper(x: int) -> int:
    return FACTOR * x


@dataclass
class Thing:
    a: Any = 1
    b: list[Any] = field(default_factory=list)

    def work(self) -> int:
        return helper(1)


def test_equal_objects_have_one_fingerprint() -> None:
    assert fingerprint(Thing()) == fingerprint(Thing())
    assert len(str(fingerprint(Thing()))) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ("a", "b"),
        (1, 1.5),
        (True, "True"),
        (np.arange(3), np.arange(3) + 1),
        (np.zeros(3, np.int32), np.zeros(3, np.int64)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        ({"x": 1}, {"x": 2}),
        ({1, 2}, {1, 3}),
        (Path("a"), Path("b")),
        (b"a", b"b"),
        ([1, [2]], [1, [3]]),
        (float("nan"), float("inf")),
        (Thing(1), Thing(2)),
        (helper, fingerprint),
    ],
)
def test_state_counts(one: object, other: object) -> None:
    assert fingerprint(Thing(one)) == fingerprint(Thing(one))
    assert fingerprint(Thing(one)) != fingerprint(Thing(other))


def test_the_functions_and_constants_that_code_uses_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(Thing())
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3)
    assert fingerprint(Thing()) != before
    monkeypatch.undo()
    assert fingerprint(Thing()) == before


def test_closures_and_defaults_count() -> None:
    def make(n: int) -> Any:
        def inner(x: int = n) -> int:
            return x + n

        return inner

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))


def test_a_loop_in_the_state_ends() -> None:
    thing = Thing()
    thing.b.append(thing)
    assert fingerprint(thing) is not None


@pytest.mark.parametrize("state", [iter([]), (x for x in ()), object(), np.array([object()], dtype=object)])
def test_what_cannot_be_hashed_has_none(state: object) -> None:
    assert fingerprint(Thing(state)) is None


def test_tensors_and_modules_count_by_their_values() -> None:
    torch = pytest.importorskip("torch")
    assert fingerprint(Thing(torch.zeros(3))) == fingerprint(Thing(torch.zeros(3)))
    assert fingerprint(Thing(torch.zeros(3))) != fingerprint(Thing(torch.ones(3)))
    assert fingerprint(Thing(torch.zeros(3, dtype=torch.bfloat16))) != fingerprint(Thing(torch.zeros(3)))
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert fingerprint(Thing(layer)) == fingerprint(Thing(layer))
    assert fingerprint(Thing(layer)) != fingerprint(Thing(other))
    other.load_state_dict(layer.state_dict())
    assert fingerprint(Thing(layer)) == fingerprint(Thing(other))


def test_attributes_and_buffers_of_torch_modules_count() -> None:
    torch = pytest.importorskip("torch")

    class Scaled(torch.nn.Module):
        def __init__(self, scale: float, buffer: float = 0.0) -> None:
            super().__init__()
            self.scale = scale
            self.register_buffer("unsaved", torch.tensor(buffer), persistent=False)

    assert fingerprint(Scaled(1)) == fingerprint(Scaled(1)) is not None
    assert fingerprint(Scaled(1)) != fingerprint(Scaled(2))
    assert fingerprint(Scaled(1)) != fingerprint(Scaled(1, 3.0))
    assert fingerprint(torch.nn.Sequential(Scaled(1))) != fingerprint(torch.nn.Sequential(Scaled(2)))


def test_modules_of_the_user_count_by_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_helper.py").write_text("X = 1\n")
    import own_helper

    before = fingerprint(Thing(own_helper))
    assert before == fingerprint(Thing(own_helper)) is not None
    (tmp_path / "own_helper.py").write_text("X = 2\n")
    assert fingerprint(Thing(own_helper)) != before


def test_source_counts_across_processes_and_code_from_stdin_has_none(tmp_path: Path) -> None:
    code = """
        class Mine:
            def transfer(self, pairs, *, seed):
                return [{}]
        from bcd_bench.plugin.fingerprint import fingerprint
        print(fingerprint(Mine()))
    """

    def of(body: str, *, stdin: bool = False) -> str:
        text = textwrap.dedent(code).replace("{}", body)
        (tmp_path / "script.py").write_text(text)
        command = [sys.executable, "-"] if stdin else [sys.executable, str(tmp_path / "script.py")]
        done = subprocess.run(command, input=text if stdin else None, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert of("1") == of("1")
    assert of("1") != of("2")
    assert of("1", stdin=True) == "None"
