"""The terms of the loss that are formulas."""

from __future__ import annotations

import pytest
import torch
from bcd_bench_bcd.objective import pixel_error
from hypothesis import given, settings
from hypothesis import strategies as st


@given(error=st.floats(-2, 2), width=st.floats(0.01, 1))
@settings(max_examples=80, deadline=None)
def test_pseudo_huber_lies_below_the_square_and_grows_linearly(error: float, width: float) -> None:
    e = torch.tensor([error], dtype=torch.float64)
    value = pixel_error(e, width).item()
    assert 0 <= value <= error**2 + 1e-12
    assert value <= 2 * width * abs(error) + 1e-12
    assert pixel_error(-e, width).item() == pytest.approx(value)


def test_limits() -> None:
    assert pixel_error(torch.tensor([3.0]), None).item() == 9.0
    small, large = torch.tensor([1e-3], dtype=torch.float64), torch.tensor([100.0], dtype=torch.float64)
    assert pixel_error(small, 0.5).item() == pytest.approx(1e-6, rel=1e-3)
    assert pixel_error(large, 0.5).item() == pytest.approx(2 * 0.5 * 100 - 2 * 0.25, rel=1e-3)
