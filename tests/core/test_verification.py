"""Forged records are refused by `verify` and not ranked by `report`, each with its reason; honest ones pass."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scoring_toy as toy
from scoring_toy import record_run

import bcd_bench
from bcd_bench.cli.app import main
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.specs import Weights
from bcd_bench.results.formats import latex, markdown
from bcd_bench.results.ranking import marks
from bcd_bench.results.rows import collect_rows
from bcd_bench.results.schema import load_record
from bcd_bench.run.folder import RunFolder
from bcd_bench.types.errors import UsageError
from bcd_bench.verification import bundle
from bcd_bench.verification.again import check_rerun, check_rescored
from bcd_bench.verification.check import Check
from bcd_bench.verification.files import check_files
from bcd_bench.verification.installed import check_installed


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy])


@pytest.fixture
def runs(registry: Registry, tmp_path: Path) -> Path:
    for method in ("exact", "off"):
        record_run(registry, tmp_path / "runs", method)
    return tmp_path / "runs"


def folder_of(runs: Path, method: str) -> Path:
    [record] = runs.glob(f"*/{method}/*/record.json")
    return record.parent


def change(path: Path, edit: Callable[[Any], None]) -> None:
    body = json.loads(path.read_text())
    edit(body)
    path.write_text(json.dumps(body))


def failures(folder: Path) -> list[Check]:
    return [check for check in check_files(load_record(folder / "record.json"), folder) if check.status == "failed"]


def forge_value(folder: Path) -> None:
    change(folder / "record.json", lambda body: body["values"]["distance"].update(value=0.5))


def forge_hash(folder: Path) -> None:
    change(folder / "record.json", lambda body: body.update(outputs_sha256="0" * 64))


def forge_interval(folder: Path) -> None:
    change(folder / "record.json", lambda body: body["values"]["distance"].update(ci_low=30.0))


def drop_pair(folder: Path) -> None:
    def edit(body: Any) -> None:
        for values in (body["pairs"], body["cluster_of"], *body["columns"].values()):
            del values[0]

    change(folder / "values.json", edit)


def double_pair(folder: Path) -> None:
    def edit(body: Any) -> None:
        for values in (body["pairs"], body["cluster_of"], *body["columns"].values()):
            values[1] = values[0]

    change(folder / "values.json", edit)


FORGERIES = {
    "value": (forge_value, "values", "distance is 0.5, but the mean of its 11 pairs is 34.2727273"),
    "hash": (forge_hash, "hash of the outputs", "outputs_sha256 is 000000000000, but the outputs in pairs.jsonl give"),
    "interval": (forge_interval, "intervals", "the interval of distance is [30, "),
    "dropped": (drop_pair, "pairs", "values.json has 11 pairs, but the record 12"),
    "doubled": (double_pair, "per-pair values", "a pair is listed twice"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_record_is_refused_and_not_ranked(
    runs: Path, forgery: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bcd_bench.results.schema.MIN_COVERAGE", 0.9)  # one of the 12 pairs fails
    forge, check, reason = FORGERIES[forgery]
    rows = collect_rows([runs])
    assert {row.method for row in rows if row.ranked} == {"exact", "off"}
    assert {rows[index].method: mark for index, mark in marks(rows, "distance").items()} == {
        "exact": "best",
        "off": "second",
    }
    folder = folder_of(runs, "off")
    assert failures(folder) == []

    forge(folder)
    found = failures(folder)
    assert found[0].name == check
    assert reason in found[0].detail
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(folder)])
    assert exit_.value.code == 1
    printed = capsys.readouterr().out
    assert f"FAILED  {check}" in printed
    assert reason in printed
    assert "0 of 1 record passed" in printed

    rows = collect_rows([runs])
    assert {row.method: row.ranked for row in rows} == {"exact": True, "off": False}
    assert marks(rows, "distance") == {}
    text = markdown.render(rows)
    assert "off (fails its checks)" in text
    assert "**" not in text
    assert f"off {rows[1].run_id[:8]} fails its checks and is not ranked: " in text.replace("\\", "")
    assert reason in text.replace("\\", "")
    assert r"\textbf" not in latex.render(rows)


@pytest.mark.parametrize(
    ("file", "edit", "reason"),
    [
        ("record.json", lambda body: body["method"].update(version="9"), "method version of the record is not that of"),
        ("record.json", lambda body: body.update(seeded=True), "random weights of the record is not that of the plan"),
        ("record.json", lambda body: body["suite"].update(n_pairs=14), "12 pairs, but the suite has 14"),
        ("record.json", lambda body: body["values"]["distance"].update(n=12), "of 12 pairs, but 11 have a value"),
        ("record.json", lambda body: body["values"]["close"].update(wilson=[1, 2]), "the Wilson interval of close is"),
        ("record.json", lambda body: body["values"]["distance"].update(n_clusters=7), "is said to be of 7 subjects"),
        (
            "record.json",
            lambda body: body["values"]["spread"].update(value=9999.0),
            "the interval of spread is centred",
        ),
        ("plan.json", lambda body: body["identity"].update(seed=1), "but the plan's fingerprint gives"),
        ("plan.json", lambda body: body["pairs"][0].update(seed=1), "is not that of run seed 0"),
        ("plan.json", lambda body: body.clear(), "different version of bcd-bench"),
        ("values.json", lambda body: body["columns"].pop("distance"), "distance has no values of pairs"),
        ("values.json", lambda body: body["columns"].update(more=body["columns"]["close"]), "has a column more"),
    ],
)
def test_other_contradictions_are_found(runs: Path, file: str, edit: Callable[[Any], None], reason: str) -> None:
    folder = folder_of(runs, "off")
    change(folder / file, edit)
    assert reason in " ".join(check.detail for check in failures(folder))
    assert not next(row for row in collect_rows([runs]) if row.method == "off").ranked


def test_lines_of_pairs_are_those_of_the_plan(runs: Path) -> None:
    path = folder_of(runs, "off") / "pairs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[0]]))
    assert [check.detail for check in failures(path.parent)] == ["pair p00 is in pairs.jsonl 2 times"]
    path.write_text("".join(lines[1:]))
    assert [check.detail for check in failures(path.parent)] == ["pair p00 is in the plan, but not in pairs.jsonl"]


def test_a_record_alone_is_not_refused_and_says_what_was_not_checked(runs: Path, tmp_path: Path) -> None:
    shutil.copyfile(folder_of(runs, "off") / "record.json", tmp_path / "record.json")
    checks = check_files(load_record(tmp_path / "record.json"), tmp_path)
    assert [check.status for check in checks] == ["ok", "skipped", "skipped", "skipped"]
    assert "no values.json" in checks[1].detail


def test_pairs_and_subjects_are_those_of_the_installed_suite(registry: Registry, runs: Path) -> None:
    folder = folder_of(runs, "off")
    record = load_record(folder / "record.json")
    checks = {check.name: check for check in check_installed(registry, record, folder)}
    assert {name: check.status for name, check in checks.items()} == {"suite": "ok", "metrics": "ok"}

    other = record.model_copy(update={"suite": record.suite.model_copy(update={"manifest_sha256": "1" * 64})})
    [suite, _] = check_installed(registry, other, folder)
    assert suite.status == "failed"
    assert "is 111111111111 in the record" in suite.detail

    change(folder / "values.json", lambda body: body["clusters"].__setitem__(0, "somebody"))
    [suite, _] = check_installed(registry, record, folder)
    assert (suite.status, "somebody in values.json" in suite.detail) == ("failed", True)

    registry.suites.clear()
    [suite, _] = check_installed(registry, record, folder)
    assert suite.status == "skipped"


def test_outputs_are_scored_again(registry: Registry, runs: Path) -> None:
    folder = folder_of(runs, "off")
    record = load_record(folder / "record.json")
    check = check_rescored(registry, record, folder)
    assert (check.status, check.detail) == ("ok", "4 columns are those of the outputs")

    spread = record.values["spread"]
    forged = record.model_copy(update={"values": {**record.values, "spread": spread.model_copy(update={"value": 1.0})}})
    check = check_rescored(registry, forged, folder)
    assert check.status == "failed"
    assert check.detail.startswith("spread is 1, but the outputs give ")

    outputs = folder.parent / "elsewhere"
    (folder / "outputs").rename(outputs)
    assert check_rescored(registry, record, folder).status == "skipped"
    assert check_rescored(registry, record, folder, outputs=outputs).status == "ok"
    shutil.copyfile(outputs / "p01.mkv", outputs / "p00.mkv")
    check = check_rescored(registry, record, folder, outputs=outputs)
    assert (check.status, check.detail) == (
        "failed",
        "the output of pair p00 is missing, or its frames have another hash",
    )


def test_metrics_with_a_column_of_the_same_name_are_told_apart(registry: Registry, tmp_path: Path) -> None:
    """The first one that was scored has the name alone, whatever the order in which they are scored again."""
    folder = record_run(registry, tmp_path / "same", "off", ("shade", "again")).path
    record = load_record(folder / "record.json")
    assert (record.values["distance"].metric, record.values["again.distance"].metric) == ("shade", "again")
    assert list(record.metrics) == ["again", "shade"]
    assert check_rescored(registry, record, folder).status == "ok"
    first, *rest = (folder / "pairs.jsonl").read_text().splitlines()
    changed = json.dumps({**json.loads(first), "output_sha256": "0" * 64})
    (folder / "pairs.jsonl").write_text("\n".join([changed, *rest]) + "\n")
    check = check_rerun(registry, record, folder, 12)
    assert check.status == "ok", check.detail
    assert "first p00, but their values differ by at most 0 standard deviations" in check.detail


def test_random_pairs_are_made_again(registry: Registry, runs: Path) -> None:
    folder = folder_of(runs, "off")
    record = load_record(folder / "record.json")
    check = check_rerun(registry, record, folder, 3, seed=1)
    assert (check.status, check.detail) == ("ok", "3 random pairs have the same outputs")

    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for line in lines:
        if line["output_sha256"]:
            line["output_sha256"] = "0" * 64
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    check = check_rerun(registry, record, folder, 12)
    assert check.status == "ok", "another device may draw other pixels of the same value"
    assert check.detail.startswith("11 of 12 random pairs have other frames, first p00, but their values differ by")

    change(folder / "values.json", lambda body: body["columns"]["distance"].__setitem__(0, 90.0))
    check = check_rerun(registry, record, folder, 12)
    assert check.status == "failed"
    assert "(of distance)" in check.detail


def test_a_bundle_is_deterministic_and_verified(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(runs, "off")
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    bundle.write_bundle(folder, first)
    bundle.write_bundle(folder, second)
    assert first.read_bytes() == second.read_bytes()
    with bundle.opened(first) as opened:
        assert sorted(path.name for path in opened.iterdir()) == sorted(bundle.MEMBERS)
        record = load_record(opened / "record.json")
        assert [check.status for check in check_files(record, opened)] == ["ok"] * 6
        assert RunFolder(opened).plan.suite.data == {}
    assert not opened.exists()
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(first), "--json"])
    assert exit_.value.code == 0
    [report] = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["method"], report["run_id"]) == (True, "off", record.run_id)
    forge_value(folder)
    with pytest.raises(UsageError, match=r"fails its checks: distance is 0\.5"):
        bundle.write_bundle(folder, first)


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "outputs/p00.mkv", "record.json"])
def test_a_bundle_with_other_members_is_refused(runs: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.zip"
    bundle.write_bundle(folder_of(runs, "off"), path)
    with (
        pytest.warns(UserWarning, match="Duplicate name") if name == "record.json" else contextlib.nullcontext(),
        zipfile.ZipFile(path, "a") as archive,
    ):
        archive.writestr(name, "{}")
    told = "contains record.json twice" if name == "record.json" else "which is not a file of a bundle"
    with pytest.raises(UsageError, match=told), bundle.opened(path):
        pass
    assert not (tmp_path.parent / "evil.json").exists()


def test_a_changed_member_a_missing_one_and_another_file_are_refused(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    bundle.write_bundle(folder_of(runs, "off"), path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}

    def pack(members: dict[str, bytes]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    for members, told in (
        ({**contents, "values.json": contents["values.json"] + b"\n"}, "values.json is not the file of bundle.json"),
        ({name: content for name, content in contents.items() if name != "plan.json"}, "plan.json is missing"),
        ({"record.json": contents["record.json"]}, "bundle.json is missing or damaged"),
    ):
        pack(members)
        with pytest.raises(UsageError, match=told), bundle.opened(path):
            pass


def test_a_bundle_that_cannot_be_unpacked_is_refused(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    bundle.write_bundle(folder_of(runs, "off"), path)
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")  # the first entry of the directory; flags at 8, method at 10, name at 46
    not_utf8 = bytearray(content)
    not_utf8[entry + 9] |= 0x08  # the flag "the name is UTF-8"
    not_utf8[entry + 46] = 0x99
    encrypted = bytearray(content)
    encrypted[entry + 8] |= 0x01
    deflated = bytearray(content)
    deflated[entry + 10] = 8  # the bytes are no deflate stream
    deflated[content.index(b"PK\x03\x04") + 8] = 8
    for damaged in (not_utf8, encrypted, deflated):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="cannot be read as a bundle"), bundle.opened(path):
            pass


def test_weights_are_found_by_name_or_hash(registry: Registry, runs: Path, tmp_path: Path) -> None:
    folder = folder_of(runs, "off")
    record = load_record(folder / "record.json")
    shipped, mine = Path(bcd_bench.__file__), tmp_path / "mine.bin"
    mine.write_bytes(b"mine")
    sha256 = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (shipped, mine)}
    spec = Weights("trained", package="bcd_bench", path="__init__.py", sha256=sha256[shipped])
    registry.methods["off"] = replace(registry.methods["off"], weights=(spec,))

    def found(name: str, sha: str, given: str | None = None) -> tuple[str, str]:
        method = record.method.model_copy(update={"weights": {name: sha}})
        [check] = [
            check
            for check in check_installed(registry, record.model_copy(update={"method": method}), folder, weights=given)
            if check.name == "weights"
        ]
        return check.status, check.detail

    assert found("trained", sha256[shipped]) == ("ok", f"{sha256[shipped][:12]} is the hash of trained")
    assert found("a copy", sha256[shipped])[0] == "ok"
    assert found("mine.bin", sha256[mine])[0] == "skipped"
    assert found("mine.bin", sha256[mine], str(mine))[0] == "ok"
    told = f"trained have sha256 {sha256[mine][:12]} in the record, but {sha256[shipped][:12]} here"
    assert found("trained", sha256[mine]) == ("failed", told)
