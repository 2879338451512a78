"""Hashes of JSON values, files, folders and source code."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bcd_bench.types.errors import UsageError

__all__ = [
    "canonical_json",
    "hash_json",
    "hash_json_list",
    "sha256_file",
    "sha256_files",
    "sha256_path",
    "sha256_sources",
    "source_sha256",
]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_BEGIN = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
"""Tokens after which a statement begins."""


def canonical_json(obj: Any) -> str:
    """Canonical JSON text of `obj`: sorted keys, no spaces, UTF-8 kept, no NaN.

    Raises `UsageError` for values that JSON in UTF-8 cannot represent (NaN, infinities, objects, lone surrogates).
    """
    try:
        text = _CANONICAL.encode(obj)
        text.encode()
        return text
    except (TypeError, ValueError) as error:
        raise UsageError(f"not plain JSON: {error}") from error


def hash_json(obj: Any, n: int | None = None) -> str:
    """SHA-256 of the canonical JSON of `obj` in hex, truncated to the first `n` digits if `n` is given."""
    return hashlib.sha256(canonical_json(obj).encode()).hexdigest()[:n]


def hash_json_list(items: Iterable[Any]) -> str:
    """As `hash_json` of a list of these items, without the whole text in memory."""
    digest = hashlib.sha256(b"[")
    for number, item in enumerate(items):
        digest.update(("," if number else "").encode() + canonical_json(item).encode())
    digest.update(b"]")
    return digest.hexdigest()


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes in hex. Raises `OSError` if the file cannot be read."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_files(root: Path, files: Iterable[Path]) -> str:
    """One hash over the bytes of files, named relative to `root`."""
    return hash_json({path.relative_to(root).as_posix(): sha256_file(path) for path in sorted(files)})


def sha256_path(path: Path | str) -> str:
    """SHA-256 of a file, or of a folder: the hash over (relative name -> sha256) of all its files."""
    path = Path(path)
    if path.is_dir():
        return sha256_files(path, (file for file in path.rglob("*") if file.is_file()))
    return sha256_file(path)


def sha256_sources(root: Path, files: Iterable[Path]) -> str:
    """One hash over the code of source files, named relative to `root`; comments and docstrings do not count."""
    return hash_json({path.relative_to(root).as_posix(): code_sha256(path.read_bytes()) for path in sorted(files)})


def code_sha256(source: bytes) -> str:
    """sha256 of Python code without comments, docstrings, blank lines and spaces at the ends of lines.

    The remaining text is hashed as it is, so that all Python versions agree. Text that is not Python is hashed whole.
    """
    try:
        return hashlib.sha256(_code(source).encode()).hexdigest()
    except (SyntaxError, ValueError, tokenize.TokenError):
        return hashlib.sha256(source).hexdigest()


def _code(source: bytes) -> str:
    encoding = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
    lines = source.decode(encoding).splitlines()
    cuts: list[tuple[int, int, int, int]] = []
    string: tuple[int, int, int, int] | None = None
    """A string that stands where a statement begins: a docstring if nothing but a comment follows on its line."""
    begins = True
    for kind, _, start, end, _ in tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline):
        if kind == tokenize.COMMENT:
            cuts.append((*start, *end))
        elif kind == tokenize.STRING and begins:
            string, begins = (*start, *end), False
        elif kind in _BEGIN:
            if kind == tokenize.NEWLINE and string is not None:
                cuts.append(string)
            string, begins = None, True
        elif kind != tokenize.NL:
            string, begins = None, False
    for first, left, last, right in sorted(cuts, reverse=True):
        kept = lines[first - 1][:left] + lines[last - 1][right:]
        lines[first - 1 : last] = [kept, *[""] * (last - first)]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def source_sha256(package: str) -> str:
    """Hash over the code of every `.py` file of an importable package (or of a one-file module), without importing it.

    Raises `UsageError` if the package has no source files.
    """
    from importlib.util import find_spec

    loaded = sys.modules.get(package)
    spec = loaded.__spec__ if loaded is not None else find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        roots = [Path(folder) for folder in spec.submodule_search_locations]
        return hash_json([sha256_sources(root, root.rglob("*.py")) for root in roots])
    origin = spec.origin if spec is not None else getattr(loaded, "__file__", None)  # a script has no spec
    if origin is not None and Path(origin).is_file():
        return sha256_sources(Path(origin).parent, [Path(origin)])
    raise UsageError(f"package {package!r} has no source files to hash")
