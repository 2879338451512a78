"""Identity: canonical JSON, hashes that follow content, seeds in range, and run ids that see every part."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bcd_bench
from bcd_bench.assets.hashing import (
    canonical_json,
    code_sha256,
    hash_json,
    hash_json_list,
    sha256_file,
    sha256_path,
    source_sha256,
)
from bcd_bench.run.fingerprint import pair_seed, run_id, run_identity
from bcd_bench.scoring.provenance import _data_sha256
from bcd_bench.types.errors import UsageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)

IDENTITY: dict[str, Any] = {
    "manifest_sha256": "a" * 64,
    "limit": None,
    "method": "m",
    "method_version": "1",
    "config": {"steps": 3},
    "source_sha256": "b" * 64,
    "weights": ["c" * 64],
    "seed": 0,
    "dtype": "float32",
}


@given(JSON)
def test_canonical_json_round_trips_and_ignores_key_order(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == text


def test_canonical_json_is_this_text() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert hash_json({}) == hashlib.sha256(b"{}").hexdigest()
    assert hash_json({}, 7) == hashlib.sha256(b"{}").hexdigest()[:7]


@pytest.mark.parametrize("items", [[], ["a"], [["ä", None], ["b", 1.5], {"z": 1, "a": [2]}]], ids=str)
def test_the_hash_of_a_list_does_not_depend_on_how_it_is_computed(items: list[Any]) -> None:
    assert hash_json_list(iter(items)) == hash_json(items)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"x": {1, 2}}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="not plain JSON"):
        canonical_json(value)


@given(st.integers(), st.text(max_size=20), st.text(max_size=20))
def test_pair_seeds_fit_63_bits_and_differ_between_pairs(seed: int, a: str, b: str) -> None:
    digest = hashlib.sha256(canonical_json([seed, a]).encode()).digest()
    assert pair_seed(seed, a) == int.from_bytes(digest[:8], "big") >> 1
    assert 0 <= pair_seed(seed, a) < 2**63
    assert pair_seed(seed, a) == pair_seed(seed, a)
    assert (pair_seed(seed, a) == pair_seed(seed, b)) == (a == b)
    assert pair_seed(seed, a) != pair_seed(seed + 1, a)


def test_pair_seeds_never_change() -> None:
    digest = hashlib.sha256(b'[0,"p00"]').digest()
    assert pair_seed(0, "p00") == int.from_bytes(digest[:8], "big") // 2


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("manifest_sha256", "d" * 64),
        ("limit", 64),
        ("method", "n"),
        ("method_version", "2"),
        ("config", {"steps": 4}),
        ("source_sha256", "d" * 64),
        ("weights", []),
        ("seed", 1),
        ("dtype", "bfloat16"),
    ],
)
def test_every_part_of_the_identity_changes_the_run_id(part: str, other: Any) -> None:
    before = run_id(run_identity(**IDENTITY))
    assert len(before) == 12
    assert before == run_id(run_identity(**IDENTITY))
    assert run_id(run_identity(**{**IDENTITY, part: other})) != before


def test_hashes_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f" / "a") == hashlib.sha256(b"abc").hexdigest() == sha256_path(tmp_path / "f" / "a")
    before = sha256_path(tmp_path / "f")
    (tmp_path / "f").rename(tmp_path / "g")
    assert sha256_path(tmp_path / "g") == before, "where a folder lies does not matter"
    (tmp_path / "g" / "a").rename(tmp_path / "g" / "b")
    assert sha256_path(tmp_path / "g") != before, "the names in it do"


def test_source_hash_of_a_package_covers_its_python_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "hashed_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    (package / "inner" / "x.py").write_text("x = 1")
    before = source_sha256("hashed_package")
    (package / "notes.txt").write_text("no source")
    assert source_sha256("hashed_package") == before
    (package / "inner" / "x.py").write_text("x = 2")
    assert source_sha256("hashed_package") != before
    with pytest.raises(UsageError, match="no_such_package"):
        source_sha256("no_such_package")


CODE = (
    b"""import os  # system
X = "# no comment"  # a comment

def f(a):
    \'\'\'Docstring \xc3\xa4.\'\'\'
    \'\'\'Another.\'\'\'; y = 1
    return a + X + """
    + b'"""text"""'
    + b"""

class C:
    x: int = 1
    \'\'\'An attribute.
    On two lines.\'\'\'
"""
)


def test_comments_docstrings_and_blank_lines_do_not_count() -> None:
    rewritten = CODE.replace(b"# system", b"# the operating system").replace(b"Docstring \xc3\xa4.", b"Other.")
    rewritten = rewritten.replace(b"On two lines.", b"On\n    three\n    lines.").replace(b"\ndef f", b"\n\n# f\ndef f")
    assert rewritten != CODE
    assert code_sha256(rewritten) == code_sha256(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"y = 1", b"y = 2"), (b'"# no comment"', b'"# no, comment"'), (b"text", b"other"), (b"x: int", b"x: float")],
)
def test_code_and_strings_count(old: bytes, new: bytes) -> None:
    assert old in CODE
    assert code_sha256(CODE.replace(old, new)) != code_sha256(CODE)


def test_code_that_cannot_be_parsed_counts_whole() -> None:
    assert code_sha256(b"def f(:  # a") != code_sha256(b"def f(:  # b")
    assert code_sha256(b"\xff\xfe") != code_sha256(b"\xff")


def test_every_module_has_one_hash_after_its_comments_are_gone() -> None:
    for path in Path(bcd_bench.__file__).parent.rglob("*.py"):
        source = path.read_bytes()
        assert code_sha256(source) == code_sha256(source + b"\n\n# the end\n")
        assert code_sha256(source) != code_sha256(source + b"\nx = 1\n")


def test_data_of_a_package_is_hashed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package_with_data"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    def with_data(text: str) -> str:
        (package / "table.csv").write_text(text)
        return _data_sha256.__wrapped__("package_with_data")

    assert with_data("# metres\n1,2\n") == with_data("# metres\n1,2\n")
    assert with_data("# metres\n1,2\n") != with_data("# feet\n1,2\n")


def test_compiled_code_beside_the_sources_does_not_change_identities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba caches what it compiles in __pycache__ on first use; rows scored before and after must stay comparable."""
    package = tmp_path / "package_with_data"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "table.csv").write_text("a,b\n")
    monkeypatch.syspath_prepend(tmp_path)

    def identity() -> str:
        _data_sha256.cache_clear()
        return _data_sha256(package.name)

    before = identity()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "loop.py311.1.nbc").write_bytes(b"compiled")
    assert identity() == before
    (package / "table.csv").write_text("a,c\n")
    assert identity() != before
    _data_sha256.cache_clear()
