"""The pages tell of every verb, option, hook, exit code and environment variable, and what they show is true."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

import bcd_bench
from bcd_bench.cli.app import VERBS, build_app, executor_options
from bcd_bench.plugin import hookspecs
from bcd_bench.plugin.registry import KINDS, load_registry
from bcd_bench.results.schema import RunRecord, Value
from bcd_bench.run.folder import PairResult
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)(?: title=\S+)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (ROOT / name).read_text()


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def command_of(verb: str):
    import typer

    return typer.main.get_command(build_app(verb)).commands[verb]


def options_of(command) -> set[str]:
    children = getattr(command, "commands", {}).values()
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    own = {name for parameter in shown for name in parameter.opts if name.startswith("--")}
    return own.union(*(options_of(child) for child in children)) - {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_pages_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    for language, code in BLOCK.findall(page.read_text()):
        if language == "python" and page.name != "tutorial.md":  # whose files test_tutorial.py writes down
            exec(compile(code, page.name, "exec", dont_inherit=True), {"__name__": f"docs_{page.stem}"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_pages_exist_with_their_options(page: Path) -> None:
    for _, block in BLOCK.findall(page.read_text()):
        for line in re.findall(r"bcd-bench (?!-)[^&\n·]*", block):
            words = executor_options([word for word in shlex.split(line, comments=True) if word != "bcd-bench"])
            if words[0] in VERBS:
                used = {word for word in words if word.startswith("--")}
                assert used <= options_of(command_of(words[0])), f"{page.name}: {line}"
            else:
                brought = load_registry().commands
                assert not words[0].isalpha() or words[0] in brought, f"{page.name}: no verb {words[0]!r}"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_and_option_is_documented(verb: str) -> None:
    section = sections(text("docs/command-line.md"))[verb]
    assert f"bcd-bench {verb}" in section
    documented = set(re.findall(r"--[a-z][a-z-]*", section))
    assert documented == options_of(command_of(verb))


def test_every_exit_code_is_documented() -> None:
    from bcd_bench.types import errors

    codes = {cls.exit_code for _, cls in inspect.getmembers(errors, inspect.isclass)} | {0, 1}
    table = sections(text("docs/command-line.md"))["Exit codes"]
    assert {int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)} == codes


def test_every_hook_is_documented() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("bcd_bench_")}
    assert hooks == {f"bcd_bench_{kind}" for kind in KINDS} | {"bcd_bench_run_finished"}
    table = sections(text("docs/plugins.md"))["The hooks"]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == hooks


def test_every_environment_variable_is_documented() -> None:
    sources = [path for part in ("bcd_bench", "plugins", "baselines") for path in (ROOT / part).rglob("*.py")]
    named = re.compile(r"(?:environ\S*[\[(]|variable=)\"(BCD_BENCH_\w+)\"")
    read = {name for path in sources for name in named.findall(path.read_text())}
    documented = set(re.findall(r"^\| `(\w+)` \|", text("docs/environment.md"), re.MULTILINE))
    assert read == documented


def test_every_key_of_the_files_is_documented() -> None:
    page = text("docs/run-folder.md")
    keys = {*RunRecord.model_fields, *Value.model_fields, *PairResult.__dataclass_fields__} - {"metric"}
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_numbers_in_the_pages_are_those_of_the_code() -> None:
    assert MIN_CLUSTERS_TO_COMPARE == 6
    assert "fewer than six content" in text("docs/metrics.md").replace("\n", " ")


def test_every_page_is_linked_from_the_readme() -> None:
    readme = text("README.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme


def test_the_changelog_has_this_version() -> None:
    assert f"## {bcd_bench.__version__}" in text("CHANGELOG.md")


def test_the_readmes_set_up_is_what_ci_runs() -> None:
    [first, second] = re.findall(r"^pip install .*$", text("README.md"), re.MULTILINE)
    assert first.endswith(" && bcd-bench run --method bcd --suite sprites-procedural --limit 64")
    assert second.endswith(" && pytest")
    assert "grep -m 1 '&& pytest$' README.md" in text(".ci/run")
    for command in (first, second):
        words = shlex.split(command.partition(" && ")[0])
        assert "constraints.txt" in words
        for word in words:
            if word.startswith(".") or "/" in word:
                assert (ROOT / word.partition("[")[0] / "pyproject.toml").is_file()


def test_pinned_versions_fit_what_the_packages_ask_for() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.version import Version

    pins = {Requirement(line).name: line for line in text("constraints.txt").splitlines() if not line.startswith("#")}
    projects = [ROOT / "pyproject.toml", *sorted((ROOT / "plugins").glob("*/pyproject.toml"))]
    for project in projects:
        table = tomllib.loads(project.read_text())
        extras = table["project"].get("optional-dependencies", {}).values()
        for line in [*table["project"]["dependencies"], *(one for extra in extras for one in extra)]:
            wanted = Requirement(line)
            if wanted.name.startswith("bcd-bench"):
                continue
            assert wanted.name in pins, f"{wanted.name} has no pin in constraints.txt"
            [pin] = Requirement(pins[wanted.name]).specifier
            assert Version(pin.version) in wanted.specifier
