"""The rate of motion codes against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bcd_bench.plugin.protocols import Scored
from bcd_bench.statistics.aggregate import aggregate_rows
from bcd_bench.types.clip import Clip, ClipRef, Generated
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.metrics.motion_bitrate import INFO_KEY, MotionBitrate, code_entropy, soft_entropy


def scored(codes: list[list[int]] | None, **info: object) -> Scored:
    ref = ClipRef("x", Generated("nowhere:nothing"))
    clip = Clip(np.zeros((2, 4, 4, 3), np.uint8), 25.0)
    return Scored(Pair("p", ref, ref), clip, info={} if codes is None else {INFO_KEY: codes, **info})


def test_entropies_by_hand() -> None:
    assert code_entropy(np.array([[0], [1], [2], [3]])) == pytest.approx(2.0)
    assert code_entropy(np.array([[5], [5], [5]])) == 0.0
    assert code_entropy(np.array([[0, 0], [0, 1]])) == pytest.approx(1.0)
    assert code_entropy(np.array([[0], [0], [0], [1]])) == pytest.approx(2 - 0.75 * math.log2(3))


@given(arrays(np.int64, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.integers(0, 7)))
@settings(max_examples=60, deadline=None)
def test_entropy_is_bounded_and_blind_to_order_and_names(codes: np.ndarray) -> None:
    bits = code_entropy(codes)
    assert -1e-9 <= bits <= codes.shape[1] * math.log2(min(8, len(codes))) + 1e-9
    assert code_entropy(codes[::-1]) == pytest.approx(bits)
    assert code_entropy(7 - codes) == pytest.approx(bits)


def test_rates_over_a_run() -> None:
    metric = MotionBitrate()
    rows = metric.score([scored([[0], [1]]), scored([[2], [3]]), scored(None)])
    assert rows[2] == Failed("the method does not report motion codes")
    values = metric.derive([row for row in rows if not isinstance(row, Failed)])
    assert values == {"motion-bits": 2.0, "motion-kbps": 0.05, "motion-codes-used": 4.0}


def test_columns_of_methods_that_report_more() -> None:
    metric = MotionBitrate()
    assert {"motion-bits-soft", "motion-bits-coded", "content-bits"} < {column.name for column in metric.columns}
    first = scored([[0], [1], [2]], motion_probabilities=[[0.5, 0.25, 0.25, 0.0]], content_bits=100)
    second = scored([[3]], motion_probabilities=[[0.0, 0.0, 0.0, 1.0]], content_bits=60)
    rows = metric.score([first, second])
    # from scratch: 2 bits, then codes of 1 in 16, rounded up to whole bytes; the code 3 alone takes 2 bits
    assert [row["coded"] for row in rows if isinstance(row, dict)] == [16, 8]
    values = metric.derive([row for row in rows if not isinstance(row, Failed)])
    share = np.array([1.5, 0.75, 0.75, 1.0]) / 4
    soft = -(share * np.log2(share)).sum()
    assert values["motion-bits-soft"] == pytest.approx(soft)
    assert values["motion-kbps-soft"] == pytest.approx(soft * 25 / 1000)
    assert values["motion-bits-coded"] == 24 / 4
    assert values["motion-kbps-coded"] == pytest.approx(0.15)
    assert values["content-bits"] == 80
    assert "motion-bits-autoregressive" not in values


def test_autoregressive_bits_are_per_frame() -> None:
    metric = MotionBitrate()
    rows = metric.score([scored([[0], [1], [2]], motion_bits_autoregressive=4.5), scored([[3]])])
    kept = [row for row in rows if not isinstance(row, Failed)]
    assert metric.derive(kept[:1])["motion-bits-autoregressive"] == 1.5
    assert "motion-bits-autoregressive" not in metric.derive(kept)  # not known for all rows


def test_soft_and_hard_entropy_agree_for_certain_assignments() -> None:
    codes = np.array([[0, 1], [2, 1], [2, 3], [2, 0]])
    shares = np.stack([np.bincount(group, minlength=4) / 4 for group in codes.T])
    assert soft_entropy(shares) == pytest.approx(code_entropy(codes))


def test_columns_that_are_not_reported_are_empty_in_a_record_and_the_others_are_not() -> None:
    metric = MotionBitrate()
    rows = metric.score([scored([[0], [1]]), scored([[2], [3]])] * 4)
    by_pair = {str(number): row for number, row in enumerate(rows) if not isinstance(row, Failed)}
    pairs = [(pair, f"subject {pair}") for pair in by_pair]
    values, _ = aggregate_rows("motion-bitrate", metric, metric.columns, pairs, by_pair)
    assert values["motion-bits"].value == 2.0
    assert values["motion-bits"].ci_low is not None
    for name in ("motion-bits-autoregressive", "motion-kbps-autoregressive", "motion-bits-soft", "content-bits"):
        assert values[name].value is None, name
