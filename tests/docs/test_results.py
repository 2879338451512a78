"""The committed results: every record can be read, and the tables are those that the records give."""

from __future__ import annotations

from pathlib import Path

import pytest

from bcd_bench.plugin.registry import load_registry
from bcd_bench.results.formats.markdown import render
from bcd_bench.results.rows import collect_rows
from bcd_bench.results.schema import PairValues, RunRecord
from bcd_bench.statistics.comparability import why_incomparable
from bcd_bench.verification.bundle import opened
from bcd_bench.verification.files import first_failure
from bcd_bench.verification.leaderboard import check_entry, check_sign_offs

RESULTS = Path(__file__).parents[2] / "results"
PAIRS = {
    "sprites@1": 2664,
    "sprites-procedural@1": 2664,
    "heads-cross@1": 120,
    "heads-cross-128@1": 120,
    "lrs3-cross@2": 30,
}
RECORDS = sorted(RESULTS.glob("*/*/*/record.json"))


def test_the_sprites_suites_have_bcd_between_its_anchors() -> None:
    found = {path.parents[2].name + "/" + path.parents[1].name for path in RECORDS}
    for suite in ("sprites@1", "sprites-procedural@1"):
        assert {f"{suite}/{name}" for name in ("bcd", "cdsvae", "copy-content", "copy-motion", "oracle")} <= found


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_records_are_whole_runs_with_provenance(path: Path) -> None:
    record = RunRecord.model_validate_json(path.read_text())
    assert not record.partial
    assert (record.n_pairs, record.n_failed) == (PAIRS[path.parents[2].name], 0)
    assert f"{record.suite.name}@{record.suite.version}" == path.parents[2].name
    assert record.run_id == path.parent.name
    values = PairValues.load(path.parent)
    assert values is not None
    for name, column in values.columns.items():
        scored = [value for value in column if value is not None]
        if not scored:  # such as the distance to a target that the suite does not have
            assert record.values[name].value is None, name
            continue
        scale = 100 if record.values[name].kind == "rate" else 1
        assert record.values[name].value == pytest.approx(scale * sum(scored) / len(scored)), name
    assert len(values.columns) > 5
    assert first_failure(record, path.parent) == ""
    check = check_entry(record, path, RESULTS)
    assert check.status == "ok", check.detail


def test_bundles_and_sign_offs_are_of_what_is_here() -> None:
    """With the checks of every record above, what `bcd-bench verify results --leaderboard` checks without plugins."""
    check = check_sign_offs(RESULTS, RECORDS)
    assert check is None or check.status == "ok", check.detail
    for bundle in RESULTS.rglob("*.zip"):
        with opened(bundle) as folder:
            record = RunRecord.model_validate_json((folder / "record.json").read_text())
            assert first_failure(record, folder) == "", bundle
            check = check_entry(record, folder / "record.json", None)
            assert check.status == "ok", f"{bundle}: {check.detail}"


@pytest.mark.parametrize("method", ["bcd", "cdsvae"])
def test_the_weights_behind_trained_methods_are_those_shipped(method: str) -> None:
    defaults = [weights for weights in load_registry().methods[method].weights if weights.suites]
    sprites = [weights for weights in defaults if weights.suites[0].startswith("sprites")]
    assert len(sprites) == 2
    for weights in sprites:
        paths = RESULTS.glob(f"{weights.suites[0]}@1/{method}/*/record.json")
        assert sum(str(weights.sha256) in path.read_text() for path in paths) == 1


def test_every_row_of_bcd_names_its_recipe() -> None:
    recipes = {}
    for path in RECORDS:
        record = RunRecord.model_validate_json(path.read_text())
        if record.method.name == "bcd":
            assert record.method.recipe is not None, path
            recipes[path.parents[2].name, tuple(record.method.weights)] = record.method.recipe
    assert len(recipes) >= 5
    for (suite, _), recipe in recipes.items():
        assert (recipe.label == "paper") == (not recipe.parts)
        assert bool(recipe.labels) == (not suite.startswith("sprites")), "keypoints are labels of rendered heads"


@pytest.mark.parametrize(
    ("suite", "name"),
    [("heads-cross", "heads-landmarks"), ("heads-cross-128", "heads-landmarks"), ("lrs3-cross", "faces-landmarks")],
)
def test_the_weights_behind_the_rows_of_faces_are_those_shipped(suite: str, name: str) -> None:
    (heads,) = (one for one in load_registry().methods["bcd"].weights if one.name == name)
    (path,) = RESULTS.glob(f"{suite}@*/bcd/*/record.json")
    assert heads.sha256 is not None
    assert heads.sha256 in path.read_text()


@pytest.mark.parametrize("suite", PAIRS)
def test_the_rows_of_a_table_were_scored_in_the_same_way(suite: str) -> None:
    records = [RunRecord.model_validate_json(path.read_text()) for path in RECORDS if path.parents[2].name == suite]
    assert len(records) >= 4
    for column in {name for record in records for name in record.values}:
        assert why_incomparable(records, column) is None, column


@pytest.mark.parametrize("suite", [suite for suite in PAIRS if not suite.startswith("sprites")])
def test_tables_of_faces_have_two_recognisers(suite: str) -> None:
    for path in (path for path in RECORDS if path.parents[2].name == suite):
        values = RunRecord.model_validate_json(path.read_text()).values
        assert values["csim"].value is not None, path
        assert values["csim-sface"].value is not None, path


def test_the_leaderboard_is_made_from_the_records() -> None:
    rows = collect_rows([RESULTS], registry=load_registry())
    assert render(rows) == (RESULTS / "leaderboard.md").read_text()


def test_the_script_of_the_pictures_imports_what_exists() -> None:
    import ast
    import importlib

    tree = ast.parse((RESULTS / "pictures.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if (node.module or "").startswith("bcd_bench"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_list_of_ablations_is_made_from_their_tables() -> None:
    import runpy

    script = runpy.run_path(str(RESULTS / "collect_ablations.py"))
    assert script["list_text"]() == (RESULTS / "ablations" / "README.md").read_text()


def test_the_decisions_on_ablations_follow_from_their_intervals() -> None:
    import json

    for path in (RESULTS / "ablations").glob("*/table.json"):
        body = json.loads(path.read_text())
        assert body["produced_by"].startswith(f"bcd-bench ablate {body['ablation']} ")
        for verdict in body["verdicts"]:
            if verdict["decision"] == "undecided":
                continue
            low, high = verdict["interval"]
            nearly_equal = "nearly equal means" in verdict["sentence"]
            assert nearly_equal or low > 0 or high < 0, verdict["sentence"]
            assert verdict["n_clusters"] >= 6
