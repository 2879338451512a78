"""The rate of motion codes against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bcd_bench.plugin.protocols import Scored
from bcd_bench.types.clip import Clip, ClipRef, Generated
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.metrics.motion_bitrate import INFO_KEY, MotionBitrate, code_entropy


def scored(codes: list[list[int]] | None) -> Scored:
    ref = ClipRef("x", Generated("nowhere:nothing"))
    clip = Clip(np.zeros((2, 4, 4, 3), np.uint8), 25.0)
    return Scored(Pair("p", ref, ref), clip, info={} if codes is None else {INFO_KEY: codes})


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
