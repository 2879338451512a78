"""Unigram and Markov models of motion codes: what the autoregressive model is compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Markov", "count_codes"]

Codes = npt.NDArray[np.int64]


def count_codes(codes: npt.ArrayLike, entries: int) -> tuple[Codes, Codes, Codes]:
    """Counts over clips of codes int [M, T, N]: of all frames [N, J], of first frames [N, J], and of a code after a
    code of the same group [N, J (previous), J (next)]."""
    codes = np.asarray(codes, np.int64)
    groups = codes.shape[2]
    counts = np.stack([np.bincount(codes[..., n].ravel(), minlength=entries) for n in range(groups)])
    first = np.stack([np.bincount(codes[:, 0, n], minlength=entries) for n in range(groups)])
    pairs = codes[:, :-1] * entries + codes[:, 1:]
    follow = np.stack([np.bincount(pairs[..., n].ravel(), minlength=entries**2) for n in range(groups)])
    return counts, first, follow.reshape(groups, entries, entries)


class Markov:
    """First-order Markov model: every group's code given its previous code, independent of the other groups.

    A transition that was never counted gets the probability of the unigram model, with the weight of one observation;
    the unigram model adds half an observation to every entry.
    """

    def __init__(self, counts: Codes, first: Codes, follow: Codes) -> None:
        smooth = counts + 0.5
        self.unigram: npt.NDArray[np.float64] = smooth / smooth.sum(-1, keepdims=True)
        """Probabilities float64 [N, J]."""
        self.initial = self._blend(first)
        """Probabilities of the first frame, float64 [N, J]."""
        self.transition = (follow + self.unigram[:, None]) / (follow.sum(-1, keepdims=True) + 1.0)
        """Probabilities float64 [N, J (previous), J (next)]."""

    def _blend(self, counts: Codes) -> npt.NDArray[np.float64]:
        blended: npt.NDArray[np.float64] = (counts + self.unigram) / (counts.sum(-1, keepdims=True) + 1.0)
        return blended

    def unigram_bits(self, codes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Ideal code length in bits per frame, float64 [M, T], of codes int [M, T, N] under the unigram model."""
        codes = np.asarray(codes)
        groups = np.arange(codes.shape[2])
        bits: npt.NDArray[np.float64] = -np.log2(self.unigram[groups, codes]).sum(-1)
        return bits

    def bits(self, codes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Ideal code length in bits per frame, float64 [M, T], of codes int [M, T, N]."""
        codes = np.asarray(codes)
        groups = np.arange(codes.shape[2])
        first = -np.log2(self.initial[groups, codes[:, 0]]).sum(-1)
        later = -np.log2(self.transition[groups, codes[:, :-1], codes[:, 1:]]).sum(-1)
        return np.concatenate([first[:, None], later], 1)

    def next_probabilities(self, previous: Codes | None) -> npt.NDArray[np.float64]:
        """Probabilities [N, J] after the codes `previous` int [N], or of a first frame."""
        if previous is None:
            return self.initial
        rows: npt.NDArray[np.float64] = self.transition[np.arange(len(previous)), previous]
        return rows
