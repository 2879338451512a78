"""Verbs that plugins bring, training through a plugin, and what the other verbs say of a plugin."""

from __future__ import annotations

import json
from pathlib import Path


def test_plugins_bring_verbs(cli) -> None:
    help_text = cli("--help").stdout
    assert "toy-hello" in help_text
    assert "Greets." in help_text
    done = cli("toy-hello", "--name", "you")
    assert (done.returncode, done.stdout) == (0, "hello you\n")
    assert "--name" in cli("toy-hello", "--help").stdout


def test_train_without_a_preset_uses_the_default_and_tells_of_the_others(cli, tmp_path: Path) -> None:
    done = cli("train", "toy-net")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["preset tiny: one step", "other presets: long (many steps)"]
    asked = json.loads((tmp_path / "train" / "toy-net-tiny" / "asked.json").read_text())
    assert asked["preset"] == "tiny"


def test_train_hands_everything_on(cli, tmp_path: Path) -> None:
    options = ("--set", "steps=5", "--set", "name=x", "--resume", "--max-steps", "7", "--seed", "3", "--device", "cuda")
    done = cli("train", "toy-net", "--preset", "long", *options, "--out", "here")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "here" / "asked.json").read_text()) == {
        "preset": "long",
        "overrides": {"steps": 5, "name": "x"},
        "resume": True,
        "max_steps": 7,
        "device": "cuda",
        "seed": 3,
    }


def test_train_plan_trains_nothing(cli, tmp_path: Path) -> None:
    done = cli("train", "toy-net", "--dry-run")
    assert json.loads(done.stdout)["preset"] == "tiny"
    assert not (tmp_path / "train").exists()


def test_show_tells_of_a_plugins_things(cli) -> None:
    suite = json.loads(cli("show", "suite", "toy", "--json").stdout)
    assert (suite["pairs"], suite["height"], suite["width"], suite["available"]) == (24, 16, 16, True)
    assert len(suite["manifest_sha256"]) == 64
    assert suite["plugin"] == {"name": "toy", "distribution": "bcd-bench-toy", "version": "1.0"}
    needy = json.loads(cli("show", "suite", "toy-data", "--json").stdout)
    assert (needy["available"], needy["fix"]) == (False, "--data toys=PATH")
    metric = json.loads(cli("show", "metric", "toy-match", "--json").stdout)
    assert [column["name"] for column in metric["columns"]] == ["toy-content", "toy-error"]
    assert "Share of outputs whose square has the content's colour." in cli("show", "metric", "toy-match").stdout
    trainable = json.loads(cli("show", "trainable", "toy-net", "--json").stdout)
    assert trainable["presets"] == {"tiny": "one step", "long": "many steps"}
