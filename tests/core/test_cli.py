"""The command line in one process: parsing, help, JSON, and what is imported for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bcd_bench import ReportFormatSpec, TrainableSpec, __version__, hookimpl
from bcd_bench.cli.app import MODULES, VERBS, main
from bcd_bench.cli.common import parse_data, parse_settings, split_names, to_jsonable
from bcd_bench.cli.doctor import check_packages, check_plugins, check_weights, examine
from bcd_bench.cli.show import _print_facts
from bcd_bench.plugin.registry import PluginInfo, Registry
from bcd_bench.plugin.specs import MethodSpec, MetricSpec, Weights
from bcd_bench.types.errors import Interrupted, UsageError


@pytest.fixture(autouse=True)
def _home(bcd_bench_home: Path) -> None:
    """No test here touches the user's cache."""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_help_lists_every_verb(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    words = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert set(VERBS) <= words


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_and_a_module(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert out.startswith(f"Usage: bcd-bench {verb}")
    assert (Path(sys.modules["bcd_bench.cli"].__path__[0]) / f"{MODULES.get(verb, verb)}.py").is_file()


def test_every_verb_file_is_a_verb() -> None:
    files = {path.stem for path in Path(sys.modules["bcd_bench.cli"].__path__[0]).glob("*.py")}
    assert files - {"__init__", "app", "common", "complete", "help", "tables", "workers"} == {
        MODULES.get(verb, verb) for verb in VERBS
    }


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"bcd-bench {__version__}\n", "")


LOOK = """
import sys
from bcd_bench.cli import main
try:
    main(sys.argv[2:])
except SystemExit as stop:
    code = stop.code
print("heavy:", ",".join(name for name in sys.argv[1].split(",") if name in sys.modules), code, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (("--help",), "torch,numpy,pydantic,pandas,scipy,av,jinja2,pooch"),
        (("list",), "torch,numpy,pydantic,pandas,scipy,av,jinja2,pooch"),
        (("list", "--json"), "torch,numpy,pydantic,pandas,scipy,av,jinja2,pooch,rich.table"),
        (("run", "--help"), "torch,pandas,scipy,av"),
        (("doctor",), "torch,pandas,scipy,av,transformers,rich.table"),
        (("report", "."), "torch,transformers,av"),
    ],
)
def test_nothing_slow_is_imported_for_it(tmp_path: Path, arguments: tuple[str, ...], forbidden: str) -> None:
    command = [sys.executable, "-c", LOOK, forbidden, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr.splitlines()[-1] == "heavy:  0"


def test_list_json_names_what_is_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "methods", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert {"copy-content", "copy-motion", "oracle"} <= set(rows)
    assert rows["oracle"]["plugin"] == "core"
    code, out, _ = run(capsys, "list", "--json")
    assert set(json.loads(out)) >= {"methods", "suites", "metrics", "plugins", "trainables", "assets"}


def test_list_prints_every_row_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "list", "methods")
    [line] = [line for line in out.splitlines() if line.startswith("copy-motion")]
    assert "everything else leaks" in line
    assert line.split()[-1] == "core"


def test_show_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "method", "oracle", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["factory"] == "bcd_bench.plugin.reference_methods:Oracle"
    assert found["plugin"] == {"name": "core", "distribution": "bcd-bench", "version": __version__}
    _, out, _ = run(capsys, "show", "method", "oracle")
    assert re.search(r"^reference +True$", out, re.M)


def test_doctor_finds_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    findings = {(row["area"], row["name"]): row for row in json.loads(out)["findings"]}
    assert findings["package", "pluggy"]["status"] == "ok"
    assert findings["plugin", "core"]["detail"] == f"bcd-bench {__version__}"
    assert findings["machine", "cache"]["status"] == "ok"
    assert all(row["fix"] for row in findings.values() if row["status"] != "ok")


def test_doctor_names_altered_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipping").mkdir()
    (tmp_path / "shipping" / "__init__.py").write_text("")
    (tmp_path / "shipping" / "a.bin").write_bytes(b"good")
    monkeypatch.syspath_prepend(str(tmp_path))
    good, bad = hashlib.sha256(b"good").hexdigest(), "0" * 64
    weights = [Weights("a", (), "shipping", "a.bin", sha256=good), Weights("b", (), "shipping", "a.bin", sha256=bad)]
    weights += [Weights("c", (), "shipping", "c.bin"), Weights("d", asset="elsewhere")]
    registry = Registry.from_modules([])
    registry.methods["m"] = MethodSpec("m", "1", "", "x:Y", weights=tuple(weights))
    found = {finding.name: finding for finding in check_weights(registry)}
    assert {name: one.status for name, one in found.items()} == {"m/a": "ok", "m/b": "broken", "m/c": "broken"}
    assert "truncated or modified" in found["m/b"].detail
    assert found["m/c"].fix == "pip install --force-reinstall shipping"


@pytest.mark.parametrize(("name", "owner"), [("core", "bcd-bench"), ("oracle", "bcd-bench")])
def test_a_new_plugin_takes_nobodys_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, owner: str
) -> None:
    code, _, err = run(capsys, "new-plugin", name, "--out", str(tmp_path / "new"))
    assert code == 2
    assert f"the name {name!r} is already used by {owner} (plugin core)" in err
    assert not (tmp_path / "new").exists()


def test_doctor_names_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["absent-package[x]>=2", "extra-one; extra == 'a'"])
    [python, missing] = check_packages(["bcd-bench"], fast=True)
    assert python.status == "ok"
    assert (missing.name, missing.status) == ("absent-package", "missing")
    assert missing.fix == "pip install 'absent-package[x]>=2'"


def test_doctor_exits_3_where_a_package_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [finding for finding in examine(fast=True) if finding.area == "package"][:1]
    broken = [type(one)(one.area, one.name, "missing", "gone", "pip install it") for one in missing]
    monkeypatch.setattr("bcd_bench.cli.doctor.examine", lambda fast: broken)
    code, out, _ = run(capsys, "doctor")
    assert code == 3
    assert f"package {missing[0].name}: pip install it" in out


def test_doctor_names_broken_plugins_and_clashes() -> None:
    class First:
        @staticmethod
        def specs() -> MethodSpec:
            return MethodSpec("same", "1", "Same.", "x:Y")

    registry = Registry.from_modules([])
    registry.plugins.append(PluginInfo("bad", "dist-bad", "1", "bad", "BROKEN", "ImportError: no"))
    one, two = PluginInfo("one", "dist-one", "1", "one"), PluginInfo("two", "dist-two", "1", "two")
    registry.add("methods", First.specs(), one)
    registry.add("methods", First.specs(), two)
    bad = [finding for finding in check_plugins(registry) if finding.status == "broken"]
    assert [finding.name for finding in bad] == ["bad", "same"]
    assert "dist-one" in bad[1].detail
    assert "dist-two" in bad[1].detail


def test_interrupts_are_exit_4(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(error: BaseException):
        def load() -> None:
            raise error

        return load

    monkeypatch.setattr("bcd_bench.cli.list_.load", stop(KeyboardInterrupt()))
    code, _, err = run(capsys, "list")
    assert (code, err.count("interrupted: ")) == (4, 1)
    monkeypatch.setattr("bcd_bench.cli.list_.load", stop(Interrupted("stopped at 3", hint="again")))
    assert run(capsys, "list") == (4, "", "interrupted: stopped at 3\nhint: again\n")


def test_an_error_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("bcd_bench.cli.list_.load", load)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["list"])


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m bcd_bench list --json | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "{"
    assert done.stderr == ""


def test_a_terminal_without_the_characters_is_no_error() -> None:
    command = [sys.executable, "-c", "from bcd_bench.cli import main; main(['list', 'methods'])"]
    text = "import bcd_bench.plugin.builtin as b; b.MethodSpec = lambda **k: real(**{**k, 'summary': '\\u2191'})"
    command[2] = f"import bcd_bench.plugin.specs; real = bcd_bench.plugin.specs.MethodSpec; {text}; {command[2]}"
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "BCD_BENCH_PLUGINS": "core"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "oracle        1        ?        core" in done.stdout


def test_settings_are_json_where_they_parse() -> None:
    items = ["steps=5", "rate=1e-3", "on=true", "none=null", "name=x", "path=a=b", "list=[1,2]", "empty="]
    assert parse_settings(items, "--set") == {
        "steps": 5,
        "rate": 0.001,
        "on": True,
        "none": None,
        "name": "x",
        "path": "a=b",
        "list": [1, 2],
        "empty": "",
    }


@given(st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters="="), min_size=1), st.integers()))
def test_settings_come_back(settings: dict[str, int]) -> None:
    assert parse_settings([f"{key}={value}" for key, value in settings.items()], "--set") == settings


@pytest.mark.parametrize("item", ["steps", "=5", ""])
def test_settings_need_a_key_and_a_value(item: str) -> None:
    with pytest.raises(UsageError, match="not of the form key=value"):
        parse_settings([item], "--set")


def test_data_paths_must_exist(tmp_path: Path) -> None:
    assert parse_data([f"faces={tmp_path}"]) == {"faces": tmp_path}
    with pytest.raises(UsageError, match="does not exist"):
        parse_data([f"faces={tmp_path}/absent"])
    with pytest.raises(UsageError, match="not of the form NAME=PATH"):
        parse_data(["faces"])


def test_data_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data a is given twice"):
        parse_data([f"a={tmp_path}", f"a={tmp_path}"])


def test_names_are_split_and_kept_once() -> None:
    assert split_names([" a, b,,a ", "c"], "--method") == ["a", "b", "c"]
    assert split_names(None, "--method") == []
    with pytest.raises(UsageError, match="--method needs at least one name"):
        split_names([" ,"], "--method")


def test_plain_makes_json_types() -> None:
    spec = MethodSpec("m", "1", "M.", "x:Y", config={"a": (1, 2)}, assets=("b",))
    found = to_jsonable({"spec": spec, "path": Path("x")})
    assert found["path"] == "x"
    assert found["spec"]["config"] == {"a": [1, 2]}
    assert json.loads(json.dumps(found)) == found


class Awkward:
    """A plugin whose report format, metric and trainable are all broken."""

    @hookimpl
    def bcd_bench_report_formats(self) -> list[ReportFormatSpec]:
        return [
            ReportFormatSpec("raises", "", "operator:truediv"),
            ReportFormatSpec("mute", "", "builtins:dict"),
        ]

    @hookimpl
    def bcd_bench_metrics(self) -> list[MetricSpec]:
        return [MetricSpec("unmade", "1", "", "zipfile:ZipFile")]

    @hookimpl
    def bcd_bench_trainables(self) -> list[TrainableSpec]:
        return [TrainableSpec("aimless", "1", "", "builtins:print", {"a": ""}, "b")]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("report", ".", "--format", "raises"), 2, "report format 'raises' failed: TypeError"),
        (("report", ".", "--format", "mute"), 2, "report format 'mute' failed: TypeError: it returned dict, not text"),
        (("show", "metric", "unmade"), 0, "metric 'unmade' cannot be loaded: TypeError"),
        (("train", "aimless"), 2, "trainable 'aimless' is broken: its default preset 'b' does not exist"),
    ],
)
def test_broken_code_of_a_plugin_is_one_clear_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bcd_bench.plugin.registry.load_registry", lambda: Registry.from_modules([Awkward()]))
    done, out, err = run(capsys, *arguments)
    assert done == code
    assert says in out + err


@pytest.mark.parametrize("output", ["", ".", "/"])
def test_a_report_is_not_written_over_a_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "report", ".", "--output", output)
    assert code == 2
    assert "a folder, not a file" in err


def test_only_suites_take_data(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "show", "method", "oracle", "--data", "x=.")
    assert code == 2
    assert "--data is only for suites, not for a method" in err


def test_show_lists_settings_without_a_default_value(capsys: pytest.CaptureFixture[str]) -> None:
    _print_facts({"name": "m", "config": {"steps": None, "dtype": "float32"}, "licence": ""})
    assert capsys.readouterr().out.splitlines() == ["name     m", "config:", "  steps  none", "  dtype  float32"]
