"""The factors of Sprites: names, the numbering of characters and motions, and the split by character."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "ACTIONS",
    "ATTRIBUTES",
    "CHARACTERS",
    "DIRECTIONS",
    "FPS",
    "FRAMES",
    "MOTIONS",
    "SIZE",
    "VALUES",
    "attributes_of",
    "attributes_of_all",
    "character_index",
    "motion_label",
    "motion_name",
    "motion_of",
    "split",
]

ACTIONS = ("walk", "spellcard", "slash")
DIRECTIONS = ("front", "left", "right")
ATTRIBUTES = ("skin", "pants", "top", "hair")
"""In numbering order: body, bottomwear, topwear, hair."""

VALUES = 6
"""Values of each attribute, 0..5."""
CHARACTERS = VALUES ** len(ATTRIBUTES)
MOTIONS = len(ACTIONS) * len(DIRECTIONS)
FRAMES = 8
SIZE = 64
"""Height and width of a frame in pixels."""
FPS = 25.0
"""The art does not define a frame rate; the paper assumes 25 (6 bits per frame correspond to its 150 bit/s)."""

_SPLIT_SEED = 423
_TRAIN_CHARACTERS = 1000


def character_index(skin: int, pants: int, top: int, hair: int) -> int:
    """Index 0..1295 of the character with these attribute values (each 0..5). Raises ValueError for other values."""
    values = (skin, pants, top, hair)
    if not all(0 <= value < VALUES for value in values):
        raise ValueError(f"attribute values must be 0..{VALUES - 1}, not {values}")
    return ((skin * VALUES + pants) * VALUES + top) * VALUES + hair


def attributes_of(character: int) -> tuple[int, int, int, int]:
    """(skin, pants, top, hair) of a character index, each 0..5. Raises ValueError for an invalid index."""
    if not 0 <= character < CHARACTERS:
        raise ValueError(f"a character index must be 0..{CHARACTERS - 1}, not {character}")
    skin, remainder = divmod(character, 216)
    pants, remainder = divmod(remainder, 36)
    return (skin, pants, *divmod(remainder, 6))


def attributes_of_all(characters: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """int64[..., 4] of (skin, pants, top, hair), each 0..5, for an array of character indices."""
    index = np.asarray(characters, dtype=np.int64)
    return np.stack([index // 216, index // 36 % 6, index // 6 % 6, index % 6], axis=-1)


def motion_label(action: int, direction: int) -> int:
    """Motion label 0..8: 3 * action + direction. Raises ValueError for values outside 0..2."""
    if not (0 <= action < len(ACTIONS) and 0 <= direction < len(DIRECTIONS)):
        raise ValueError(f"action and direction must be 0..2, not {(action, direction)}")
    return action * len(DIRECTIONS) + direction


def motion_of(motion: int) -> tuple[int, int]:
    """(action, direction) of a motion label 0..8. Raises ValueError for an invalid label."""
    if not 0 <= motion < MOTIONS:
        raise ValueError(f"a motion label must be 0..{MOTIONS - 1}, not {motion}")
    return divmod(motion, len(DIRECTIONS))


def motion_name(motion: int) -> str:
    """The name of a motion, such as "walk-front"."""
    action, direction = motion_of(motion)
    return f"{ACTIONS[action]}-{DIRECTIONS[direction]}"


def split(part: Literal["train", "test"]) -> npt.NDArray[np.int64]:
    """Character indices of a part, in the literature's order: int64[1000] for "train", int64[296] for "test"."""
    order = np.random.RandomState(_SPLIT_SEED).permutation(CHARACTERS).astype(np.int64)
    return order[:_TRAIN_CHARACTERS] if part == "train" else order[_TRAIN_CHARACTERS:]
