"""The training split of a Sprites suite: the first 1,000 characters of the protocol's permutation, 9 motions each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bcd_bench_sprites.characters import SuiteName, open_characters
from bcd_bench_sprites.factors import FPS, MOTIONS, split

__all__ = ["SpritesTrainingClips", "procedural", "sprites"]


class SpritesTrainingClips:
    """9,000 clips, index = 9 * (rank of the character in the training part) + motion."""

    fps = float(FPS)

    def __init__(self, name: SuiteName, art: Path | None = None) -> None:
        self._characters = open_characters(name, art)
        self._subjects = split("train")

    def __len__(self) -> int:
        return len(self._subjects) * MOTIONS

    def clips(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8[B, 8, 64, 64, 3] RGB for B indices in 0..8999."""
        rank, motion = np.divmod(np.asarray(indices), MOTIONS)
        return self._characters.clips(self._subjects[rank], motion)


def sprites(data: Mapping[str, Path] | None = None) -> SpritesTrainingClips:
    """Training clips of `sprites`; the art is the asset `sprites-art`."""
    del data
    return SpritesTrainingClips("sprites")


def procedural(data: Mapping[str, Path] | None = None) -> SpritesTrainingClips:
    """Training clips of `sprites-procedural`; no files needed."""
    del data
    return SpritesTrainingClips("sprites-procedural")
