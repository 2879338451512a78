"""Names in backticks exist: dotted names, members of public classes, arguments of specs, and Python files."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "plugins", "baselines", "results", "benchmarks")
PAGES = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
PUBLIC = {
    "bcd_bench": None,  # every name in __all__
    "bcd_bench.training": None,
    "bcd_bench.testing": None,
    "bcd_bench.plugin.protocols": None,
    "bcd_bench_bcd.inference.method": ["BCDMethod"],
    "bcd_bench_bcd": ["BCD"],
    "bcd_bench_bcd.inference.pipeline": ["Pipeline"],
    "bcd_bench_faces.suites.training_heads": ["HeadsTrainingClips"],
}
"""Module -> the classes whose members the pages name as `Class.member`."""
FOREIGN = {"run_inference.py"}
"""Files of other repositories."""


def spans(page: Path, pattern: str) -> list[re.Match[str]]:
    prose = FENCE.sub("", page.read_text())
    return [match for span in SPAN.findall(prose) if (match := re.fullmatch(pattern, span.replace("\n", " ")))]


def resolve(name: str) -> Any:
    """The module, class, function or attribute with this dotted name. Raises `LookupError`."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
                continue
            pytest.skip(f"{module} needs {error.name}")
        for part in parts[end:]:
            value = member(value, part)
        return value
    raise LookupError(f"no module {parts[0]}")


def member(owner: Any, name: str) -> Any:
    """An attribute, or a field without a default. Raises `LookupError`."""
    if hasattr(owner, name):
        return getattr(owner, name)
    classes = inspect.getmro(owner) if inspect.isclass(owner) else ()
    if any(name in vars(cls).get("__annotations__", {}) for cls in classes):
        return None
    if name in getattr(owner, "model_fields", {}):
        return None
    raise LookupError(f"{getattr(owner, '__name__', owner)} has no {name}")


@cache
def public_classes() -> dict[str, type]:
    found = {}
    for module_name, names in PUBLIC.items():
        module = pytest.importorskip(module_name)
        for name in names if names is not None else module.__all__:
            if inspect.isclass(value := getattr(module, name)):
                found[name] = value
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_dotted_names_exist(page: Path) -> None:
    for match in spans(page, r"(bcd_bench(?:_(?:bcd|sprites|faces|fidelity|baselines))?(?:\.\w+)+)(?:\(.*\))?"):
        try:
            resolve(match[1])
        except LookupError as error:
            pytest.fail(f"{page.relative_to(ROOT)}: `{match[0]}`: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_members_of_public_classes_exist(page: Path) -> None:
    for match in spans(page, r"([A-Z]\w+)\.([a-z_]\w*)(?:[\[(=].*)?"):
        if owner := public_classes().get(match[1]):
            try:
                member(owner, match[2])
            except LookupError as error:
                pytest.fail(f"{page.relative_to(ROOT)}: `{match[0]}`: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_arguments_of_public_classes_exist(page: Path) -> None:
    for match in spans(page, r"([A-Z]\w+)\((.*)\)"):
        if owner := public_classes().get(match[1]):
            outer = re.sub(r"[\[({][^\[\](){}]*[\])}]|\"[^\"]*\"", "", match[2])
            known = inspect.signature(owner).parameters
            for name in re.findall(r"(\w+)=", outer):
                assert name in known, f"{page.relative_to(ROOT)}: `{match[0]}`: {match[1]} takes no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_files_exist(page: Path) -> None:
    for match in spans(page, r"(?:[\w./-]+ )?([\w/-]+\.py)\b.*"):
        name = match[1]
        shown = name in FOREIGN or any(name in block for block in FENCE.findall(page.read_text()))
        assert shown or list(ROOT.rglob(name)) or list(ROOT.rglob(f"{name}.jinja")), f"{page.name}: `{match[0]}`"


def test_the_checks_notice_what_does_not_exist(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`Pair.content` and `bcd_bench.io.video.read_video(path)`\n")
    assert [match[0] for match in spans(page, r"([A-Z]\w+)\.(\w+)")] == ["Pair.content"]
    assert resolve("bcd_bench.io.video.read_video").__name__ == "read_video"
    member(public_classes()["Pair"], "content")
    with pytest.raises(LookupError, match="encode"):
        member(public_classes()["BCDMethod"], "encode")
    with pytest.raises(LookupError, match="read_movie"):
        resolve("bcd_bench.io.video.read_movie")
    with pytest.raises(LookupError, match="nowhere"):
        resolve("bcd_bench.nowhere")


AVOIDED = {
    r"driver'?s?": "driving clip",
    r"motion clips?": "driving clip",
    r"exact (?:target|answer)s?": "ground-truth target",
    r"anchors?": "reference method",
    r"faults?": "perturbation",
    r"doses?": "severity",
    r"judges?": "classifier",
    r"seeded weights": "random weights",
    r"price (?:on|of) content": "content KL weight",
    r"kept clips": "cached clips",
    r"practice clips": "synthetic test clips",
    r"anew": "again, recomputed",
    r"reckon(?:ed|s)?": "estimated",
    r"mends?": "fixes",
    r"where there (?:is|are)": "if there is",
    r"for want of": "because … is missing",
    r"is no (?:number|file|clip|part|percentage)": "is not a …",
}
"""What the pages once called it -> the word of the glossary."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_words_of_the_glossary_are_used(page: Path) -> None:
    if page.parent.name == "validation" or page.name == "leaderboard.md":
        return  # written by the harness
    prose = SPAN.sub("", re.sub(r"\]\([^)]*\)", "]", FENCE.sub("", page.read_text())))
    for old, new in AVOIDED.items():
        found = re.findall(rf"(?<![\w-]){old}(?![\w-])", prose, re.IGNORECASE)
        assert not found, f"{page.relative_to(ROOT)}: {found[0]!r}; say {new!r}"
