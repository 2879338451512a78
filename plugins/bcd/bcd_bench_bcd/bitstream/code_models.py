"""Probability models of motion codes, as integer frequencies.

Encoder and decoder have to use the same probabilities to the last bit, so every table is computed in int64: no result
depends on the machine, on the number of threads or on a library's rounding.
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from bcd_bench.types.errors import UsageError

__all__ = [
    "PRECISION",
    "Adaptive",
    "CodeModel",
    "Context",
    "Integers",
    "Static",
    "code_model",
    "exponentials",
    "to_frequencies",
]

Integers: TypeAlias = npt.NDArray[np.int64]

PRECISION = 24
"""Frequencies of a group sum to 2**PRECISION, the resolution of constriction's range coder."""
MAX_WEIGHT = 1 << 38
"""Largest weight that `to_frequencies` accepts: its product with 2**PRECISION fits into int64."""
INCREMENT = 12
"""Weight of one observed code in the adaptive models; unseen codes have a weight of 1."""
BACKOFF = 8
"""Weight of what is expected in the context model, per distinct code that was seen and one more, where an
observed code has `INCREMENT`. Chosen with it on the driving clips of heads-cross-128 and sprites-procedural."""
HALVE_AT = 1 << 30
"""Total weight per group at which adaptive counts are halved."""


class CodeModel(Protocol):
    """Probabilities of the codes of the next frame, given the frames so far."""

    constant: bool
    """Whether the frequencies are the same for all frames."""

    def frequencies(self) -> Integers:
        """Frequencies int64 [N, J] of the next frame's codes, positive, with a sum of 2**PRECISION per group."""
        ...

    def update(self, codes: Integers) -> None:
        """Take note of the codes int64 [N] of that frame."""
        ...

    def start_clip(self) -> None:
        """Forget the previous frame: the next frame starts another clip. What was learned about codes remains."""
        ...


def to_frequencies(weights: Integers) -> Integers:
    """Non-negative weights int64 [N, J], at most 2**38, as positive frequencies int64 [N, J] that sum to 2**PRECISION.

    Proportional to the weights, rounded down, plus one; what is missing goes to the first entry of the largest weight.
    """
    entries = weights.shape[1]
    total = np.maximum(weights.sum(1, keepdims=True), 1)
    frequencies: Integers = weights * ((1 << PRECISION) - entries) // total + 1
    rows = np.arange(len(weights))
    frequencies[rows, weights.argmax(1)] += (1 << PRECISION) - frequencies.sum(1)
    return frequencies


def exponentials(steps: Integers) -> Integers:
    """exp(-steps / 64) in units of 2**-32, int64, for non-negative integers: looked up in an integer table."""
    looked_up: Integers = EXPONENTIALS[np.minimum(steps, len(EXPONENTIALS) - 1)]
    return looked_up


def _exponentials() -> Integers:
    # exp(-1/64) by its series in exact fractions, then powers in fixed point: the same integers on every machine
    ratio = sum(Fraction(-1, 64) ** k / factorial(k) for k in range(16))
    factor, value, table = int(ratio * (1 << 62)), 1 << 62, []
    while value >> 30:
        table.append(value >> 30)
        value = value * factor >> 62
    return np.array([*table, 0], np.int64)


EXPONENTIALS = _exponentials()


class Static:
    """Fixed frequencies, proportional to weights int64 [N, J]."""

    constant = True

    def __init__(self, weights: Integers) -> None:
        self._table = to_frequencies(weights)

    @classmethod
    def from_counts(cls, counts: Integers) -> Static:
        """From counts int64 [N, J] of training codes. Codes that did not occur have a small probability.

        Raises `UsageError` for anything else.
        """
        if counts.ndim != 2 or counts.min() < 0:
            raise UsageError(f"counts of motion codes must be non-negative [N, J], not {list(counts.shape)}")
        return cls(np.minimum(counts.astype(np.int64), MAX_WEIGHT // INCREMENT - 1) * INCREMENT + 1)

    def frequencies(self) -> Integers:
        return self._table

    def update(self, codes: Integers) -> None:
        del codes

    def start_clip(self) -> None:
        pass


class Adaptive:
    """Frequencies from the codes so far (order 0), uniform at first. Needs no file."""

    constant = False

    def __init__(self, groups: int, entries: int) -> None:
        self._weights = np.ones((groups, entries), np.int64)
        self._rows = np.arange(groups)
        self._total = entries

    def frequencies(self) -> Integers:
        return to_frequencies(self._weights)

    def update(self, codes: Integers) -> None:
        self._weights[self._rows, codes] += INCREMENT
        self._total += INCREMENT
        if self._total >= HALVE_AT:
            self._weights = (self._weights + 1) // 2
            self._total = int(self._weights.sum(1).max())

    def start_clip(self) -> None:
        pass


class Context:
    """Frequencies from the codes that followed the same code of the same group.

    They are mixed with what is expected before a code has been seen: that it stays, with the share of codes that have
    stayed so far in all groups, or else changes to any code, with the frequencies of `Adaptive`. The more distinct
    codes have followed, the more it counts (Witten and Bell 1991). A clip's first frame has a context of its own.
    """

    constant = False

    def __init__(self, groups: int, entries: int) -> None:
        self._order0 = Adaptive(groups, entries)
        self._weights = np.zeros((groups, entries + 1, entries), np.int64)
        self._rows = np.arange(groups)
        self._start = np.full(groups, entries)
        self._previous = self._start
        self._stayed, self._changed = 1, 1

    def frequencies(self) -> Integers:
        seen = self._weights[self._rows, self._previous]
        expected = self._order0.frequencies()
        if self._previous is not self._start:
            stays = (self._stayed << PRECISION) // (self._stayed + self._changed)
            expected = expected * ((1 << PRECISION) - stays) >> PRECISION
            expected[self._rows, self._previous] += stays
        weight = BACKOFF * (1 + (seen > 0).sum(1, keepdims=True))
        # the expected frequencies sum to about 2**24; with 12 bits less, all products below fit into int64
        return to_frequencies((seen << (PRECISION - 12)) + (expected * weight >> 12))

    def update(self, codes: Integers) -> None:
        self._order0.update(codes)
        if self._previous is not self._start:
            stayed = int((codes == self._previous).sum())
            self._stayed += stayed
            self._changed += len(codes) - stayed
        self._weights[self._rows, self._previous, codes] += INCREMENT
        if self._weights[self._rows, self._previous, codes].max() >= HALVE_AT >> 5:
            self._weights //= 2
        self._previous = codes

    def start_clip(self) -> None:
        self._previous = self._start


def code_model(name: str, groups: int, entries: int, counts: Integers | None = None) -> CodeModel:
    """The model "static" (needs `counts` int64 [N, J]), "adaptive" or "context".

    Raises `UsageError` for another name, or counts that are missing or of another shape.
    """
    if name == "adaptive":
        return Adaptive(groups, entries)
    if name == "context":
        return Context(groups, entries)
    if name != "static":
        raise UsageError(f"unknown probability model {name!r}: one of static, adaptive, context, autoregressive")
    if counts is None:
        raise UsageError(
            "the static model needs the code counts of a motion-model file",
            hint="--motion-model FILE, or --model adaptive",
        )
    if counts.shape != (groups, entries):
        shape = list(counts.shape)
        raise UsageError(f"the motion model has counts of {shape} codes, the weights have {[groups, entries]}")
    return Static.from_counts(counts)
