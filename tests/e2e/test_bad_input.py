"""Wrong names, files and plugins: one clear line, the command that mends it, and the right exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RUN = ("run", "--method", "toy-swap", "--suite", "toy")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "--method", "toy-swpa", "--suite", "toy"), 2, "unknown method 'toy-swpa'; did you mean toy-swap"),
        (("run", "--method", "toy-swap", "--suite", "tyo"), 2, "unknown suite 'tyo'; did you mean toy"),
        ((*RUN, "--metric", "toy-macth"), 2, "unknown metric 'toy-macth'; did you mean toy-match"),
        ((*RUN, "--set", "noize=1"), 2, "method 'toy-swap' has no setting 'noize'; did you mean noise?"),
        ((*RUN, "--set", "noise"), 2, "--set 'noise' is not of the form key=value"),
        ((*RUN, "--set", "noise=1", "--set", "noise=2"), 2, "--set noise is given twice"),
        ((*RUN, "--data", "toys=nowhere"), 2, "--data toys: nowhere does not exist"),
        ((*RUN, "--weights", "absent.safetensors"), 2, "--weights 'absent.safetensors': no such file"),
        ((*RUN, "--limit", "0"), 2, "--limit 0: must be at least 1"),
        ((*RUN, "--executor", "locl"), 2, "unknown executor 'locl'; did you mean local?"),
        ((*RUN, "--jobs", "0"), 2, "--jobs"),
        (("run", "--method", ",", "--suite", "toy"), 2, "--method needs at least one name"),
        (("run", "--method", "toy-swap,toy-slow", "--suite", "toy", "--weights", "x"), 2, "applies to a single method"),
        (("run", "--suite", "toy"), 2, "--method"),
        (("run", "--method", "toy-swap", "--suite", "toy-data"), 2, "suite 'toy-data' needs data 'toys'"),
        (
            ("run", "--method", "toy-swap", "--suite", "toy-sold-out"),
            3,
            "suite 'toy-sold-out' needs data 'toys': the toys are sold out; the suite toy needs none",
        ),
        (("run", "--method", "toy-unloadable", "--suite", "toy"), 3, "needs the package 'bcd_bench_toy.absent'"),
        (
            ("run", "--method", "toy-swap", "--suite", "toy-torn"),
            2,
            "suite 'toy-torn' cannot be built: RuntimeError: torn",
        ),
        (("train", "toy-lost"), 3, "training toy-lost needs the package 'bcd_bench_toy.absent'"),
        (("toy-mute",), 2, "command 'toy-mute' cannot be loaded: AttributeError"),
        (("train", "toy-ent"), 2, "unknown trainable 'toy-ent'; did you mean toy-net"),
        (("train", "toy-net", "--preset", "tini"), 2, "toy-net has no preset 'tini'; did you mean tiny?"),
        (("train", "toy-net", "--set", "steps=many"), 2, "steps must be a number"),
        (("train", "toy-net", "--max-minutes", "0"), 2, "--max-minutes 0.0: must be more than 0"),
        (("score", "nowhere"), 2, "nowhere: no run folder found"),
        (("compare", "nowhere", "here"), 2, "nowhere: no such run folder or record"),
        (("report", "nowhere"), 2, "nowhere: no such run folder or record"),
        (("report",), 2, "no folder ./runs here"),
        (("report", ".", "--format", "latx"), 2, "unknown report format 'latx'; did you mean latex"),
        (("report", ".", "--suite", "tyo"), 2, "unknown suite 'tyo'"),
        (("list", "methds"), 2, "No such command 'methds'. Did you mean 'methods'"),
        (("show", "metod", "oracle"), 2, "cannot show a 'metod'"),
        (("show", "method", "orcale"), 2, "unknown method 'orcale'; did you mean oracle?"),
        (("assets", "fetch", "absent"), 2, "unknown asset 'absent'"),
        (("assets", "fetch"), 2, "name the assets to fetch, or use --all"),
        (("new-plugin", "Not A Name"), 2, "invalid plugin name 'Not A Name'"),
        (("rnu",), 2, "No such command 'rnu'"),
        (("list", "--jsno"), 2, "No such option: --jsno"),
    ],
)
def test_one_clear_line(cli, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = cli(*arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code, done.stderr
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("record.json"))


def test_a_report_that_cannot_be_written_is_one_clear_line(cli, tmp_path: Path) -> None:
    assert cli(*RUN).returncode == 0
    (tmp_path / "file").write_text("in the way")
    done = cli("report", "--output", "file/table.md")
    assert done.returncode == 2
    assert "error: cannot write file/table.md" in done.stderr


def test_a_missing_asset_is_exit_3_with_the_command_that_mends_it(cli, tmp_path: Path) -> None:
    assert cli(*RUN).returncode == 0
    for arguments in ((*RUN, "--metric", "toy-lost"), ("score", "runs", "--metric", "toy-lost")):
        done = cli(*arguments)
        assert done.returncode == 3
        assert f"asset 'toys': not found (toys.bin, sha256 {'0' * 64}, 812 B, licence MIT)" in done.stderr
        assert "hint: bcd-bench assets add toys PATH   (carve it from wood)" in done.stderr
    [record] = tmp_path.rglob("record.json")
    assert "toy-lost" not in record.read_text()


def test_a_default_metric_without_its_asset_stops_nothing_unless_strict(cli, tmp_path: Path) -> None:
    command = ("run", "--method", "toy-asks,toy-swap", "--suite", "toy", "--limit", "4")
    strict = cli(*command, "--strict")
    assert strict.returncode == 3, strict.stderr
    assert "asset 'toys': not found" in strict.stderr
    assert not (tmp_path / "runs").exists()

    dry = cli(*command, "--dry-run")
    assert "toy-lost (not scored)" in dry.stdout
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    before, _, after = done.stderr.partition("generate")
    assert "note: metric toy-lost will not be scored: asset 'toys': not found" in before
    assert "toy-lost" not in after, "once is enough"
    assert "hint: score them later with: bcd-bench score" in after
    assert "warning" not in done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| toy-lost.toy-level"))
    assert row.split("|")[2].strip() == "not scored"
    assert "†" not in done.stdout

    paths = {path.parent.parent.name: path for path in (tmp_path / "runs").rglob("record.json")}
    record = json.loads(paths["toy-asks"].read_text())
    info = record["metrics"]["toy-lost"]
    assert info["missing"] is True
    assert info["error"].endswith("(bcd-bench assets add toys PATH   (carve it from wood))")
    assert info["failures"] == {}
    assert record["values"]["toy-content"]["n"] == 4
    lost = next(value for value in record["values"].values() if value["metric"] == "toy-lost")
    assert (lost["value"], lost["n"], lost["n_failed"]) == (None, 0, 0)

    report = cli("report", "runs")
    assert "toy-lost.toy-level" not in report.stdout, "nobody has a value in it"
    assert "Not scored, something is missing: toy-lost: asset 'toys': not found" in report.stdout
    for form in ("csv", "html"):
        assert cli("report", "runs", "--format", form).returncode == 0
    folder = paths["toy-asks"].parent
    assert cli("score", folder).returncode == 0
    assert cli("score", folder, "--strict").returncode == 3
    assert cli("score", folder, "--metric", "toy-lost").returncode == 3


def test_an_unwritable_folder_is_one_clear_line(cli, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    done = cli(*RUN)
    assert done.returncode == 2
    assert "error: cannot write to runs" in done.stderr
    assert (tmp_path / "runs").read_text() == "a file where the folder should be"


def test_a_run_folder_of_another_version_is_refused(cli, tmp_path: Path) -> None:
    assert cli(*RUN).returncode == 0
    [plan] = (tmp_path / "runs").rglob("plan.json")
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"format": 99}))
    for arguments in (RUN, ("score", plan.parent)):
        done = cli(*arguments)
        assert done.returncode == 2
        assert "a different version of bcd-bench" in done.stderr


def test_a_damaged_record_is_one_clear_line(cli, tmp_path: Path) -> None:
    assert cli(*RUN).returncode == 0
    [record] = (tmp_path / "runs").rglob("record.json")
    record.write_bytes(record.read_bytes()[:200])
    done = cli("report")
    assert done.returncode == 2
    assert "not a record of this version" in done.stderr
    assert f"hint: bcd-bench score {record.parent.relative_to(tmp_path)}" in done.stderr
    assert cli(*RUN).returncode == 0
    assert cli("report").returncode == 0


@pytest.fixture
def broken_site(install_plugin, tmp_path: Path, toy_env: dict[str, str]) -> dict[str, str]:
    """An environment with a plugin that raises on import beside the toy plugin."""
    site = tmp_path / "broken-site"
    site.mkdir()
    (site / "broken_plugin.py").write_text('raise RuntimeError("no such driver")\n')
    install_plugin(site, "bcd-bench-broken", "broken", "broken_plugin")
    return {"PYTHONPATH": f"{toy_env['PYTHONPATH']}:{site}", "BCD_BENCH_PLUGINS": "toy,broken"}


def test_a_plugin_that_raises_is_listed_broken_and_changes_nothing_else(cli, broken_site: dict[str, str]) -> None:
    listed = cli("list", "plugins", "--json", env=broken_site)
    assert listed.returncode == 0
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["broken"]["status"] == "BROKEN"
    assert rows["broken"]["error"] == "RuntimeError: no such driver (broken_plugin.py:1)"
    assert {rows["core"]["status"], rows["toy"]["status"]} == {"ok"}
    for kind in ("methods", "suites", "metrics"):
        assert cli("list", kind, "--json", env=broken_site).stdout == cli("list", kind, "--json").stdout
    done = cli(*RUN, env=broken_site)
    assert done.returncode == 0
    assert "warning: plugin broken (bcd-bench-broken) is BROKEN: RuntimeError: no such driver" in done.stderr
    doctor = cli("doctor", env=broken_site)
    assert "no such driver" in doctor.stdout
    assert "pip uninstall bcd-bench-broken" in doctor.stdout


def test_two_plugins_with_one_name_are_an_error_that_names_both(
    cli, install_plugin, tmp_path: Path, toy_env: dict[str, str]
) -> None:
    site = tmp_path / "twin-site"
    site.mkdir()
    (site / "twin_plugin.py").write_text(
        "from bcd_bench import MethodSpec, hookimpl\n"
        "@hookimpl\n"
        "def bcd_bench_methods():\n"
        "    return [MethodSpec('toy-swap', '1', 'Twin.', 'twin:Twin')]\n"
    )
    install_plugin(site, "bcd-bench-twin", "twin", "twin_plugin")
    env = {"PYTHONPATH": f"{toy_env['PYTHONPATH']}:{site}", "BCD_BENCH_PLUGINS": "toy,twin"}
    done = cli(*RUN, env=env)
    assert done.returncode == 2
    assert "bcd-bench-toy" in done.stderr
    assert "bcd-bench-twin" in done.stderr
    assert cli("run", "--method", "oracle", "--suite", "toy", env=env).returncode == 0


def test_plugins_can_be_limited(cli) -> None:
    listed = json.loads(cli("list", "methods", "--json", env={"BCD_BENCH_PLUGINS": "core"}).stdout)
    assert [row["name"] for row in listed] == ["copy-content", "copy-motion", "oracle"]
    done = cli("list", env={"BCD_BENCH_PLUGINS": "tyo"})
    assert done.returncode == 2
    assert "plugin 'tyo' is not installed; did you mean toy?" in done.stderr
