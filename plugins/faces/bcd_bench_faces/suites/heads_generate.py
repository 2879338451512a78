"""The suites `heads-generate` and `heads-generate-prompt5`: continue the first frames of rendered talking heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bcd_bench.types.clip import Clip, ClipRef, Generated
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench_faces.suites.synthetic_heads import PEOPLE, kept_clip
from bcd_bench_faces.synthesis.sampling import FPS, Split, identity_of, look_of, motion_of

__all__ = ["LENGTH", "SIZE", "draw_long_clip", "generation_suite", "prompt_1", "prompt_5"]

VERSION: Final = "1"
"""Bump when the pairs or the pixels change."""
LENGTH, SIZE = 50, 128
"""Frames of a clip (twice those of training clips, to show whether motion drifts), and its side in pixels."""
DRAW: Final = "bcd_bench_faces.suites.heads_generate:draw_long_clip"


def draw_long_clip(split: Split, person: int, motion: int, frames: int) -> Clip:
    """The first `frames` frames of a clip of `LENGTH` frames, rendered or read from the cache."""

    def draw() -> object:
        from bcd_bench_faces.synthesis.renderer import Actor

        move = motion_of(split, motion, LENGTH)
        actor = Actor(identity_of(split, person), look_of(split, person))
        return actor.frames(move.expression, move.rotation, move.translation, SIZE)

    name = f"{split}-{person:05d}-{motion:05d}-{LENGTH}"
    clip = kept_clip(name, SIZE, draw, LENGTH)  # type: ignore[arg-type]
    return Clip(clip.frames[:frames], FPS, f"{name}-{frames}")


def generation_suite(prompt: int) -> Suite:
    """60 pairs: content is the first `prompt` frames of a test clip of 50, driving clip and target are the whole
    clip."""
    pairs = []
    for person in range(PEOPLE):
        labels: dict[str, str | int] = {"subject": f"test-{person:04d}", "split": "test", "person": person}
        labels["motion"] = person

        def reference(frames: int, *, person: int = person, labels: Mapping[str, str | int] = labels) -> ClipRef:
            arguments = {"split": "test", "person": person, "motion": person, "frames": frames}
            return ClipRef(f"test-{person:04d}-{frames}", Generated(DRAW, arguments), labels, frames=frames)

        real = reference(LENGTH)
        pairs.append(Pair(f"{person:03d}", reference(prompt), real, real))
    given = "the first frame" if prompt == 1 else f"the first {prompt} frames"
    return Suite(
        "heads-generate" if prompt == 1 else f"heads-generate-prompt{prompt}",
        VERSION,
        tuple(pairs),
        (SIZE, SIZE),
        FPS,
        ("csim", "shape-error", "heads-generation"),
        1,
        f"Continue {given} of rendered talking heads of 60 test people to {LENGTH} frames, {SIZE}x{SIZE}.",
    )


def prompt_1(data: Mapping[str, Path]) -> Suite:
    """`heads-generate`; requires no files."""
    del data
    return generation_suite(1)


def prompt_5(data: Mapping[str, Path]) -> Suite:
    """`heads-generate-prompt5`; requires no files."""
    del data
    return generation_suite(5)
