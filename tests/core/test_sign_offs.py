"""Sign-offs: a record is verified if the maintainers' file has its hash, and nothing in the record can say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import scoring_toy as toy
from scoring_toy import record_run

from bcd_bench.cli.app import main
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.formats import json as json_
from bcd_bench.results.formats import latex, markdown
from bcd_bench.results.layout import Layout
from bcd_bench.results.rows import collect_rows
from bcd_bench.results.schema import load_record
from bcd_bench.results.table import build_tables
from bcd_bench.types.errors import UsageError
from bcd_bench.verification.bundle import write_bundle
from bcd_bench.verification.check import failed, passed, skipped
from bcd_bench.verification.leaderboard import check_entry
from bcd_bench.verification.signoff import add_sign_off, find_sign_offs, record_key, sign_off

RESCORED, RERUN = passed("rescored", "3 columns are those of the outputs"), passed("rerun", "2 pairs")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy])


@pytest.fixture
def runs(registry: Registry, tmp_path: Path) -> dict[str, Path]:
    """Method -> run folder."""
    for method in ("exact", "off"):
        record_run(registry, tmp_path / "runs", method)
    return {path.parents[1].name: path.parent for path in (tmp_path / "runs").rglob("record.json")}


@pytest.fixture
def results(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A leaderboard with records and values of both runs."""
    for method, run in runs.items():
        place = tmp_path / "results" / run.relative_to(tmp_path / "runs")
        place.mkdir(parents=True)
        for name in ("record.json", "values.json"):
            shutil.copyfile(run / name, place / name)
        assert place.parent.name == method
    return tmp_path / "results"


def record_of(folder: Path, method: str) -> Path:
    [record] = folder.glob(f"*/{method}/*/record.json")
    return record


def signed(results: Path, method: str) -> None:
    record = record_of(results, method)
    entry = sign_off(load_record(record), [RESCORED, RERUN], "cpu")
    assert entry is not None
    add_sign_off(results / "verified.json", record_key(record), entry)


def states(*paths: Path) -> dict[str, bool]:
    return {row.method: row.verified is not None for row in collect_rows(paths)}


def verify(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["verify", *map(str, arguments)])
    return int(str(done.value.code))


def test_verify_signs_off_what_it_has_rerun(
    runs: dict[str, Path],
    results: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("bcd_bench.cli.verify.load", lambda: registry)
    file = results / "verified.json"
    assert verify(runs["off"], "--sign-off", file) == 2  # nothing that connects it with outputs
    assert "--sign-off needs --rescore or --rerun N" in capsys.readouterr().err
    assert verify(record_of(results, "off"), "--rescore", "--sign-off", file) == 0
    assert "not signed off" in capsys.readouterr().err  # a record alone cannot be rescored
    assert not file.exists()
    assert verify(runs["off"], "--rescore", "--rerun", "2", "--sign-off", file) == 0
    assert states(results) == {"exact": False, "off": True}
    [(key, entry)] = json.loads(file.read_text())["records"].items()
    assert key == record_key(record_of(results, "off"))
    assert set(entry["checks"]) == {"rescored", "rerun"}
    assert (entry["method"], entry["device"]) == ("off", "cpu")
    capsys.readouterr()
    assert verify(results, "--leaderboard") == 0
    out = capsys.readouterr().out
    assert "each of the 1 is of a record that is there" in out
    assert out.count("a whole run with the values of its pairs, in the right place") == 2
    assert "2 of 2 records passed" in out


def test_the_column_appears_where_records_differ(results: Path) -> None:
    assert "verified" not in markdown.render(collect_rows([results]))
    signed(results, "off")
    rows = collect_rows([results])
    [table] = build_tables(rows)
    assert table.headers[-1] == "record"
    assert {line.label: line.cells[-1].text for line in table.lines} == {"exact": "self-reported", "off": "verified"}
    assert any(note.startswith("1 of 2 records are verified") for note in table.notes)
    assert "self-reported" in latex.render_tables(rows)
    [transposed] = build_tables(rows, layout=Layout(transpose=True))
    assert [cell.text for cell in transposed.lines[-1].cells] == ["self-reported", "verified"]
    [chosen] = build_tables(rows, layout=Layout(columns=(next(iter(rows[0].metrics)),)))
    assert len(chosen.headers) == 1
    assert [row["provenance"]["verified"] is not None for row in json.loads(json_.render(rows))] == [False, True]
    signed(results, "exact")
    [table] = build_tables(collect_rows([results]))
    assert "record" not in table.headers
    assert any(note.startswith("All records are verified") for note in table.notes)


def edited(path: Path) -> None:
    body = json.loads(path.read_text())
    body["verified"] = True
    path.write_text(json.dumps(body))


def rewritten(path: Path) -> None:
    body = json.loads(path.read_text())
    body["seed"] += 1
    path.write_text(json.dumps(body))


def with_other_values(path: Path) -> None:
    values = path.parent / "values.json"
    body = json.loads(values.read_text())
    column = next(iter(body["columns"].values()))
    column[0], column[1] = column[1], column[0]
    values.write_text(json.dumps(body))


@pytest.mark.parametrize("forge", [rewritten, with_other_values])
def test_a_changed_record_is_no_longer_verified(results: Path, forge: Callable[[Path], None]) -> None:
    signed(results, "off")
    assert states(results)["off"]
    forge(record_of(results, "off"))
    assert not states(results)["off"]


def test_a_record_cannot_call_itself_verified(results: Path) -> None:
    record = record_of(results, "off")
    signed(results, "off")
    for place in (record.parent, record.parents[2]):  # a file that comes with the record
        shutil.move(results / "verified.json", place / "verified.json")
        assert states(results) == {"exact": False, "off": False}
        shutil.move(place / "verified.json", results / "verified.json")
    shutil.copyfile(results / "verified.json", record.parent / "verified.json")
    assert states(record.parent) == {"off": False}
    assert verify(results, "--leaderboard") == 1
    edited(record)
    with pytest.raises(UsageError, match="not a record of this version"):
        collect_rows([results])


def test_only_checks_that_connect_a_record_with_outputs_count(results: Path) -> None:
    record = load_record(record_of(results, "off"))
    assert sign_off(record, [passed("values", "fine"), skipped("rerun", "needs a plan")], "cpu") is None
    assert sign_off(record, [RESCORED, failed("rerun", "pair p01 differs")], "cpu") is None
    entry = sign_off(record, [RERUN], "cuda")
    assert entry is not None
    assert entry.checks == {"rerun": "2 pairs"}


def test_entries_without_a_record_and_other_files_are_found(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed(results, "off")
    rewritten(record_of(results, "off"))
    assert verify(results, "--leaderboard") == 1
    assert "1 of 1 are of records that are not there, as off on toy@1" in capsys.readouterr().out
    for text in ("{", '{"format": 2, "records": {}}', '{"format": 1, "records": {"a": {"suite": "x"}}}'):
        (tmp_path / "verified.json").write_text(text)
        with pytest.raises(UsageError, match=r"verified\.json: (not a file of sign-offs|has format 2)") as error:
            find_sign_offs([tmp_path])
        assert "\n" not in str(error.value)


def test_the_rules_of_a_leaderboard(runs: dict[str, Path], results: Path) -> None:
    path = record_of(results, "exact")
    record = load_record(path)
    assert check_entry(record, path, results).status == "ok"
    assert check_entry(record, path, None).status == "ok"
    for change, reason in (
        ({"n_pairs": 5}, "only 5 of "),
        ({"seeded": True}, "the weights are random"),
        ({"unhashed": True}, "the method has no fingerprint"),
        ({"run_id": "0" * 12}, f"it belongs in toy@1/exact/{'0' * 12}"),
    ):
        check = check_entry(record.model_copy(update=change), path, results)
        assert check.status == "failed"
        assert check.detail.startswith(reason)
    (path.parent / "setup.py").write_text("")
    assert check_entry(record, path, results).detail == "only record.json and values.json belong there, not setup.py"
    (path.parent / "values.json").unlink()
    assert check_entry(record, path, results).detail == "values.json is missing, so nobody can compare it"


def test_bundles_in_a_leaderboard_are_checked_too(
    runs: dict[str, Path], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(runs["exact"], results / "handed-in.zip")
    assert verify(results, "--leaderboard") == 0
    assert "3 of 3 records passed" in capsys.readouterr().out
    (results / "handed-in.zip").write_bytes(b"no zip file")
    assert verify(results, "--leaderboard") != 0
