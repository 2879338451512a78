"""Numbering and split, against the check values of the protocol."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bcd_bench_sprites.factors import (
    ACTIONS,
    DIRECTIONS,
    attributes_of,
    attributes_of_all,
    character_index,
    motion_label,
    motion_name,
    motion_of,
    split,
)


@given(st.integers(0, 1295))
def test_a_character_is_its_four_values(character: int) -> None:
    skin, pants, top, hair = attributes_of(character)
    assert character == skin * 216 + pants * 36 + top * 6 + hair
    assert character_index(skin, pants, top, hair) == character
    assert attributes_of_all([character]).tolist() == [[skin, pants, top, hair]]


@pytest.mark.parametrize("character", [-1, 1296])
def test_other_characters_do_not_exist(character: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1295"):
        attributes_of(character)


def test_values_outside_of_the_six_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.5"):
        character_index(0, 6, 0, 0)


def test_motions_are_numbered_action_first() -> None:
    names = [motion_name(motion) for motion in range(9)]
    assert names == [f"{action}-{direction}" for action in ACTIONS for direction in DIRECTIONS]
    assert [motion_label(*motion_of(motion)) for motion in range(9)] == list(range(9))
    with pytest.raises(ValueError, match=r"0\.\.8"):
        motion_of(9)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        motion_label(3, 0)


def test_the_split_is_that_of_the_literature() -> None:
    train, test = split("train"), split("test")
    assert train[:8].tolist() == [1116, 1135, 17, 469, 1293, 491, 869, 961]
    assert test[:4].tolist() == [884, 1285, 252, 297]
    assert (len(train), len(test)) == (1000, 296)
    order = np.concatenate([train, test]).astype("<i8")
    assert hashlib.sha256(order.tobytes()).hexdigest().startswith("3c71b1c0dfb3214f")
    assert sorted(order.tolist()) == list(range(1296))
