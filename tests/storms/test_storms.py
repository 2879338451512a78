"""A few storms of each kind; `python -m tests.storms` runs all of them, hundreds of times."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.storms import disks, kills, plugins, processes
from tests.storms.fuzz import Trial, changed
from tests.storms.kit import Damage, Ended, Lab, Storm, compare, judged
from tests.storms.readers import READERS

NAMED: dict[str, Storm] = {
    storm.name: storm for storm in (*processes.STORMS, *kills.STORMS, *disks.STORMS, *plugins.STORMS)
}
FEW = (
    "kill -9 of run",
    "kill -9 of merge",
    "kill -9 of the study's server",
    "kill -9 of assets fetch",
    "disk full",
    "a method that misbehaves: interrupt",
)
NEED_TORCH = ("bitstream",)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_storms_lose_nothing(lab: Lab, tmp_path: Path, name: str) -> None:
    storm = NAMED[name]
    if reason := storm.needs():
        pytest.skip(reason)
    damage = storm.strike(lab, tmp_path, random.Random(name))
    assert damage.none, damage.lines


def test_the_comparison_sees_every_kind_of_damage(lab: Lab, tmp_path: Path) -> None:
    reference = lab.reference()
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    assert compare(run, reference).none
    lines = (run / "pairs.jsonl").read_text().splitlines(keepends=True)
    (run / "pairs.jsonl").write_text("".join([*lines[1:], lines[-1]]))
    output = next((run / "outputs").iterdir())
    output.write_bytes(output.read_bytes()[:-1])
    (run / "outputs" / "left-over.mkv").touch()
    (run / "record.json").unlink()
    damage = compare(run, reference)
    assert (damage.lost, damage.doubled, damage.different) == (1, 1, 3)
    assert judged(Ended(0, "", "")).none
    assert judged(Ended(2, "", "error: disk full\n"), codes=(0, 2)).none
    for ended in (Ended(-9, "", ""), Ended(2, "", "oops"), Ended(0, "", "Traceback (most recent call last)")):
        assert judged(ended, codes=(0, 2)).unclear == 1
    assert judged(Ended(0, "", "", hung=True)).hangs == 1
    total = Damage()
    total.add(damage)
    assert len(total.lines) == len(damage.lines) == 5


@pytest.mark.parametrize("name", sorted(set(READERS) - set(NEED_TORCH)))
def test_hostile_files_are_refused_in_one_line(lab: Lab, tmp_path: Path, name: str) -> None:
    trial, rng = Trial(name, tmp_path), random.Random(name)
    seed = READERS[name].seed(lab.reference())
    trial.path.write_bytes(seed)
    trial.reader.read(trial.path)  # the valid file is read
    for _ in range(100):
        trial(changed(seed, rng))
    trial.save()
    assert json.loads((tmp_path / "found.json").read_text()) == {"tries": 100, "found": []}


def test_damage_by_a_file_is_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("cached features", tmp_path)
    seed = READERS["cached features"].seed(tmp_path)
    entry = seed.index(b"PK\x01\x02")  # of the first member, in the directory at the end
    other = seed[: entry + 10] + b"\x63\x00" + seed[entry + 12 :]
    trial(other)  # an unknown compression method
    assert trial.found == []
    monkeypatch.setattr(trial, "allowed", ())
    trial(other)
    assert trial.found[0]["line"].startswith("ValueError: ")
    assert (tmp_path / trial.found[0]["file"]).read_bytes() == other
