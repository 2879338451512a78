"""The metric `sprites-judge`: classifier accuracies and leaks, entropies, and distance to the ground-truth target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.clip import ClipRef, Generated
from bcd_bench.types.failed import Failed
from bcd_bench_sprites.factors import ATTRIBUTES, DIRECTIONS, FRAMES, SIZE
from bcd_bench_sprites.pretrained import SHIPPED
from bcd_bench_sprites.suite import DRAW_CLIP

if TYPE_CHECKING:
    from bcd_bench_sprites.characters import SuiteName
    from bcd_bench_sprites.classifier import Judge
    from bcd_bench_sprites.nearest import NearestClip

__all__ = ["PSNR_CAP", "SpritesJudge", "entropies", "psnr"]

PSNR_CAP = 60.0
"""PSNR in dB of an output that equals its target, and the maximum for any output."""

_SHAPE = (FRAMES, SIZE, SIZE, 3)
_JUDGES = ", ".join(f"{suite} {sha256}" for suite, sha256 in SHIPPED.items())


def _rate(name: str, up: bool, definition: str, *, headline: bool = False) -> Column:
    return Column(name, "%", up, definition, kind="rate", decimals=2, headline=headline)


class SpritesJudge(PairMetric):
    """Accuracies against the requested factors, by the classifier shipped for the suite."""

    columns: Sequence[Column] = (
        _rate(
            "action",
            True,
            "Outputs whose judged motion (9 classes: 3 actions x 3 directions) is that of the motion clip; the "
            f"literature's 'Action'. Judges (sha256 of the weights): {_JUDGES}.",
            headline=True,
        ),
        _rate("action-3way", True, "Outputs whose judged action (walk, spellcard, slash) is that of the motion clip."),
        _rate("direction", True, "Outputs whose judged direction (front, left, right) is that of the motion clip."),
        *(
            _rate(name, True, f"Outputs whose judged {name} (6 classes) is that of the content clip.", headline=True)
            for name in ATTRIBUTES
        ),
        *(
            _rate(f"leak-{name}", False, f"Outputs whose judged {name} is that of the motion clip.")
            for name in ATTRIBUTES
        ),
        _rate(
            "leak-content",
            False,
            "Outputs of which at least one judged attribute (skin, pants, top, hair) is that of the motion clip.",
            headline=True,
        ),
        _rate(
            "leak-motion", False, "Outputs whose judged motion (9 classes) is that of the content clip.", headline=True
        ),
        Column(
            "entropy-y",
            "nats",
            True,
            "H(y) of the judge's mean motion distribution; at most ln 9 = 2.197.",
            "derived",
            3,
            False,
        ),
        Column(
            "entropy-y-given-x",
            "nats",
            False,
            "H(y|x): mean entropy of the judge's motion distributions.",
            "derived",
            3,
            False,
        ),
        Column("inception-score", "", True, "exp(H(y) - H(y|x)) on the motion head; at most 9.", "derived", 3, False),
        Column(
            "exact-psnr",
            "dB",
            True,
            f"PSNR against the exact target, from the mean squared error over the clip, at most {PSNR_CAP:g} dB.",
            decimals=2,
        ),
        _rate(
            "exact-nearest",
            True,
            "Outputs to which no clip of the whole set (1,296 characters x 9 motions) is nearer in squared pixel "
            "distance than the exact target.",
            headline=True,
        ),
    )

    def __init__(self) -> None:
        self._device = "cpu"
        self._judges: dict[str, Judge] = {}
        self._nearest: dict[str, NearestClip] = {}

    def load(self, device: str) -> None:
        """Store the device; classifiers and clip tables are loaded with the first output of their suite."""
        self._device = device

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output: 0/1 for every rate, the PSNR, and the classifier's motion distribution for `derive`.

        Outputs whose shape differs from the suite's clips and pairs of other suites are `Failed`.
        """
        rows: list[Mapping[str, Any] | Failed | None] = [_refusal(item) for item in items]
        by_suite: dict[SuiteName, list[int]] = {}
        for number, (item, refused) in enumerate(zip(items, rows, strict=True)):
            if refused is None:
                by_suite.setdefault(_factors(item.pair.content)["suite"], []).append(number)
        for suite, numbers in by_suite.items():
            for number, row in zip(numbers, self._rows(suite, [items[n] for n in numbers]), strict=True):
                rows[number] = row
        return [row for row in rows if row is not None]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """H(y), H(y|x) and IS from the motion distributions of all rows."""
        marginal, conditional = entropies(np.array([row["motion-distribution"] for row in rows], dtype=np.float64))
        return {
            "entropy-y": marginal,
            "entropy-y-given-x": conditional,
            "inception-score": math.exp(marginal - conditional),
        }

    def _rows(self, suite: SuiteName, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        from bcd_bench_sprites.classifier import judge_clips

        judge, nearest = self._tools(suite)
        outputs = np.stack([item.output.frames for item in items])
        target_factors = [_factors(item.pair.target) for item in items if item.pair.target is not None]
        characters = np.array([factors["character"] for factors in target_factors], np.int64)
        motions = np.array([factors["motion"] for factors in target_factors], np.int64)
        judged = judge_clips(judge, outputs)
        quality = psnr(outputs, nearest.characters.clips(characters, motions))
        is_nearest = nearest.target_is_nearest(outputs, characters, motions)
        rows: list[Mapping[str, Any]] = []
        for number, item in enumerate(items):
            predicted = {head: int(classes[number]) for head, classes in judged.classes.items()}
            row = _compare(predicted, item.pair.content.labels, item.pair.motion.labels)
            row["exact-psnr"] = round(float(quality[number]), 4)
            row["exact-nearest"] = int(is_nearest[number])
            row["judged"] = predicted
            row["motion-distribution"] = [round(float(p), 6) for p in judged.motion_probabilities[number]]
            rows.append(row)
        return rows

    def _tools(self, suite: SuiteName) -> tuple[Judge, NearestClip]:
        if suite not in self._judges:
            from bcd_bench_sprites.characters import open_characters
            from bcd_bench_sprites.classifier import shipped_judge
            from bcd_bench_sprites.nearest import NearestClip

            self._nearest[suite] = NearestClip(open_characters(suite))
            self._judges[suite] = shipped_judge(suite, self._device)
        return self._judges[suite], self._nearest[suite]


def psnr(outputs: npt.NDArray[np.uint8], targets: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """10 log10(255^2 / MSE) in dB, the MSE over a whole clip, at most `PSNR_CAP`; float64[B] for uint8[B, ...]."""
    difference = (outputs.astype(np.int16) - targets).reshape(len(outputs), -1).astype(np.float64)
    error = np.einsum("bi,bi->b", difference, difference) / difference.shape[1]
    with np.errstate(divide="ignore"):
        decibels: npt.NDArray[np.float64] = np.minimum(10 * np.log10(255.0**2 / error), PSNR_CAP)
    return decibels


def entropies(distributions: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(H(y), H(y|x)) in nats of distributions float64[N, classes]: entropy of their mean, and mean of their
    entropies."""

    def entropy(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        nats: npt.NDArray[np.float64] = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
        return nats

    return float(entropy(distributions.mean(0))), float(entropy(distributions).mean())


def _compare(seen: Mapping[str, int], content: Mapping[str, Any], driver: Mapping[str, Any]) -> dict[str, Any]:
    ways = len(DIRECTIONS)
    leaks = {name: int(seen[name] == driver[name]) for name in ATTRIBUTES}
    return {
        "action": int(seen["motion"] == driver["motion"]),
        "action-3way": int(seen["motion"] // ways == driver["motion"] // ways),
        "direction": int(seen["motion"] % ways == driver["motion"] % ways),
        **{name: int(seen[name] == content[name]) for name in ATTRIBUTES},
        **{f"leak-{name}": leak for name, leak in leaks.items()},
        "leak-content": max(leaks.values()),
        "leak-motion": int(seen["motion"] == content["motion"]),
    }


def _factors(clip: ClipRef) -> Mapping[str, Any]:
    """suite, character and motion of a Sprites clip; empty for any other clip."""
    source = clip.source
    return source.arguments if isinstance(source, Generated) and source.function == DRAW_CLIP else {}


def _refusal(item: Scored) -> Failed | None:
    if item.pair.target is None or _factors(item.pair.content).get("suite") not in SHIPPED:
        return Failed("not a pair of a Sprites suite")
    if item.output.frames.shape != _SHAPE:
        return Failed(f"the output is {list(item.output.frames.shape)}, not {list(_SHAPE)}")
    return None
