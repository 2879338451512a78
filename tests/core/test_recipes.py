"""How weights were trained: from the file into the plan, the record and every report."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_toy import hits, write_record

from bcd_bench.plugin.registry import load_registry
from bcd_bench.results.formats import csv as csv_
from bcd_bench.results.formats import html, latex, markdown
from bcd_bench.results.formats import json as json_
from bcd_bench.results.rows import collect_rows
from bcd_bench.results.schema import RecipeInfo
from bcd_bench.results.table import build_tables
from bcd_bench.run.plan import make_plan
from bcd_bench.types.errors import UsageError

PAPER = RecipeInfo(label="paper")
MORE = RecipeInfo(label="+ 2 extensions", parts=["content_channels", "muon"])
LABELS = RecipeInfo(label="+ 2 extensions", parts=["conv_stem", "keypoints"], labels=["keypoints"])


def write_one(folder: Path, number: int, weights: str, recipe: RecipeInfo | None) -> None:
    write_record(
        folder / str(number),
        "bcd",
        hits(0.5),
        weights={weights: "0" * 64},
        recipe=recipe,
        run_id=f"{number}123456789",
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for number, (name, recipe) in enumerate((("a", PAPER), ("b", MORE), ("c.safetensors", LABELS), ("d", None))):
        write_one(tmp_path, number, name, recipe)
    return tmp_path


def test_rows_of_one_method_are_told_apart_by_recipe_and_weights(results: Path) -> None:
    [table] = build_tables(collect_rows([results]))
    assert [line.label for line in table.lines] == [
        "bcd (paper)",
        "bcd (+ 2 extensions) b",
        "bcd (+ 2 extensions) c",
        "bcd",
    ]


def test_notes_list_the_techniques_and_whether_labels_took_part(results: Path) -> None:
    [table] = build_tables(collect_rows([results]))
    notes = [note for note in table.notes if note.startswith("Recipe of")]
    assert notes == [
        "Recipe of bcd (paper): paper; self-supervised (weights a).",
        "Recipe of bcd (+ 2 extensions): content_channels, muon; self-supervised (weights b).",
        "Recipe of bcd (+ 2 extensions): conv_stem, keypoints; learned from labels (keypoints) (weights "
        "c.safetensors).",
    ]


def test_two_runs_with_the_same_weights_are_told_apart_by_their_run(tmp_path: Path) -> None:
    for number in range(2):
        write_one(tmp_path, number, "a", PAPER)
    [table] = build_tables(collect_rows([tmp_path]))
    assert [line.label for line in table.lines] == ["bcd (paper) 01234567", "bcd (paper) 11234567"]


@pytest.mark.parametrize("render", [markdown.render, latex.render, html.render, csv_.render, json_.render])
def test_every_format_shows_the_recipe(results: Path, render: object) -> None:
    text = render(collect_rows([results]))  # type: ignore[operator]
    assert "paper" in text
    assert "content" in text
    assert "keypoints" in text


def test_a_plan_reads_the_recipe_from_the_weights(tmp_path: Path) -> None:
    registry = load_registry()
    from bcd_bench.plugin.suites import load_suite

    suite = load_suite(registry, "sprites-procedural", {})
    plan = make_plan(registry, "bcd", suite, limit=2)
    assert plan.weights is not None
    assert plan.weights.recipe is not None
    assert plan.weights.recipe.label.startswith("+ ")
    assert "swap_cycle" in plan.weights.recipe.parts
    assert plan.weights.recipe.labels == []
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a readable safetensors file"):
        make_plan(registry, "bcd", suite, limit=2, weights=str(tmp_path / "other"))
