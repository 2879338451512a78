"""What `new-plugin` writes, and what it refuses."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from bcd_bench.cli.new_plugin import write_plugin
from bcd_bench.types.errors import UsageError


def test_it_writes_a_whole_distribution(tmp_path: Path) -> None:
    files = write_plugin("motion-copy2", tmp_path / "deep" / "plugin")
    package = Path("bcd_bench_motion_copy2")
    assert files == sorted(
        [
            Path(".gitignore"),
            Path(".github/workflows/test.yml"),
            Path("README.md"),
            *(package / name for name in ("__init__.py", "method.py", "metric.py", "plugin.py")),
            Path("pyproject.toml"),
            Path("tests/test_conformance.py"),
        ]
    )
    folder = tmp_path / "deep" / "plugin"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "bcd-bench-motion-copy2"
    assert project["project"]["entry-points"]["bcd_bench"] == {"motion-copy2": "bcd_bench_motion_copy2.plugin"}
    for file in files:
        text = (folder / file).read_text()
        assert "{{" not in text
        assert text.endswith("\n")
        if file.suffix == ".py":
            assert ast.get_docstring(ast.parse(text)), f"{file} has no docstring"
    assert "class MotionCopy2(Method):" in (folder / package / "method.py").read_text()


def test_parts_are_written_if_they_are_asked_for(tmp_path: Path) -> None:
    files = write_plugin("demo", tmp_path / "all", ["metric", "suite", "extractor", "executor"])
    modules = {file.stem for file in files if file.parent.name == "bcd_bench_demo"}
    assert modules == {"__init__", "method", "metric", "suite", "extractor", "executor", "plugin"}
    text = (tmp_path / "all" / "README.md").read_text()
    assert "the suite `demo-squares`, the extractor `demo-changes`, the executor `demo-processes`" in text
    assert {file.stem for file in write_plugin("demo", tmp_path / "none", [])} >= {"method", "plugin"}
    assert not (tmp_path / "none" / "bcd_bench_demo" / "metric.py").exists()
    with pytest.raises(UsageError, match="--with report: choose from metric, suite, extractor, executor"):
        write_plugin("demo", tmp_path / "other", ["report"])


@pytest.mark.parametrize("name", ["", "My", "2fast", "a--b", "a_b", "-a", "a-", "a/b", "../a", "ä"])
def test_names_that_no_package_can_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="invalid plugin name"):
        write_plugin(name, tmp_path / "plugin")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        write_plugin("mine", tmp_path / "plugin")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["mine.txt"]


def test_nothing_half_written_is_left_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        write_plugin("mine", tmp_path / "file" / "plugin")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
