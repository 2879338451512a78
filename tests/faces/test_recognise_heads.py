"""The script that asks whether rendered heads pass for people: its areas, their intervals, and its table."""

from __future__ import annotations

import numpy as np
import pytest

from bcd_bench.types.errors import UsageError
from tests.faces.scripts import script


def test_the_similarity_of_two_clips_is_their_csim() -> None:
    one, two = np.array([1.0, 0.0]), np.array([0.6, 0.8])
    frames = np.array([[1, 0], [0, 1], [np.nan, np.nan]], np.float32)
    found = script("recognise_heads").similarities([one, two], [frames, np.array([[0.6, 0.8]], np.float32)])
    assert found == pytest.approx(np.array([[0.5, 0.6], [0.7, 1.0]]))


def test_the_area_is_the_chance_that_the_same_person_is_nearer() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (9, 9)) + np.eye(9)
    values[2, 5] = values[4, 4]  # a tie counts half
    same, other = np.diag(values), values[~np.eye(9, dtype=bool)]
    wins = (same[:, None] > other).mean() + (same[:, None] == other).mean() / 2
    assert script("recognise_heads").area(values) == pytest.approx(wins)
    assert script("recognise_heads").area(values, np.arange(9)[::-1]) == pytest.approx(wins)
    twice = script("recognise_heads").area(values, np.array([0, 0, 1]))  # 0 with itself is not two people
    same, other = values[[0, 0, 1], [0, 0, 1]], np.array([values[0, 1], values[1, 0]])
    assert twice == pytest.approx((same[:, None] > other).mean())


def test_the_interval_holds_the_area_and_narrows_with_people() -> None:
    rng = np.random.default_rng(1)
    few, many = (rng.normal(0, 1, (count, count)) + np.eye(count) for count in (8, 50))
    widths = []
    for values in (few, many):
        low, high = script("recognise_heads").interval(values)
        assert low <= script("recognise_heads").area(values) <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 1.5
    assert script("recognise_heads").interval(np.eye(5)) == (1, 1)


def test_sizes_and_people_are_checked() -> None:
    assert script("recognise_heads").sizes_of("256=2,64=60") == [(64, 60), (256, 2)]
    for wrong in ("64", "65=3", "64=1", "64=61", "a=b", ""):
        with pytest.raises(UsageError, match="--sizes"):
            script("recognise_heads").sizes_of(wrong)
