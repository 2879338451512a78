"""A bounded sample of a stream of vectors that does not depend on order, batches or shards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Sample", "keys_of"]

Keys = npt.NDArray[np.uint64]


def keys_of(texts: Sequence[str]) -> Keys:
    """The first 64 bits of the SHA-256 of each text, uint64[N]: uniform, and the same on every machine."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


@dataclass(frozen=True)
class Sample:
    """The `limit` vectors with the smallest keys of all vectors added so far.

    A key is a hash of a vector's origin, so the choice is uniform, depends on nothing else, and samples of shards merge
    into the sample of the whole. `keys` uint64[K] ascending, `clusters` uint64[K] (hash of the content subject), `rows`
    float32[K, D], `seen` the total number of vectors.
    """

    limit: int
    seen: int
    keys: Keys
    clusters: Keys
    rows: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, limit: int, width: int) -> Sample:
        none = np.zeros(0, np.uint64)
        return cls(limit, 0, none, none, np.zeros((0, width), np.float32))

    def add(self, keys: Keys, clusters: Keys, rows: npt.NDArray[np.float32]) -> Sample:
        """The sample with [N] further vectors added. Raises `ValueError` if their width differs."""
        if rows.ndim != 2 or rows.shape[1] != self.rows.shape[1]:
            raise ValueError(f"vectors must be [N, {self.rows.shape[1]}], not {list(rows.shape)}")
        if len(self.keys) == self.limit:  # most batches of a long stream need no copy beyond this
            smaller = keys < self.keys[-1]
            candidates = Sample(self.limit, len(keys), keys[smaller], clusters[smaller], rows[smaller])
        else:
            candidates = Sample(self.limit, len(keys), keys, clusters, rows)
        return Sample.merge([self, candidates])

    @staticmethod
    def merge(parts: Sequence[Sample]) -> Sample:
        """The sample of everything that `parts` (at least one, with equal limits) have seen, bitwise."""
        keys = np.concatenate([part.keys for part in parts])
        least = np.argsort(keys, kind="stable")[: parts[0].limit]
        return Sample(
            limit=parts[0].limit,
            seen=sum(part.seen for part in parts),
            keys=keys[least],
            clusters=np.concatenate([part.clusters for part in parts])[least],
            rows=np.concatenate([part.rows for part in parts])[least],
        )

    def to_tree(self) -> dict[str, Any]:
        """The sample as arrays and numbers, for a stored state."""
        return {
            "limit": self.limit,
            "seen": self.seen,
            "keys": self.keys,
            "clusters": self.clusters,
            "rows": self.rows,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Sample:
        return cls(int(tree["limit"]), int(tree["seen"]), tree["keys"], tree["clusters"], tree["rows"])
