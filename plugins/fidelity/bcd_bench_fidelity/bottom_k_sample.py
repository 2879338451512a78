"""A bounded sample of a stream of vectors: the same whatever the order, the batches and the shards."""

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
    """64 bits of the SHA-256 of each text, uint64[N]: uniform, and the same on every machine."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


@dataclass(frozen=True)
class Sample:
    """The `limit` vectors of least key among all that were seen.

    A key is a hash of where the vector comes from, so the choice is uniform, depends on nothing else, and samples of
    shards merge into the sample of the whole. `keys` uint64[K] ascending, `clusters` uint64[K] (hash of the content
    identity), `rows` float32[K, D], `seen` how many there were.
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
        """With [N] more vectors. Raises `ValueError` where their width is another."""
        if rows.ndim != 2 or rows.shape[1] != self.rows.shape[1]:
            raise ValueError(f"vectors must be [N, {self.rows.shape[1]}], not {list(rows.shape)}")
        if len(self.keys) == self.limit:  # most of a long stream ends here, without a copy
            chosen = keys < self.keys[-1]
            kept = Sample(self.limit, len(keys), keys[chosen], clusters[chosen], rows[chosen])
        else:
            kept = Sample(self.limit, len(keys), keys, clusters, rows)
        return Sample.merge([self, kept])

    @staticmethod
    def merge(parts: Sequence[Sample]) -> Sample:
        """The sample of everything that `parts` (at least one, of one limit) have seen, to the bit."""
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
        """As arrays and numbers, for a state that is stored."""
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
