"""Linear probes on features whose content is known."""

from __future__ import annotations

import numpy as np
import pytest

from bcd_bench_bcd.metrics.probe import balanced_accuracy, linear_probe


def test_a_constant_guess_gets_chance() -> None:
    truth = np.array([0] * 90 + [1] * 5 + [2] * 5)
    assert balanced_accuracy(truth, np.zeros(100, np.int64)) == pytest.approx(100 / 3)
    assert balanced_accuracy(truth, truth) == 100


def test_what_is_there_is_read_and_what_is_not_is_not() -> None:
    rng = np.random.RandomState(0)
    groups = np.repeat(np.arange(120), 9)
    colour, motion = groups % 6, np.tile(np.arange(9), 120)
    tiny = 1e-3 * np.eye(9)[motion]  # a linear probe finds what is small, too
    features = np.column_stack([np.eye(6)[colour] + 0.1 * rng.randn(1080, 6), tiny, rng.randn(1080, 20), np.ones(1080)])
    assert linear_probe(features, colour, groups) == 100
    assert linear_probe(features, motion, groups) == 100
    assert linear_probe(features[:, 6:], colour, groups) == pytest.approx(100 / 6, abs=5)


def test_characters_are_not_remembered() -> None:
    rng = np.random.RandomState(1)
    groups = np.repeat(np.arange(60), 9)
    label = rng.randint(0, 6, 60)[groups]
    features = np.eye(60)[groups]  # names every character, says nothing of one not seen before
    assert linear_probe(features, label, groups) == pytest.approx(100 / 6, abs=12)
