"""`run`, `score`, `compare` and `report` from end to end, in processes of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


def run_folders(tmp_path: Path, out: str = "runs") -> dict[str, Path]:
    return {plan.parent.parent.name: plan.parent for plan in sorted((tmp_path / out).rglob("plan.json"))}


def test_run_ends_with_a_table_and_says_where_the_files_are(cli, tmp_path: Path) -> None:
    done = cli("run", "--method", "toy-swap,oracle,copy-content", "--suite", "toy")
    assert done.returncode == 0, done.stderr
    folders = run_folders(tmp_path)
    assert list(folders) == ["copy-content", "oracle", "toy-swap"]
    lines = done.stdout.splitlines()
    content = next(line for line in lines if line.startswith("| toy-content (%)"))
    assert content.count("100.00 [") == 3
    for folder in folders.values():
        assert f"run folder: {folder.relative_to(tmp_path)}" in lines
    assert "24/24 pairs" in done.stderr
    files = {path.name for path in folders["toy-swap"].iterdir()}
    assert files >= {"plan.json", "env.json", "pairs.jsonl", "record.json"}
    assert len(list((folders["toy-swap"] / "outputs").glob("*.mkv"))) == 24


def test_the_second_run_generates_nothing_and_changes_nothing(cli, tmp_path: Path) -> None:
    first = cli("run", "--method", "toy-swap", "--suite", "toy")
    folder = run_folders(tmp_path)["toy-swap"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = cli("run", "--method", "toy-swap", "--suite", "toy")
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert "generate" not in again.stderr
    changed = [p.name for p, content in before.items() if p.read_bytes() != content and p.name != "timing.json"]
    assert changed == []


def test_two_runs_of_one_command_give_identical_records(cli, tmp_path: Path) -> None:
    for out in ("one", "two"):
        assert cli("run", "--method", "toy-swap", "--suite", "toy", "--out", out).returncode == 0
    one, two = run_folders(tmp_path, "one")["toy-swap"], run_folders(tmp_path, "two")["toy-swap"]
    assert one.name == two.name
    for name in ("record.json", "values.json", "plan.json", "env.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    for output in sorted((one / "outputs").iterdir()):
        assert output.read_bytes() == (two / "outputs" / output.name).read_bytes(), output.name


def test_seed_config_and_limit_make_other_runs(cli, tmp_path: Path) -> None:
    common = ("run", "--method", "toy-swap", "--suite", "toy")
    for extra in ((), ("--seed", "1"), ("--set", "noise=5"), ("--limit", "8")):
        assert cli(*common, *extra).returncode == 0
    plans = [json.loads(plan.read_text()) for plan in (tmp_path / "runs").rglob("plan.json")]
    assert len({plan["run_id"] for plan in plans}) == 4
    assert sorted(plan["method"]["config"]["noise"] for plan in plans) == [3, 3, 3, 5]
    assert sorted(len(plan["pairs"]) for plan in plans) == [8, 24, 24, 24]


def test_failed_pairs_cost_themselves_alone_and_can_be_tried_again(cli, tmp_path: Path) -> None:
    done = cli("run", "--method", "toy-flaky", "--suite", "toy")
    assert done.returncode == 1
    assert "6 of 24 pairs failed" in done.stderr
    folder = run_folders(tmp_path)["toy-flaky"]
    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    failed = {line["id"]: line["error"] for line in lines if line["status"] == "failed"}
    assert set(failed) == {f"c{colour}-m3" for colour in range(6)}
    assert failed["c1-m3"] == "RuntimeError: toy trouble with c1-m3 (methods.py:40)"
    assert len(lines) == 24
    # without the flag they stay as they are, with it they are mended, and the outputs equal an untroubled run
    assert cli("run", "--method", "toy-flaky", "--suite", "toy").returncode == 1
    mended = cli("run", "--method", "toy-flaky", "--suite", "toy", "--retry-failed", env={"TOY_MENDED": "1"})
    assert mended.returncode == 0, mended.stderr
    clean = cli("run", "--method", "toy-flaky", "--suite", "toy", "--out", "clean", env={"TOY_MENDED": "1"})
    assert clean.returncode == 0
    for output in sorted((run_folders(tmp_path, "clean")["toy-flaky"] / "outputs").iterdir()):
        assert output.read_bytes() == (folder / "outputs" / output.name).read_bytes()


def test_outputs_of_a_wrong_length_are_failed_pairs(cli, tmp_path: Path) -> None:
    assert cli("run", "--method", "toy-short", "--suite", "toy").returncode == 1
    text = (run_folders(tmp_path)["toy-short"] / "pairs.jsonl").read_text()
    assert text.count("output has 3 frames, but its driving clip has 4") == 6


def test_one_method_that_cannot_load_does_not_stop_the_others(cli, tmp_path: Path) -> None:
    done = cli("run", "--method", "toy-unloadable,toy-swap", "--suite", "toy")
    assert done.returncode == 3
    assert "error: toy-unloadable: method 'toy-unloadable' needs the package" in done.stderr
    assert (run_folders(tmp_path)["toy-swap"] / "record.json").exists()


def test_a_metric_that_raises_takes_nothing_down(cli, tmp_path: Path) -> None:
    done = cli("run", "--method", "toy-swap", "--suite", "toy", "--metric", "toy-raises", "--metric", "toy-match")
    assert "Traceback" not in done.stderr
    assert (
        "toy-swap: metric toy-raises could not score 6 of 24 outputs (6x ValueError: toy metric trouble)" in done.stderr
    )
    record = json.loads((run_folders(tmp_path)["toy-swap"] / "record.json").read_text())
    assert record["values"]["toy-content"]["value"] == 100.0
    assert record["values"]["toy-one"]["n"] == 18
    assert record["values"]["toy-one"]["n_failed"] == 6
    assert record["metrics"]["toy-raises"]["failures"] == {"ValueError: toy metric trouble": 6}


def test_score_adds_a_metric_without_generating(cli, tmp_path: Path) -> None:
    assert cli("run", "--method", "toy-swap", "--suite", "toy", "--metric", "toy-mean").returncode == 0
    folder = run_folders(tmp_path)["toy-swap"]
    outputs = {path: path.stat().st_mtime_ns for path in (folder / "outputs").iterdir()}
    done = cli("score", folder, "--metric", "toy-match")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((folder / "record.json").read_text())["values"]) == {"toy-level", "toy-content", "toy-error"}
    assert {path: path.stat().st_mtime_ns for path in (folder / "outputs").iterdir()} == outputs


def test_notes_of_the_suite_and_left_out_metrics_are_said(cli, tmp_path: Path) -> None:
    (tmp_path / "toys").mkdir()
    run = ("run", "--method", "toy-swap,oracle", "--suite", "toy-sold-out", "--data", "toys=toys", "--limit", "2")
    for arguments in ((*run, "--dry-run"), run):
        done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
        assert notes[:2] == ["note: toy 0 is broken", "note: toy 1 is broken"]
        assert notes[-1] == "note: and 3 more; `bcd-bench show suite` prints all"
        assert len(notes) == 21
    plan = json.loads(next(tmp_path.rglob("plan.json")).read_text())
    assert len(plan["suite"]["notes"]) == 22
    assert "toy-absent" not in next(tmp_path.rglob("record.json")).read_text()
    shown = cli("show", "suite", "toy-sold-out", "--data", "toys=toys")
    assert "notes:\n  - toy 0 is broken\n  - toy 1" in shown.stdout
    scored = cli("score", "runs")
    assert scored.returncode == 0, scored.stderr
    assert "note: toy 19 is broken" in scored.stderr


def test_dry_run_says_what_would_be_done_and_writes_nothing(cli, tmp_path: Path) -> None:
    done = cli("run", "--method", "toy-swap", "--suite", "toy", "--limit", "6", "--dry-run")
    assert done.returncode == 0
    assert "pairs     6 of 24, 0 finished; 2 batches of up to 4" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_an_error_after_the_run_does_not_spoil_it(cli, tmp_path: Path) -> None:
    done = cli("run", "--method", "oracle", "--suite", "toy", env={"TOY_HOOK_RAISES": "1"})
    assert done.returncode == 0
    assert "plugin toy: RuntimeError: no network for" in done.stderr
    assert (run_folders(tmp_path)["oracle"] / "record.json").exists()


@pytest.fixture(scope="module")
def made_runs(module_cli) -> Path:
    """Runs that take a quarter of a minute: made once, and copied for each test that reads them."""
    cli, folder = module_cli
    assert cli("run", "--method", "toy-swap,oracle", "--suite", "toy").returncode == 0
    assert cli("run", "--method", "toy-swap", "--suite", "toy", "--set", "noise=9").returncode == 0
    assert cli("run", "--method", "toy-swap", "--suite", "toy", "--limit", "4").returncode == 0
    return folder / "runs"


@pytest.fixture
def three_runs(made_runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_runs, tmp_path / "runs"))


def test_report_json_has_the_contracts_keys(cli, three_runs: Path) -> None:
    done = cli("report", "--format", "json")
    rows = json.loads(done.stdout)
    keys = {"suite", "suite_version", "method", "run_id", "partial", "reported", "n_pairs", "n_failed", "metrics"}
    assert all(set(row) == keys | {"provenance"} for row in rows)
    assert [row["method"] for row in rows if row["reported"]] == ["Paper & Sons_1"]
    assert sorted((row["method"], row["partial"]) for row in rows if not row["reported"]) == [
        ("oracle", False),
        ("toy-swap", False),
        ("toy-swap", False),
        ("toy-swap", True),
    ]
    value = next(row for row in rows if row["method"] == "oracle")["metrics"]["toy-content"]
    assert set(value) == {
        "value", "ci_low", "ci_high", "n", "n_failed", "frame_coverage", "unit", "higher_is_better",
    }  # fmt: skip
    assert (value["value"], value["n"], value["unit"], value["higher_is_better"]) == (100.0, 24, "%", True)


def test_report_marks_partial_runs_and_ranks_them_never(cli, three_runs: Path) -> None:
    text = cli("report").stdout
    partial = next(line for line in text.splitlines() if "partial" in line)
    assert "4 of 24 pairs" in partial
    assert "**" not in partial
    best = [line for line in text.splitlines() if "**" in line]
    assert len(best) == 1
    assert "toy-swap" in best[0]


@pytest.mark.parametrize("name", ["markdown", "latex", "csv", "json", "html"])
def test_report_writes_every_format_to_a_file(cli, three_runs: Path, tmp_path: Path, name: str) -> None:
    done = cli("report", three_runs, "--format", name, "--suite", "toy", "--output", "pages/table")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pages/table"
    assert "toy-swap" in (tmp_path / "pages" / "table").read_text()


def test_report_leaves_out_runs_without_a_record(cli, three_runs: Path) -> None:
    for record in three_runs.rglob("toy-swap/*/record.json"):
        record.unlink()
    done = cli("report")
    assert "warning: 3 unfinished run(s) without a record are left out" in done.stderr
    assert "oracle" in done.stdout
    assert "toy-swap" not in done.stdout


def test_compare_finds_the_better_run(cli, three_runs: Path) -> None:
    plans = [json.loads(path.read_text()) | {"at": path.parent} for path in three_runs.rglob("toy-swap/*/plan.json")]
    full = {plan["method"]["config"]["noise"]: plan["at"] for plan in plans if plan["limit"] is None}
    done = cli("compare", full[3], full[9], "--metric", "toy-error", "--json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert row["column"] == "toy-error"
    assert row["difference"] == pytest.approx(-3.0, abs=0.2)
    assert row["ci_high"] < 0
    assert row["n_pairs"] == 24
    assert "toy-error" in cli("compare", full[3], full[9]).stdout
