"""The metric: rates, leaks, entropies, PSNR and the exact-nearest rate on outputs whose scores are known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bcd_bench import Clip, ClipRef, Failed, Pair, Scored
from bcd_bench_sprites.metric import PSNR_CAP, SpritesJudge, entropies, psnr
from bcd_bench_sprites.nearest import NearestClip
from bcd_bench_sprites.pretrained import SHIPPED
from bcd_bench_sprites.suite import procedural_suite

RATES = ("action", "action-3way", "direction", "skin", "pants", "top", "hair", "exact-nearest")
LEAKS = ("leak-skin", "leak-pants", "leak-top", "leak-hair", "leak-content", "leak-motion")


@pytest.fixture(scope="module")
def pairs() -> Sequence[Pair]:
    return procedural_suite({}).pairs[:18]


@pytest.fixture(scope="module")
def metric(nearest: NearestClip) -> SpritesJudge:
    del nearest  # makes the tables that the metric then finds in the cache
    made = SpritesJudge()
    made.load("cpu")
    return made


def _score(metric: SpritesJudge, pairs: Sequence[Pair], side: str) -> list[Any]:
    return list(metric.score([Scored(pair, getattr(pair, side).load()) for pair in pairs]))


def test_targets_are_perfect(metric: SpritesJudge, pairs: Sequence[Pair]) -> None:
    for row in _score(metric, pairs, "target"):
        assert [row[name] for name in RATES] == [1] * len(RATES)
        assert [row[name] for name in LEAKS] == [0] * len(LEAKS)
        assert row["exact-psnr"] == PSNR_CAP


def test_copied_content_keeps_its_own_motion(metric: SpritesJudge, pairs: Sequence[Pair]) -> None:
    for row in _score(metric, pairs, "content"):
        assert [row[name] for name in ("skin", "pants", "top", "hair", "leak-motion")] == [1] * 5
        assert [row[name] for name in ("action", "leak-content", "exact-nearest")] == [0] * 3
        assert row["exact-psnr"] < 25


def test_copied_motion_leaks_everything(metric: SpritesJudge, pairs: Sequence[Pair]) -> None:
    for row in _score(metric, pairs, "motion"):
        assert [row[name] for name in ("action", "action-3way", "direction")] == [1] * 3
        assert [row[name] for name in LEAKS[:5]] == [1] * 5
        assert [row[name] for name in ("skin", "pants", "top", "hair", "leak-motion", "exact-nearest")] == [0] * 6


def test_action_and_direction_are_parts_of_the_motion(metric: SpritesJudge) -> None:
    pairs = procedural_suite({}).pairs
    same_action = [p for p in pairs if p.content.labels["action"] == p.motion.labels["action"]][:3]
    same_direction = [p for p in pairs if p.content.labels["direction"] == p.motion.labels["direction"]][:3]
    for row in _score(metric, same_action, "content"):
        assert (row["action"], row["action-3way"], row["direction"]) == (0, 1, 0)
    for row in _score(metric, same_direction, "content"):
        assert (row["action"], row["action-3way"], row["direction"]) == (0, 0, 1)


def test_rows_are_json_and_hold_every_column_that_is_not_derived(metric: SpritesJudge, pairs: Sequence[Pair]) -> None:
    (row,) = _score(metric, pairs[:1], "target")
    assert json.loads(json.dumps(row)) == row
    assert {column.name for column in metric.columns if column.kind != "derived"} <= set(row)
    derived = {column.name for column in metric.columns if column.kind == "derived"}
    assert set(metric.derive([row])) == derived == {"entropy-y", "entropy-y-given-x", "inception-score"}


def test_the_judges_are_named_by_hash_in_the_record(metric: SpritesJudge) -> None:
    definition = next(column.definition for column in metric.columns if column.name == "action")
    for sha256 in SHIPPED.values():
        assert sha256 in definition


def test_an_output_of_another_shape_fails_alone(metric: SpritesJudge, pairs: Sequence[Pair]) -> None:
    short = Clip(np.zeros((7, 64, 64, 3), np.uint8), 25.0)
    good = pairs[1].target
    assert good is not None
    rows = metric.score([Scored(pairs[0], short), Scored(pairs[1], good.load())])
    assert isinstance(rows[0], Failed)
    assert "[7, 64, 64, 3]" in rows[0].reason
    assert not isinstance(rows[1], Failed)
    assert rows[1]["action"] == 1


def test_a_pair_of_another_suite_fails(metric: SpritesJudge, pairs: Sequence[Pair]) -> None:
    class Other:
        def load(self) -> Clip:
            return Clip(np.zeros((8, 64, 64, 3), np.uint8), 25.0)

        def describe(self) -> dict[str, Any]:
            return {}

    stranger = ClipRef("x", Other())
    (row,) = metric.score([Scored(Pair("x", stranger, stranger, stranger), stranger.load())])
    assert row == Failed("not a pair of a Sprites suite")


def test_nothing_to_score_is_no_rows(metric: SpritesJudge) -> None:
    assert list(metric.score([])) == []


def test_entropies_of_certain_and_of_clueless_judges() -> None:
    certain = np.eye(9)
    assert entropies(certain) == pytest.approx((math.log(9), 0.0))
    clueless = np.full((5, 9), 1 / 9)
    assert entropies(clueless) == pytest.approx((math.log(9), math.log(9)))
    one_sided = np.eye(9)[[0, 0, 0]]
    assert entropies(one_sided) == pytest.approx((0.0, 0.0))


def test_the_inception_score_of_certain_judgements_is_nine() -> None:
    rows = [{"motion-distribution": row.tolist()} for row in np.eye(9)]
    assert SpritesJudge().derive(rows)["inception-score"] == pytest.approx(9.0)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(9)), elements=st.floats(0.001, 1)))
def test_the_inception_score_is_between_one_and_nine(weights: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    marginal, conditional = entropies(weights / weights.sum(1, keepdims=True))
    assert -1e-9 <= conditional <= marginal + 1e-9
    assert marginal <= math.log(9) + 1e-9


def test_psnr_by_hand() -> None:
    black = np.zeros((1, 8, 4, 4, 3), np.uint8)
    assert psnr(black + 255, black)[0] == pytest.approx(0.0)
    assert psnr(black + 10, black)[0] == pytest.approx(20 * math.log10(25.5))
    assert psnr(black, black + 10)[0] == pytest.approx(20 * math.log10(25.5))
    assert psnr(black, black)[0] == PSNR_CAP == 60


def test_registration_imports_no_torch() -> None:
    code = (
        "import sys; import bcd_bench_sprites.plugin as p; p.bcd_bench_suites(); p.bcd_bench_metrics(); "
        "p.bcd_bench_assets(); p.bcd_bench_trainables(); "
        "print(sorted({'torch', 'numpy', 'PIL', 'scipy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert "torch" not in answer
    assert "PIL" not in answer
