"""A 16x16 square in one of 6 colours that walks one of 4 ways: 24 pairs with their exact targets."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bcd_bench import Clip, ClipRef, Generated, Pair, Suite

COLOURS = ((220, 40, 40), (40, 200, 60), (60, 80, 230), (230, 210, 40), (30, 200, 210), (200, 50, 220))
STEPS = ((1, 0), (-1, 0), (0, 1), (1, 1))
FRAMES, SIDE = 4, 16


def draw(colour: int, motion: int) -> Clip:
    """uint8 [4, 16, 16, 3]: a 6x6 square on grey."""
    frames = np.full((FRAMES, SIDE, SIDE, 3), 90, np.uint8)
    for t in range(FRAMES):
        top, left = 5 + STEPS[motion][0] * t, 5 + STEPS[motion][1] * t
        frames[t, top : top + 6, left : left + 6] = COLOURS[colour]
    return Clip(frames, 8.0)


def ref(colour: int, motion: int) -> ClipRef:
    source = Generated("bcd_bench_toy.suite:draw", {"colour": colour, "motion": motion})
    labels = {"subject": f"c{colour}", "colour": colour, "motion": motion}
    return ClipRef(f"c{colour}m{motion}", source, labels, frames=FRAMES)


def build(data: Mapping[str, Path]) -> Suite:
    pairs = []
    for colour in range(len(COLOURS)):
        for motion in range(len(STEPS)):
            content = ref(colour, (motion + 1) % len(STEPS))
            driver = ref((colour + 1) % len(COLOURS), motion)
            pairs.append(Pair(f"c{colour}-m{motion}", content, driver, ref(colour, motion), {"motion": f"m{motion}"}))
    return Suite("toy", "1", pairs, (SIDE, SIDE), 8.0, ("toy-match", "toy-mean"))


def build_noted(data: Mapping[str, Path]) -> Suite:
    notes = tuple(f"toy {number} is broken" for number in range(22))
    return replace(build(data), name="toy-sold-out", default_metrics=("toy-match", "toy-absent"), notes=notes)


def torn(data: Mapping[str, Path]) -> Suite:
    raise RuntimeError("torn in two")
