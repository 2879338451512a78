"""Several runs compared: Holm, effect sizes, letters, tables and the forest plot."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_toy import N, write_record

from bcd_bench.cli.app import main
from bcd_bench.results.comparison_tables import comparison_tables, render
from bcd_bench.statistics.compare import compare_runs
from bcd_bench.statistics.intervals import paired_effect
from bcd_bench.statistics.pairwise import compare_all, holm, letters
from bcd_bench.types.errors import UsageError


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Four runs over 20 subjects: `best` and `alike` hardly differ, the others do."""
    shares = {"best": 1.0, "alike": 0.95, "middle": 0.5, "low": 0.0}
    for name, share in shares.items():
        write_record(tmp_path / name, name, [float((i * 7) % N < share * N) for i in range(N)])
    return [tmp_path / name for name in shares]


def test_holm_is_the_step_down_of_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, None, 0.9]) == [0.04, None, 0.9]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.sampled_from(list(combinations(range(n), 2)))))
    )
)
def test_runs_share_a_letter_exactly_if_they_do_not_differ(case: tuple[int, set[tuple[int, int]]]) -> None:
    number, distinct = case
    found = letters(number, sorted(distinct))
    assert all(found)
    for pair in combinations(range(number), 2):
        assert bool(set(found[pair[0]]) & set(found[pair[1]])) == (pair not in distinct)


def test_letters_start_with_the_best() -> None:
    assert letters(3, [(0, 1), (0, 2)], order=[1, 2, 0]) == ("b", "a", "a")
    assert letters(3, [(0, 2)], order=[0, 1, 2]) == ("a", "ab", "b")


def test_effect_sizes_are_those_of_paired_values() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(1.0, 1.0, 400)
    b = rng.normal(0.5, 1.0, 400)
    effect, interval = paired_effect(a, b, [str(i // 4) for i in range(400)])
    assert effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert interval is not None
    assert interval.low < effect < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.sqrt(1 / 400 + effect**2 / 800), rel=0.25)
    swapped, other = paired_effect(b, a, [str(i // 4) for i in range(400)])
    assert (swapped, other.low if other else None) == (-effect, pytest.approx(-interval.high))
    assert paired_effect(a, a, ["x"] * 400) == (None, None)
    assert paired_effect(a, b, ["x"] * 400) == (effect, None)


def test_all_pairs_are_compared_and_adjusted(runs: list[Path]) -> None:
    found = compare_all(runs, ["hit"])
    assert found.labels == ("best", "alike", "middle", "low")
    assert [(one.a, one.b) for one in found.differences] == list(combinations(found.labels, 2))
    assert found.means["hit"] == (100.0, 95.0, 50.0, 0.0)
    [alone] = compare_runs(runs[0], runs[2], ["hit"])
    assert found.differences[1].comparison == alone
    raw = [one.comparison.p_value for one in found.differences]
    assert [one.p_adjusted for one in found.differences] == holm(raw)
    assert [one.significant for one in found.differences] == [False, True, True, True, True, True]
    assert found.letters["hit"] == ("a", "a", "b", "c")
    assert found.differences[2].effect is None, "the same difference on every pair has no standard deviation"
    assert found.differences[1].effect == pytest.approx(0.5 / np.std([0, 1] * (N // 2), ddof=1))


def test_sets_are_listed_and_not_tested(runs: list[Path]) -> None:
    found = compare_all(runs)
    assert list(found.means) == ["hit", "fid"], "detail is no headline column"
    assert list(found.letters) == ["hit"]
    values, differences = comparison_tables(found)
    assert "Without values of pairs for all runs, so not tested: fid." in values.notes
    assert len(differences.lines) == 6
    assert [cell.mark for cell in differences.lines[1].cells] == ["best", None, None, None, None]


def test_tables_and_their_formats(runs: list[Path]) -> None:
    found = compare_all(runs, ["hit"])
    text = render(found)
    assert "| best   | 100.00 a  |" in text
    assert "| middle | 50.00 b   |" in text
    assert "best − middle (hit (%) ↑)" in text.replace("\\", "")
    assert "**50.00**" in text
    whole, part = render(found, "latex"), render(found, "latex-table")
    assert whole.startswith(r"\documentclass")
    assert r"\documentclass" not in part
    assert r"\label{tab:toy-differences}" in part
    assert r"{best $-$ middle}" in part.replace("\n", " ")
    assert r"\textbf{50.00}" in part


def test_a_run_that_fails_its_checks_is_not_better(runs: list[Path]) -> None:
    path = runs[0] / "record.json"
    body = json.loads(path.read_text())
    body["values"]["hit"]["value"] = 99.0
    path.write_text(json.dumps(body))
    found = compare_all(runs, ["hit"])
    assert [one.significant for one in found.differences] == [False, False, False, True, True, True]
    note = found.differences[0].comparison.note
    assert "a fails its checks: hit is 99, but the mean of its 40 pairs is 100" in note


def test_what_cannot_be_compared_is_told(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="is given twice"):
        compare_all([runs[0], runs[1], runs[0]])
    for arguments, told in (
        ([runs[0]], "compare needs at least two runs"),
        ([*runs, "--format", "html"], "--format html: must be markdown, latex or latex-table"),
        ([*runs, "--json", "--format", "latex"], "--json and --format latex exclude each other"),
        ([*runs, "--plot", "x.svg"], "--plot x.svg: must end in .png or .pdf"),
        ([*runs, "--metric", "fid", "--plot", "x.png"], "--plot: no difference of these runs has an interval"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["compare", *map(str, arguments)])
        assert exit_.value.code == 2
        assert told in capsys.readouterr().err


def test_json_and_a_plot_from_the_command_line(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        with pytest.raises(SystemExit) as exit_:
            main(["compare", *map(str, runs), "--json", "--plot", str(tmp_path / name)])
        assert exit_.value.code == 0
        found = json.loads(capsys.readouterr().out)
    assert [(one["a"], one["b"]) for one in found][:2] == [("best", "alike"), ("best", "middle")]
    assert {"p_adjusted", "effect", "effect_low", "effect_high", "comparison"} <= set(found[0])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
