"""The suites `sprites` and `sprites-procedural`: every test clip once as content clip and once as motion clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bcd_bench.types.clip import ClipRef, Generated
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench_sprites.factors import (
    ACTIONS,
    ATTRIBUTES,
    DIRECTIONS,
    FPS,
    FRAMES,
    MOTIONS,
    SIZE,
    attributes_of,
    attributes_of_all,
    motion_name,
    motion_of,
    split,
)

if TYPE_CHECKING:
    from bcd_bench_sprites.characters import SuiteName

__all__ = [
    "DRAW_CLIP",
    "SEED",
    "VERSION",
    "clip_ref",
    "lpc_self_suite",
    "lpc_suite",
    "partners",
    "procedural_self_suite",
    "procedural_suite",
    "self_suite",
    "swap_suite",
    "test_clips",
]

VERSION = "1"
"""Bump when the pairs or the pixels of either suite change."""
SEED = 423
DRAW_CLIP = "bcd_bench_sprites.characters:draw_clip"
"""The source of every clip, called with suite, character and motion."""


def lpc_suite(data: Mapping[str, Path]) -> Suite:
    """The suite of LPC characters; its art is the asset `sprites-art`."""
    del data  # clips locate the asset themselves, in the process that renders them
    return swap_suite("sprites", "LPC Sprites: swaps over all 2,664 test clips, with exact targets.")


def procedural_suite(data: Mapping[str, Path]) -> Suite:
    """The suite of our procedural characters; it requires no files."""
    del data
    return swap_suite(
        "sprites-procedural", "Characters drawn by code: swaps over 2,664 test clips, with exact targets."
    )


def lpc_self_suite(data: Mapping[str, Path]) -> Suite:
    """Every test clip of `sprites` drives itself; its art is the asset `sprites-art`."""
    del data
    return self_suite("sprites")


def procedural_self_suite(data: Mapping[str, Path]) -> Suite:
    """Every test clip of `sprites-procedural` drives itself; it requires no files."""
    del data
    return self_suite("sprites-procedural")


def self_suite(name: SuiteName) -> Suite:
    """2,664 pairs for self-reenactment and codecs: content, driving clip and target are one test clip."""
    references = [clip_ref(name, character, motion) for character, motion in test_clips().tolist()]
    pairs = tuple(Pair(reference.id, reference, reference, reference) for reference in references)
    summary = f"Every one of the 2,664 test clips of {name} drives itself."
    metrics = ("target-psnr", "target-ssim", "coded-size")
    return Suite(f"{name}-self", VERSION, pairs, (SIZE, SIZE), FPS, metrics, 0, summary)


def swap_suite(name: SuiteName, summary: str, seed: int = SEED) -> Suite:
    """2,664 pairs: content and motion differ in the motion and in all four attributes; the target is ground truth."""
    clips = test_clips()
    motions_from = clips[partners(clips, seed)]
    references = {(character, motion): clip_ref(name, character, motion) for character, motion in clips.tolist()}
    pairs = []
    for (character, motion), (driver, driven) in zip(clips.tolist(), motions_from.tolist(), strict=True):
        pairs.append(
            Pair(
                id=f"{character:04d}-{motion_name(motion)}-from-{driver:04d}-{motion_name(driven)}",
                content=references[character, motion],
                motion=references[driver, driven],
                target=references[character, driven],
            )
        )
    return Suite(name, VERSION, tuple(pairs), (SIZE, SIZE), FPS, ("sprites-judge",), seed, summary)


def test_clips() -> npt.NDArray[np.int64]:
    """int64[2664, 2] of (character, motion), each test clip once.

    Any leading part of it is varied: every 296 clips contain every test character once, and neighbours differ in their
    motion.
    """
    characters = split("test")
    index = np.arange(len(characters) * MOTIONS)
    lap, position = np.divmod(index, len(characters))
    return np.stack([characters[position], (position + lap) % MOTIONS], axis=1)


test_clips.__test__ = False  # type: ignore[attr-defined]  # not a test, despite its name


def partners(clips: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """A permutation of the clips: clip i takes its motion from clip `partners[i]`.

    Partners differ in the motion and in all four attributes. Unsuitable partners in a seeded shuffle are swapped with
    that of a random clip for which both then fit, so every clip is still used exactly once. Raises ValueError if a clip
    has no such exchange (never for the test split; possible for a handful of clips).
    """
    rng = np.random.RandomState(seed)  # the stream of RandomState is frozen, that of default_rng may change
    factors = np.column_stack([attributes_of_all(clips[:, 0]), clips[:, 1]]).astype(np.int8)
    fit = np.ones((len(clips), len(clips)), np.bool_)
    for factor in factors.T:
        fit &= factor[:, None] != factor[None]
    partner = rng.permutation(len(clips)).astype(np.int64)
    for bad in np.flatnonzero(~fit[np.arange(len(clips)), partner]):
        if fit[bad, partner[bad]]:
            continue  # fixed by an earlier exchange
        options = np.flatnonzero(fit[bad, partner] & fit[partner[bad]])
        if not options.size:
            raise ValueError(f"clip {clips[bad].tolist()} has no partner that differs in every factor")
        exchange = options[rng.randint(options.size)]
        partner[bad], partner[exchange] = partner[exchange], partner[bad]
    return partner


def clip_ref(name: SuiteName, character: int, motion: int) -> ClipRef:
    """A clip by its factors. Labels: subject (the character), the four attribute values, motion, action, direction."""
    action, direction = motion_of(motion)
    labels: dict[str, str | int] = {"subject": f"{character:04d}"}
    labels |= zip(ATTRIBUTES, attributes_of(character), strict=True)
    labels |= {"motion": motion, "action": ACTIONS[action], "direction": DIRECTIONS[direction]}
    arguments = {"suite": name, "character": character, "motion": motion}
    clip_id = f"{character:04d}-{motion_name(motion)}"
    return ClipRef(clip_id, Generated(DRAW_CLIP, arguments), labels, frames=FRAMES)
