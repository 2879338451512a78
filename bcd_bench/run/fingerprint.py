"""Run fingerprints, run ids and the seeds of pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bcd_bench.assets.hashing import canonical_json, hash_json

__all__ = ["IDENTITY_VERSION", "pair_seed", "pair_seeds", "run_id", "run_identity"]

IDENTITY_VERSION = 1
"""Bump when the meaning of a run changes, so that old and new runs never share a folder."""

RUN_ID_LENGTH = 12
"""Hex digits of a run id: 48 bits, enough to avoid collisions among the runs of one method on one suite."""


def pair_seed(seed: int, pair_id: str) -> int:
    """The seed of one pair: 63 bits (never negative) that depend only on the run's seed and the pair's id."""
    return next(pair_seeds(seed, (pair_id,)))


def pair_seeds(seed: int, pair_ids: Iterable[str]) -> Iterator[int]:
    """`pair_seed` of many pairs: the first 8 bytes of the sha256 of the canonical JSON of [seed, id], halved."""
    head = canonical_json(seed)
    for pair_id in pair_ids:
        digest = hashlib.sha256(f"[{head},{canonical_json(pair_id)}]".encode()).digest()
        yield int.from_bytes(digest[:8], "big") >> 1


def run_identity(
    *,
    manifest_sha256: str,
    limit: int | None,
    method: str,
    method_version: str,
    config: Mapping[str, Any],
    source_sha256: str,
    weights: Sequence[str],
    seed: int,
    dtype: str,
    extractors: Mapping[str, str] | None = None,
    pairs: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The run fingerprint: everything that the outputs of a run depend on, as plain JSON.

    `weights` are sha256 hashes. `extractors` maps the extractors whose features the method receives to their cache
    keys; it is omitted for methods without extractors. `pairs` are the ids of selected pairs, omitted if there is no
    selection."""
    return {
        "identity": IDENTITY_VERSION,
        "manifest_sha256": manifest_sha256,
        "limit": limit,
        "method": {"name": method, "version": method_version, "config": dict(config)},
        "source_sha256": source_sha256,
        "weights": list(weights),
        "seed": seed,
        "dtype": dtype,
        **({"extractors": dict(extractors)} if extractors else {}),
        **({"pairs": list(pairs)} if pairs else {}),
    }


def run_id(identity: Mapping[str, Any]) -> str:
    """The id of a run: the first 12 hex digits of the hash of its fingerprint."""
    return hash_json(dict(identity), RUN_ID_LENGTH)
