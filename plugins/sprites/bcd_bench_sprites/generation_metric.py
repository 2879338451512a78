"""The metric `sprites-generation`: whether generated clips are true motions of the right character."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.clip import Generated
from bcd_bench.types.failed import Failed
from bcd_bench_sprites.factors import ATTRIBUTES, FRAMES, MOTIONS, SIZE
from bcd_bench_sprites.generation_suite import DRAW_PROMPT
from bcd_bench_sprites.metric import psnr

if TYPE_CHECKING:
    from bcd_bench_sprites.characters import SuiteName
    from bcd_bench_sprites.classifier import Judge

__all__ = [
    "NEAR",
    "SpritesGeneration",
    "entropy_bits",
    "frame_distances",
    "near_duplicates",
    "shown_motion",
    "total_variation",
]

NEAR = 1 / 3
"""Exact frames of a character that are closer than this, relative to the median over its pairs of frames, are near
duplicates: 3.5 % of the pairs, such as the first frames of spellcard and slash. BCD's outputs with the real codes do
not distinguish them reliably, and distinguish all others."""
_SHAPE = (FRAMES, SIZE, SIZE, 3)


def _rate(name: str, definition: str, *, headline: bool = True) -> Column:
    return Column(name, "%", True, definition, kind="rate", decimals=2, headline=headline)


class SpritesGeneration(PairMetric):
    """Compares every frame with all frames of the same character, which are known exactly."""

    columns: Sequence[Column] = (
        _rate(
            "valid-motion",
            "Outputs whose frames, in order, are those of one of the 9 motions: of all 72 frames of the character, the "
            "nearest one (squared pixel distance) to every frame is this motion's frame of the same number, or a near "
            f"duplicate of it (an exact frame within {NEAR:.2f} of the median distance between frames).",
        ),
        _rate(
            "judge-agrees",
            "Outputs whose judged motion (9 classes) is the motion whose exact clip of the character is nearest.",
        ),
        _rate(
            "true-motion",
            "Outputs whose nearest exact motion is that of the clip that the prompt is taken from. Less than 100 is "
            "right if the prompt leaves the motion open.",
        ),
        _rate("content-kept", "Outputs whose four judged attributes are all those of the prompt."),
        *(
            _rate(f"kept-{name}", f"Outputs whose judged {name} is that of the prompt.", headline=False)
            for name in ATTRIBUTES
        ),
        Column(
            "generated-psnr",
            "dB",
            True,
            "PSNR against the nearest exact motion of the character, at most 60 dB.",
            decimals=2,
        ),
        Column(
            "motion-entropy",
            "bit",
            None,
            "Entropy of the distribution of nearest exact motions over all outputs; log2 9 = 3.17 for the real clips.",
            "derived",
            3,
        ),
        Column(
            "motion-tv",
            "%",
            False,
            "Total variation distance between the distributions of nearest exact motions and of the real motions over "
            "all outputs: 0 if every motion is generated as often as it is real.",
            "derived",
            2,
        ),
    )

    def __init__(self) -> None:
        self._device = "cpu"
        self._judges: dict[str, Judge] = {}
        self._near: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}

    def load(self, device: str) -> None:
        """Store the device; classifiers are loaded with the first output of their suite."""
        self._device = device

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` for outputs of another shape and for pairs of other suites."""
        return [self._row(item) for item in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """Entropy and total variation of the motions over all rows."""
        shown, real = ([row[name] for row in rows] for name in ("shown", "real"))
        return {"motion-entropy": entropy_bits(shown), "motion-tv": 100 * total_variation(shown, real)}

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        source = item.pair.content.source
        if not isinstance(source, Generated) or source.function != DRAW_PROMPT:
            return Failed("not a pair of a Sprites generation suite")
        if item.output.frames.shape != _SHAPE:
            return Failed(f"the output is {list(item.output.frames.shape)}, not {list(_SHAPE)}")
        from bcd_bench_sprites.characters import open_characters
        from bcd_bench_sprites.classifier import judge_clips

        suite, character = source.arguments["suite"], source.arguments["character"]
        exact = open_characters(suite).clips([character] * MOTIONS, np.arange(MOTIONS))
        distances = frame_distances(item.output.frames, exact)
        shown, valid = shown_motion(distances, self._duplicates(suite, character, exact))
        judged = judge_clips(self._judge(suite), item.output.frames[None])
        kept = {name: int(judged.classes[name][0] == item.pair.content.labels[name]) for name in ATTRIBUTES}
        return {
            "valid-motion": int(valid),
            "judge-agrees": int(judged.classes["motion"][0] == shown),
            "true-motion": int(shown == source.arguments["motion"]),
            "content-kept": int(all(kept.values())),
            **{f"kept-{name}": value for name, value in kept.items()},
            "generated-psnr": round(float(psnr(item.output.frames[None], exact[shown][None])[0]), 4),
            "shown": shown,
            "real": int(source.arguments["motion"]),
        }

    def _duplicates(self, suite: SuiteName, character: int, exact: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        key = (suite, character)
        if key not in self._near:
            self._near[key] = near_duplicates(exact)
        return self._near[key]

    def _judge(self, suite: SuiteName) -> Judge:
        if suite not in self._judges:
            from bcd_bench_sprites.classifier import shipped_judge

            self._judges[suite] = shipped_judge(suite, self._device)
        return self._judges[suite]


def frame_distances(output: npt.NDArray[np.uint8], exact: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Squared pixel distances float64[T, M, U] of the frames of an output uint8[T, H, W, 3] to those of M exact clips
    uint8[M, U, H, W, 3]."""
    rows = output.reshape(len(output), -1).astype(np.float64)
    others = exact.reshape(exact.shape[0] * exact.shape[1], -1).astype(np.float64)
    # exact for integers of this size, so equal frames have equal distances
    squared = (rows**2).sum(1)[:, None] - 2 * rows @ others.T + (others**2).sum(1)
    return np.asarray(squared.reshape(len(output), *exact.shape[:2]), np.float64)


def near_duplicates(exact: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which frames of the clips uint8[M, U, H, W, 3] of a character are equal or nearly so, bool[M * U, M * U]."""
    between = frame_distances(exact.reshape(-1, *exact.shape[2:]), exact).reshape(exact.shape[0] * exact.shape[1], -1)
    typical = np.median(between[np.triu_indices(len(between), 1)])
    near: npt.NDArray[np.bool_] = between <= NEAR * typical
    return near


def shown_motion(distances: npt.NDArray[np.float64], near: npt.NDArray[np.bool_]) -> tuple[int, bool]:
    """The nearest motion as a whole, and whether the frames are in order those of one motion.

    `distances` [T, M, T] are those of an output's frames to all frames of M motions, `near` is from `near_duplicates`.
    """
    frames, motions = distances.shape[:2]
    steps = np.arange(frames)
    nearest = distances.reshape(frames, -1).argmin(1)
    in_order = np.arange(motions)[:, None] * frames + steps  # [M, T], the frames that a motion would show
    valid = bool(near[nearest, in_order].all(1).any())
    return int(distances[steps, :, steps].sum(0).argmin()), valid


def entropy_bits(classes: Sequence[int]) -> float:
    """Entropy in bits of the distribution of `classes`."""
    share = np.bincount(np.asarray(classes)) / len(classes)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def total_variation(one: Sequence[int], other: Sequence[int]) -> float:
    """Half the summed absolute difference, 0 to 1, between the distributions of two lists of classes 0..8."""
    shares = [np.bincount(np.asarray(classes), minlength=MOTIONS) / len(classes) for classes in (one, other)]
    return math.fsum(abs(shares[0] - shares[1])) / 2
