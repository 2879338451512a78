"""Sources of the clips of a Sprites suite: one interface for the LPC art and for our procedural characters."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bcd_bench.types.clip import Clip
from bcd_bench_sprites.factors import FPS, motion_name
from bcd_bench_sprites.layers import LayeredCharacters

__all__ = ["ART_ASSET", "Characters", "SuiteName", "draw_clip", "draw_prompt", "open_characters"]

SuiteName = Literal["sprites", "sprites-procedural"]
ART_ASSET = "sprites-art"


class Characters(Protocol):
    """1,296 characters x 9 motions as clips, composited on demand."""

    name: str

    def clip(self, character: int, motion: int) -> npt.NDArray[np.uint8]:
        """uint8[8, 64, 64, 3] RGB of one character (0..1295) doing one motion (0..8)."""

    def clips(self, characters: npt.ArrayLike, motions: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """uint8[B, 8, 64, 64, 3] RGB for B characters and B motions."""


def open_characters(name: SuiteName, art: Path | None = None) -> LayeredCharacters:
    """The characters of a suite, opened once per process.

    `art` is the folder of LPC images for "sprites"; without it the asset `sprites-art` is located and verified. Raises
    `MissingAssetError` if the art is missing or modified, ValueError for an unknown name.
    """
    if name == "sprites-procedural":
        return _procedural()
    if name == "sprites":
        return _lpc(Path(art) if art is not None else _find_art())
    raise ValueError(f"unknown characters {name!r}; choose 'sprites' or 'sprites-procedural'")


def draw_clip(suite: SuiteName, character: int, motion: int) -> Clip:
    """One clip by its factors; called by the `Generated` sources of the suites."""
    frames = open_characters(suite).clip(character, motion)
    return Clip(frames, FPS, f"{character:04d}-{motion_name(motion)}")


def draw_prompt(suite: SuiteName, character: int, motion: int, frames: int) -> Clip:
    """The first `frames` frames of a clip; called by the `Generated` sources of the generation suites."""
    clip = open_characters(suite).clip(character, motion)
    return Clip(clip[:frames], FPS, f"{character:04d}-{motion_name(motion)}-first{frames}")


@lru_cache(maxsize=1)
def _find_art() -> Path:
    from bcd_bench.assets.store import AssetStore
    from bcd_bench.plugin.registry import load_registry

    return AssetStore(load_registry()).find(ART_ASSET)


@lru_cache(maxsize=2)
def _lpc(art: Path) -> LayeredCharacters:
    from bcd_bench_sprites.lpc import LpcCharacters

    return LpcCharacters(art)


@lru_cache(maxsize=1)
def _procedural() -> LayeredCharacters:
    from bcd_bench_sprites.procedural import ProceduralCharacters

    return ProceduralCharacters()
