"""Single pairs, several suites, run files, and the time that `--dry-run` estimates."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import toy_plugin

from bcd_bench import Column, MetricSpec, PairMetric
from bcd_bench.cli.app import main
from bcd_bench.io.atomic import write_json_atomic
from bcd_bench.plugin.registry import Registry
from bcd_bench.run import pipeline
from bcd_bench.run.environment import cpu_name
from bcd_bench.run.estimate import estimate
from bcd_bench.run.folder import find_runs
from bcd_bench.run.plan import make_plan
from bcd_bench.run.request import read_run_file
from bcd_bench.types.errors import UsageError


class Grey(PairMetric):
    columns = (Column("grey", "levels", None, "Mean of all values of the output."),)

    def score(self, items):
        return [{"grey": float(item.output.frames.mean())} for item in items]


def suite_with_data(data):
    return replace(toy_plugin.make_suite(data), name="toy-data")


@pytest.fixture(autouse=True)
def registry(bcd_bench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry.from_modules([toy_plugin])
    found.add("metrics", MetricSpec("grey", "1", "Mean of all values.", "test_run_control:Grey"), found.plugins[-1])
    found.suites["toy-data"] = replace(found.suites["toy-data"], factory="test_run_control:suite_with_data")
    monkeypatch.setattr("bcd_bench.plugin.registry.load_registry", lambda: found)
    monkeypatch.chdir(tmp_path)
    toy_plugin.Noise.calls.clear()
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_single_pairs_give_the_outputs_of_the_whole_run(capsys, registry: Registry, tmp_path: Path) -> None:
    whole = pipeline.run(registry, pipeline.prepare(registry, "copy-motion", "toy"), out=tmp_path / "whole")
    code, out, err = run(capsys, "--method", "copy-motion", "--suite", "toy", "--pair", "p07,p02", "--pair", "p04")
    assert code == 0, err
    assert "partial: 3 of 10 pairs" in out
    [part] = find_runs([tmp_path / "runs"])
    assert [pair.id for pair in part.plan.pairs] == ["p02", "p04", "p07"]
    assert (part.plan.selected, part.plan.partial, part.plan.limit) == (True, True, None)
    hashes = {name: result.output_sha256 for name, result in part.pairs().items()}
    assert hashes == {name: whole.pairs()[name].output_sha256 for name in ("p02", "p04", "p07")}


def test_a_selection_is_scored_on_its_own_pairs(registry: Registry, tmp_path: Path) -> None:
    def rows(**options: object) -> dict[str, object]:
        prepared = pipeline.prepare(registry, "copy-motion", "toy", metrics=["grey"], **options)
        folder = pipeline.run(registry, prepared, out=tmp_path)
        lines = (folder.scores_dir / "grey.jsonl").read_text().splitlines()[1:]
        return {row["pair"]: row["row"]["grey"] for row in map(json.loads, lines)}

    whole, part = rows(), rows(pairs=["p08", "p03"])
    assert set(part) == {"p03", "p08"}
    assert all(part[name] == whole[name] for name in part)


def test_runs_of_other_selections_are_other_runs(registry: Registry) -> None:
    suite = toy_plugin.make_suite({})
    plans = [
        make_plan(registry, "noise", suite, **options)  # type: ignore[arg-type]
        for options in ({}, {"pairs": ["p01"]}, {"pairs": ["p02"]}, {"pairs": ["p02", "p01"]}, {"limit": 1})
    ]
    assert len({plan.run_id for plan in plans}) == 5
    assert "pairs" not in plans[0].identity
    again = make_plan(registry, "noise", suite, pairs=["p01,p02"])
    assert again.run_id == plans[3].run_id
    plan = again.model_copy(update={"pairs": plans[1].pairs[:1]})
    with pytest.raises(UsageError, match="pair 0 of suite 'toy' is missing, not 'p01'"):
        plan.suite_pairs(replace(suite, pairs=suite.pairs[2:]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pair", "p99"), "suite 'toy' has no pair 'p99'; it has 10, such as p09"),
        (("--pair", "p01", "--limit", "2"), "pairs are chosen by --limit or by --pair, but not by both"),
        (("--pair", ","), "--pair needs at least one id"),
        (("--suite", ","), "--suite"),
    ],
)
def test_bad_selections_are_one_line(capsys, arguments: tuple[str, ...], message: str) -> None:
    suite = () if "--suite" in arguments else ("--suite", "toy")
    code, _, err = run(capsys, "--method", "noise", *suite, *arguments)
    assert code == 2
    assert err.startswith(f"error: {message}")


def test_several_suites_in_one_command(capsys, tmp_path: Path) -> None:
    code, out, err = run(capsys, "--method", "copy-motion,oracle", "--suite", "toy,toy-open", "--limit", 3)
    assert code == 1  # toy-open has no targets
    assert "warning: oracle: 3 of 3 pairs failed" in err
    ran = {(folder.plan.suite.name, folder.plan.method.name) for folder in find_runs([tmp_path / "runs"])}
    assert ran == {(suite, name) for suite in ("toy", "toy-open") for name in ("copy-motion", "oracle")}
    assert out.count("run folder: ") == 4
    assert "oracle on toy-open" in err


def test_unknown_suites_are_told_before_anything_runs(capsys, tmp_path: Path) -> None:
    code, _, err = run(capsys, "--method", "noise", "--suite", "toy,tyo")
    assert (code, err.splitlines()[0]) == (2, "error: unknown suite 'tyo'; did you mean toy?")
    assert not (tmp_path / "runs").exists()


def test_data_goes_to_the_suites_that_use_it(capsys, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    code, _, err = run(capsys, "--method", "copy-motion", "--suite", "toy,toy-data", "--data", "toys=d", "--limit", 2)
    assert code == 0, err
    assert {folder.plan.suite.data.get("toys") for folder in find_runs([tmp_path / "runs"])} == {
        None,
        str(tmp_path / "d"),
    }
    code, _, err = run(capsys, "--method", "copy-motion", "--suite", "toy,toy-open", "--data", "toys=d")
    assert (code, err.splitlines()[0]) == (2, "error: no suite of toy, toy-open uses data 'toys'")


FILE = """
[defaults]
limit = 2
set = { steps = 5 }

[[run]]
methods = ["noise", "copy-motion"]
suites = ["toy", "toy-open"]

[[run]]
methods = ["noise"]
suites = ["toy-data"]
pairs = ["p03"]
seed = 7
[run.set]
"noise.steps" = 9
[run.data]
toys = "here"
"""


def test_a_run_file_lists_methods_suites_and_settings(capsys, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "here").mkdir(parents=True)
    (folder / "runs.toml").write_text(FILE.replace('pairs = ["p03"]', "limit = 1"))
    code, out, err = run(capsys, "--file", "files/runs.toml", "--out", "all")
    assert code == 0, err
    ran = {
        (run.plan.suite.name, run.plan.method.name): (len(run.plan.pairs), run.plan.seed, run.plan.method.config)
        for run in find_runs([tmp_path / "all"])
    }
    assert ran == {
        ("toy", "noise"): (2, 0, {"steps": 5}),
        ("toy", "copy-motion"): (2, 0, {}),
        ("toy-open", "noise"): (2, 0, {"steps": 5}),
        ("toy-open", "copy-motion"): (2, 0, {}),
        ("toy-data", "noise"): (1, 7, {"steps": 9}),
    }
    assert out.count("run folder: ") == 5
    calls = len(toy_plugin.Noise.calls)
    assert run(capsys, "--file", "files/runs.toml", "--out", "all")[0] == 0
    assert len(toy_plugin.Noise.calls) == calls  # everything is finished


def test_settings_of_a_method_may_be_a_table(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        '[[run]]\nmethods = ["noise"]\nsuites = ["toy"]\nset = { a = 1, noise.steps = 2, other = { x = 1 } }\n'
    )
    [request] = read_run_file(tmp_path / "r.toml")
    assert request.settings == {"a": 1, "noise.steps": 2, "other": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[run]\n", "r.toml is not a TOML file: "),
        ("", "r.toml has no runs; write each as [[run]] with methods and suites"),
        ("[runs]\n", "r.toml: unknown table 'runs'; a run file has [defaults] and [[run]]"),
        ("[run]\nmethods = ['noise']\n", "r.toml has no runs"),
        ("[[run]]\nmethods = ['noise']\n", "r.toml: run 1: suites: Field required"),
        ("[[run]]\nmethods = 'noise'\nsuites = ['toy']\n", "r.toml: run 1: methods: Input should be a valid list"),
        ("[[run]]\nmethod = ['noise']\nmethods = ['noise']\nsuites = ['toy']\n", "r.toml: run 1: method: no such"),
        (
            "[[run]]\nmethods = ['noise']\nsuites = ['toy']\nlimit = 0\n",
            "r.toml: run 1: limit: Input should be greater",
        ),
        ("[[run]]\nmethods = ['noise']\nsuites = ['tyo']\n", "unknown suite 'tyo'"),
        (
            "[[run]]\nmethods = ['noise']\nsuites = ['toy-data']\ndata = { toys = 'gone' }\n",
            "data 'toys': gone does not",
        ),
    ],
)
def test_a_wrong_run_file_is_one_line(capsys, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    code, out, err = run(capsys, "--file", "r.toml")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}"), err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--file", "absent.toml"), "cannot read absent.toml: No such file or directory"),
        (("--file", "r.toml", "--seed", "0"), "--seed and --file exclude each other"),
        (("--file", "r.toml", "--suite", "toy"), "--suite and --file exclude each other"),
        (("--method", "noise"), "run needs --suite"),
        ((), "run needs --method"),
    ],
)
def test_what_is_run_comes_from_the_file_or_from_the_options(capsys, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith(f"error: {message}")


def times(out: str) -> list[str]:
    return re.findall(r"^  time      (.*)$", out, re.MULTILINE)


def test_without_an_earlier_run_one_pair_is_timed(capsys, tmp_path: Path) -> None:
    code, out, err = run(capsys, "--method", "noise,unloadable", "--suite", "toy", "--dry-run")
    assert code == 0, err
    timed, failed = times(out)
    assert re.fullmatch(r"about 0s \(one pair was timed; without scoring, and batches can be faster\)", timed)
    assert failed.startswith(
        "unknown (method 'unloadable' cannot be loaded: ValueError: no such device (toy_plugin.py:"
    )
    assert "2 runs: about 0s, and 1 run of unknown time" in out
    assert toy_plugin.Noise.calls == [["p00"], ["p01"]]  # the second without what the first had to load
    assert not (tmp_path / "runs").exists()


def test_an_earlier_run_gives_the_time(registry: Registry, tmp_path: Path) -> None:
    earlier = pipeline.run(registry, pipeline.prepare(registry, "noise", "toy", limit=4), out=tmp_path)
    earlier.rewrite_pairs({name: replace(result, seconds=30.0) for name, result in earlier.pairs().items()})
    calls = len(toy_plugin.Noise.calls)
    prepared = pipeline.prepare(registry, "noise", "toy")
    found = estimate(registry, prepared, tmp_path)
    assert found.seconds == pytest.approx(300)
    assert found.basis == "from 4 pairs of an earlier run, generation"
    assert len(toy_plugin.Noise.calls) == calls
    for changes in ({"cpu": "another"}, {"cpu_count": 1 + (os.cpu_count() or 0)}):
        kept = earlier.env()
        write_json_atomic(earlier.env_path, {**kept, **changes})
        assert "one pair was timed" in estimate(registry, prepared, tmp_path).basis
        write_json_atomic(earlier.env_path, kept)
    assert earlier.env()["cpu"] == cpu_name()
    other = pipeline.prepare(registry, "noise", "toy", config={"steps": 4})
    assert "one pair was timed" in estimate(registry, other, tmp_path).basis


def test_scoring_is_part_of_the_time_if_it_was_timed(registry: Registry, tmp_path: Path) -> None:
    earlier = pipeline.run(
        registry, pipeline.prepare(registry, "noise", "toy", limit=4, metrics=["grey"]), out=tmp_path
    )
    earlier.rewrite_pairs({name: replace(result, seconds=30.0) for name, result in earlier.pairs().items()})
    write_json_atomic(earlier.path / "timing.json", {"score_seconds": {"grey": 8.0}})
    found = estimate(registry, pipeline.prepare(registry, "noise", "toy", metrics=["grey"]), tmp_path)
    assert found.seconds == pytest.approx(10 * (30 + 2))
    assert found.basis.endswith("generation and scoring")


def test_finished_pairs_need_no_time(registry: Registry, tmp_path: Path) -> None:
    prepared = pipeline.prepare(registry, "noise", "toy")
    run = pipeline.run(registry, prepared, out=tmp_path)
    assert estimate(registry, prepared, tmp_path).seconds == 0
    results = {name: replace(result, seconds=3.0) for name, result in run.pairs().items()}
    run.rewrite_pairs({name: results[name] for name in list(results)[:8]})  # two of the three batches
    assert estimate(registry, prepared, tmp_path).seconds == pytest.approx(2 * 3.0)


def test_methods_that_may_start_programs_are_not_started(registry: Registry, tmp_path: Path) -> None:
    registry.methods["noise"] = replace(registry.methods["noise"], identify="test_run_control:identify")
    found = estimate(registry, pipeline.prepare(registry, "noise", "toy"), tmp_path)
    assert (found.seconds, toy_plugin.Noise.calls) == (None, [])


def identify(config: dict[str, object], pairs: object) -> dict[str, object]:
    return dict(config)
