"""Decides claims by paired comparisons, and states each decision in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE
from bcd_bench_bcd.ablations.base import Claim
from bcd_bench_bcd.ablations.definitions import ROBUST_FRACTION
from bcd_bench_bcd.ablations.values import Difference, VariantValues, compare

__all__ = ["Verdict", "decide", "verdict_of"]

Decision = Literal["agrees", "disagrees", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The decision on a claim, with the comparison that supports it (None: the variants cannot be compared)."""

    claim: Claim
    decision: Decision
    difference: Difference | None
    reason: str = ""
    """Why the claim is undecided, or the margin of a claim that two variants are nearly equal."""

    @property
    def sentence(self) -> str:
        """One line: the decision, the claim, our numbers with the interval, and the paper's numbers as reported."""
        if self.difference is None:
            ours = self.reason
        else:
            ours = _numbers(self.claim, self.difference) + (f"; {self.reason}" if self.reason else "")
        paper = f"Reported by the paper: {self.claim.paper}." if self.claim.paper else "Not a claim of the paper."
        return f"{self.decision.capitalize()}: {self.claim.text} Ours: {ours}. {paper}"


def decide(claim: Claim, variants: Mapping[str, VariantValues]) -> Verdict:
    """The verdict on a claim from the values of the variants by name."""
    for name in (claim.better, claim.worse):
        if name not in variants or not variants[name].records:
            return Verdict(claim, "undecided", None, f"variant {name} has no results")
    difference = compare(variants[claim.better], variants[claim.worse], claim.columns)
    if difference is None:
        return Verdict(claim, "undecided", None, f"none of {', '.join(claim.columns)} was scored per pair")
    return verdict_of(claim, difference)


def verdict_of(claim: Claim, difference: Difference) -> Verdict:
    """The verdict on a claim from one comparison.

    A claim that one variant is better agrees if the 95 % interval of the difference excludes 0 in that direction, and
    disagrees if it excludes 0 in the other one. A claim that both are nearly equal agrees if the interval lies within
    the margin, and disagrees if it lies outside. If the seeds differ in the sign of a difference that the interval
    says to exist, the claim is undecided: the interval is over pairs, not over trainings.
    """
    interval = difference.paired.interval
    if difference.paired.n_clusters < MIN_CLUSTERS_TO_COMPARE or interval is None:
        few = f"too few subjects for an interval ({difference.paired.n_clusters})"
        return Verdict(claim, "undecided", difference, few)
    sign = 1.0 if difference.higher_is_better else -1.0
    low, high = sorted((sign * interval.low, sign * interval.high))  # positive: `better` is better
    if claim.margin is not None:
        margin = claim.margin.get(difference.column, abs(difference.better) * ROBUST_FRACTION)
        text = f"nearly equal means less than {_with_unit(margin, difference)}"
        if -margin < low and high < margin:
            return Verdict(claim, "agrees", difference, text)
        outside = low >= margin or high <= -margin
        return Verdict(claim, "disagrees" if outside else "undecided", difference, text)
    if low <= 0 <= high:
        return Verdict(claim, "undecided", difference)
    if len({value > 0 for value in difference.by_seed}) > 1:
        return Verdict(claim, "undecided", difference, "the seeds differ in sign")
    return Verdict(claim, "agrees" if low > 0 else "disagrees", difference)


def _numbers(claim: Claim, difference: Difference) -> str:
    interval = difference.paired.interval
    text = (
        f"{difference.column} {_with_unit(difference.better, difference)} for {claim.better} and "
        f"{_with_unit(difference.worse, difference)} for {claim.worse}, difference "
        f"{_signed(difference.paired.difference, difference)}"
    )
    if interval is not None:
        text += f", 95 % interval {_signed(interval.low, difference)} to {_signed(interval.high, difference)}"
    if interval is not None and interval.low == interval.high:
        text += ", without width because the difference is the same on every pair"
    text += f" ({difference.paired.n_pairs} pairs of {difference.paired.n_clusters} subjects"
    if len(difference.by_seed) > 1:
        text += f"; by seed {', '.join(_signed(value, difference) for value in difference.by_seed)}"
    return f"{text})"


def _number(value: float, difference: Difference) -> str:
    return f"{value:.{difference.decimals}f}"


def _signed(value: float, difference: Difference) -> str:
    text = f"{value:+.{difference.decimals}f}"
    return text[1:] if float(text) == 0 else text


def _with_unit(value: float, difference: Difference) -> str:
    return f"{_number(value, difference)} {difference.unit}".rstrip()
