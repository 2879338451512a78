"""The script that asks whether recognisers tell real people apart: its values, its areas, and whose clips count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcd_bench.statistics.intervals import area_under_curve
from bcd_bench.types.errors import UsageError
from tests.faces.scripts import script

NAN = np.nan
PEOPLE = ["a", "a", "b", "c", "c"]
CLIPS = [0, 1, 2, 3, 4]


def test_the_value_of_two_clips_is_their_csim() -> None:
    clips = [np.array(one, np.float32) for one in ([[1, 0], [NAN, NAN]], [[0.6, 0.8], [0, 1]], [[NAN, NAN]])]
    found = script("compare_recognisers").similarities(clips)
    middle = np.array([0.6, 1.8]) / np.hypot(0.6, 1.8)
    assert found[0, 1] == pytest.approx((0.6 + 0) / 2)
    assert found[1, 0] == pytest.approx(middle[0])
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()


def test_the_area_and_the_distance_are_over_pairs_of_different_clips() -> None:
    values = np.random.default_rng(0).normal(0, 1, (5, 5))
    values[0, 1] = values[2, 3]  # a tie counts half
    values[0, 4] = NAN
    names = np.array(PEOPLE)
    apart = ~np.eye(5, dtype=bool) & np.isfinite(values)
    same = values[(names[:, None] == names) & apart]
    others = values[(names[:, None] != names) & apart]
    [(area, distance)] = script("compare_recognisers").separations(values, PEOPLE, CLIPS, [np.ones(3, int)])
    assert area == pytest.approx(area_under_curve(same, others))
    assert distance == pytest.approx((same.mean() - others.mean()) / np.sqrt((same.var() + others.var()) / 2))
    # frames of one clip are nearly one picture, so clips 3 and 4 as one leave a's pairs alone as those of one person
    [(area, _)] = script("compare_recognisers").separations(values, PEOPLE, [0, 1, 2, 3, 3], [np.ones(3, int)])
    assert area == pytest.approx(area_under_curve(values[[0, 1], [1, 0]], others))


def test_who_is_drawn_twice_is_not_two_people_and_who_is_not_drawn_is_gone() -> None:
    values = np.random.default_rng(1).normal(0, 1, (5, 5))
    find = script("compare_recognisers").separations
    twice = np.array([2, 1, 0])
    rows = [0, 1, 0, 1, 2]  # clips of a, drawn twice, and of b
    same, others = [values[0, 1], values[1, 0]], [values[i, j] for i in rows[:4] for j in (2,)]
    others += [values[2, i] for i in rows[:4]]
    assert find(values, PEOPLE, CLIPS, [twice])[0][0] == pytest.approx(area_under_curve(same, others))
    assert find(values, PEOPLE, CLIPS, [np.array([0, 3, 0])]) == []  # b has one clip, and nobody else is there


def test_people_are_folders(tmp_path: Path) -> None:
    for name in ("test/a/1.mp4", "test/a/2.mp4", "train/a/1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [person for person, _ in script("compare_recognisers").people_of(tmp_path)]
    assert found == ["test/a", "test/a", "train/a"]
    with pytest.raises(UsageError, match="at least two people"):
        script("compare_recognisers").people_of(tmp_path / "test")
