"""The anchors: exact copies, resampled to the driver's length, and no oracle without a target."""

from __future__ import annotations

import numpy as np
import pytest
import toy_plugin

from bcd_bench import Clip, ClipRef, Failed, Generated, Pair
from bcd_bench.plugin.reference_methods import CopyContent, CopyMotion, Oracle


def counting(n: int, fps: float = 8.0) -> Clip:
    """Frame t is filled with the value t."""
    return Clip(np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8), fps)


def ref(n: int, fps: float = 8.0) -> ClipRef:
    return ClipRef(f"{n}", Generated("test_reference_methods:counting", {"n": n, "fps": fps}))


def only(method: object, pair: Pair) -> Clip | Failed:
    method.load(None, "cpu")  # type: ignore[attr-defined]
    (result,) = method.transfer([pair], seed=0)  # type: ignore[attr-defined]
    return result


@pytest.mark.parametrize(
    ("content", "motion", "expected"),
    [
        ((4, 8.0), (4, 8.0), [0, 1, 2, 3]),
        ((3, 8.0), (8, 8.0), [0, 1, 2, 0, 1, 2, 0, 1]),
        ((6, 8.0), (2, 8.0), [0, 1]),
        ((1, 8.0), (3, 8.0), [0, 0, 0]),
        ((8, 30.0), (4, 10.0), [0, 3, 6, 1]),
        ((3, 10.0), (6, 20.0), [0, 0, 1, 1, 2, 2]),
    ],
)
def test_copy_content_plays_the_content_at_the_drivers_rate_and_length(
    content: tuple[int, float], motion: tuple[int, float], expected: list[int]
) -> None:
    output = only(CopyContent({}), Pair("p", ref(*content), ref(*motion)))
    assert isinstance(output, Clip)
    assert output.frames[:, 0, 0, 0].tolist() == expected
    assert (output.fps, output.id) == (motion[1], "p")


def test_copy_motion_and_oracle_are_exact() -> None:
    for pair in toy_plugin.make_suite({}).pairs:
        motion, target = only(CopyMotion({}), pair), only(Oracle({}), pair)
        assert isinstance(motion, Clip)
        assert isinstance(target, Clip)
        assert pair.target is not None
        assert (motion.sha256, motion.id) == (pair.motion.load().sha256, pair.id)
        assert (target.sha256, target.id) == (pair.target.load().sha256, pair.id)


def test_the_oracle_fails_without_a_target() -> None:
    result = only(Oracle({}), Pair("p", ref(2), ref(2)))
    assert result == Failed("the pair has no ground-truth target")
