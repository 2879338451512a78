"""Fixtures for the Sprites tests: a cache of their own, the art where it is to be had, and both sets of characters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bcd_bench_sprites.characters import open_characters
from bcd_bench_sprites.layers import LayeredCharacters
from bcd_bench_sprites.nearest import NearestClip


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCD_BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def art() -> Path:
    for folder in os.environ.get("BCD_BENCH_ASSETS", "").split(os.pathsep):
        found = Path(folder) / "sprites-art"
        if folder and found.is_dir():
            return found
    pytest.skip("the asset sprites-art is not in BCD_BENCH_ASSETS")


@pytest.fixture(scope="session")
def procedural() -> LayeredCharacters:
    return open_characters("sprites-procedural")


@pytest.fixture(scope="session")
def lpc(art: Path) -> LayeredCharacters:
    return open_characters("sprites", art)


@pytest.fixture(scope="session")
def nearest(procedural: LayeredCharacters) -> NearestClip:
    """With its tables in the cache of this test session."""
    return NearestClip(procedural)
