"""The suites `sprites-generate` and `sprites-procedural-generate`: continue the first frames of every test clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.types.clip import ClipRef, Generated
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench_sprites.factors import FPS, SIZE
from bcd_bench_sprites.suite import clip_ref, test_clips

if TYPE_CHECKING:
    from bcd_bench_sprites.characters import SuiteName

__all__ = ["DRAW_PROMPT", "PROMPTS", "VERSION", "generation_suite", "lpc_1", "lpc_3", "procedural_1", "procedural_3"]

VERSION = "1"
"""Bump when the pairs or the pixels change."""
PROMPTS = (1, 3)
"""Frames of the prompt."""
DRAW_PROMPT = "bcd_bench_sprites.characters:draw_prompt"
"""The source of every prompt, called with suite, character, motion and number of frames."""


def generation_suite(name: SuiteName, frames: int) -> Suite:
    """2,664 pairs: content is the first `frames` frames of a test clip, driving clip and target are the whole clip."""
    pairs = []
    for character, motion in test_clips().tolist():
        real = clip_ref(name, character, motion)
        arguments = {"suite": name, "character": character, "motion": motion, "frames": frames}
        prompt = ClipRef(f"{real.id}-first{frames}", Generated(DRAW_PROMPT, arguments), real.labels, frames=frames)
        pairs.append(Pair(real.id, prompt, real, real))
    given = "the first frame" if frames == 1 else f"the first {frames} frames"
    return Suite(
        f"{name}-generate" if frames == 1 else f"{name}-generate-prompt{frames}",
        VERSION,
        tuple(pairs),
        (SIZE, SIZE),
        FPS,
        ("sprites-generation",),
        0,
        f"Continue {given} of each of the 2,664 test clips.",
    )


def _factory(name: SuiteName, frames: int) -> Callable[[Mapping[str, Path]], Suite]:
    def factory(data: Mapping[str, Path]) -> Suite:
        del data
        return generation_suite(name, frames)

    return factory


lpc_1, lpc_3 = (_factory("sprites", frames) for frames in PROMPTS)
procedural_1, procedural_3 = (_factory("sprites-procedural", frames) for frames in PROMPTS)
