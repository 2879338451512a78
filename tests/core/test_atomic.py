"""A path to write to that becomes the file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bcd_bench.io import atomic
from bcd_bench.io.atomic import TEMPORARY_SUFFIX, atomic_path


def test_the_path_becomes_the_file_only_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, done, real = tmp_path / "model.pt", [], os.fsync
    target.write_bytes(b"old")
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: (done.append(target.read_bytes()), real(handle)))
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(TEMPORARY_SUFFIX)
        temporary.write_bytes(b"half")
        assert target.read_bytes() == b"old"
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert done == [b"old", b"whole"]  # the bytes are synced before the rename, the folder after it
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    target = tmp_path / "model.pt"
    target.write_bytes(b"old")
    with pytest.raises(error):
        write()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "model.pt"):
        pass
    assert not list(tmp_path.iterdir())
