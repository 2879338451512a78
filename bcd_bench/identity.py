"""What makes two runs the same run: canonical JSON, hashes of files and sources, seeds of pairs."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcd_bench.errors import UsageError

__all__ = [
    "IDENTITY_VERSION",
    "canonical_json",
    "hash_json",
    "pair_seed",
    "run_id",
    "run_identity",
    "sha256_file",
    "sha256_path",
    "sha256_sources",
    "source_sha256",
]

IDENTITY_VERSION = 1
"""Raised whenever the meaning of a run changes, so that old and new runs never share a folder."""

RUN_ID_LENGTH = 12
"""Hex digits of a run id: 48 bits, far from a collision among the runs of one method on one suite."""


def canonical_json(obj: Any) -> str:
    """The one JSON text of `obj`: sorted keys, no spaces, UTF-8 kept, no NaN.

    Raises `UsageError` for values that JSON in UTF-8 cannot hold (NaN, infinities, objects, lone surrogates).
    """
    try:
        text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
        return text
    except (TypeError, ValueError) as error:
        raise UsageError(f"not plain JSON: {error}") from error


def hash_json(obj: Any, n: int | None = None) -> str:
    """sha256 of the canonical JSON of `obj` in hex, cut to its first `n` digits where `n` is given."""
    return hashlib.sha256(canonical_json(obj).encode()).hexdigest()[:n]


def sha256_file(path: Path | str) -> str:
    """sha256 of a file's bytes in hex. Raises `OSError` as reading does."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _named_hash(files: Iterable[tuple[str, Path]]) -> str:
    return hash_json({name: sha256_file(path) for name, path in files})


def sha256_path(path: Path | str) -> str:
    """sha256 of a file, or of a folder as the hash over (relative name -> sha256) of all files in it."""
    path = Path(path)
    if path.is_dir():
        return _named_hash((p.relative_to(path).as_posix(), p) for p in sorted(path.rglob("*")) if p.is_file())
    return sha256_file(path)


def sha256_sources(root: Path, files: Iterable[Path]) -> str:
    """One hash over source files, named relative to `root`."""
    return _named_hash((path.relative_to(root).as_posix(), path) for path in sorted(files))


def source_sha256(package: str) -> str:
    """Hash over every `.py` file of an importable package (or of a one-file module), found without importing it.

    Raises `UsageError` where the package has no source files.
    """
    from importlib.util import find_spec

    loaded = sys.modules.get(package)
    spec = loaded.__spec__ if loaded is not None else find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        roots = [Path(place) for place in spec.submodule_search_locations]
        return hash_json([sha256_sources(root, root.rglob("*.py")) for root in roots])
    origin = spec.origin if spec is not None else getattr(loaded, "__file__", None)  # a script has no spec
    if origin is not None and Path(origin).is_file():
        return sha256_sources(Path(origin).parent, [Path(origin)])
    raise UsageError(f"package {package!r} has no source files to hash")


def pair_seed(seed: int, pair_id: str) -> int:
    """The seed of one pair: 63 bits from the run's seed and the pair's id alone, so never negative."""
    digest = hashlib.sha256(canonical_json([seed, pair_id]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


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
) -> dict[str, Any]:
    """Everything that decides what a run produces, as plain JSON. `weights` are sha256 hashes; `extractors` maps the
    extractors whose features the method gets to their identities, and is absent for methods without."""
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
    }


def run_id(identity: Mapping[str, Any]) -> str:
    """The short name of a run: the first 12 hex digits of the hash of its identity."""
    return hash_json(dict(identity), RUN_ID_LENGTH)
