"""Exact test whether the ground-truth target is the nearest of all 11,664 clips, fast enough for every output.

A clip x is stored as its projection on a few orthonormal directions and the length of the residual. For an output y,
Cauchy-Schwarz bounds the product of the two residuals, and thereby the squared distance, from below and from above.
Only clips that the bounds do not decide are rendered and compared pixel by pixel, which is seldom more than a handful.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import cache_folder
from bcd_bench.io.npz import load_tree, save_tree
from bcd_bench_sprites.factors import CHARACTERS, MOTIONS
from bcd_bench_sprites.layers import LayeredCharacters

__all__ = ["NearestClip"]

_DIRECTIONS = 192
_SAMPLE = 60
"""Characters per motion from which the directions are computed; the choice affects the speed, never the result."""
_VERSION = 2
_ROUNDING = 1e-4
"""Relative tolerance for float32 in the bounds, a few hundred times what is needed."""
_DRAWN_AT_ONCE = 16

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Frames = npt.NDArray[np.uint8]


class NearestClip:
    """Nearest clip by squared pixel distance over the clip, among all characters and motions (train and test).

    The projections take some seconds to compute; they are cached in the cache folder, under the hash of the pixels.
    With `cache=False` they are recomputed and not cached.
    """

    def __init__(self, characters: LayeredCharacters, *, cache: bool = True) -> None:
        self.characters = characters
        self._cache = cache

    def target_is_nearest(
        self, outputs: Frames, characters: npt.NDArray[np.int64], motions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Whether no clip is closer to an output than its target; a tie counts as nearest.

        `outputs` are uint8[B, 8, 64, 64, 3]; the target of each is given by character and motion. Returns bool[B].
        """
        tables = self._tables
        pixels = self._on_support(outputs)
        to_target = _squared(pixels, self._on_support(self.characters.clips(characters, motions)))
        centred = pixels - tables["mean"]
        lengths = _squared(centred)
        shadow = centred @ tables["basis"]
        residual = np.sqrt(np.maximum(lengths - _squared(shadow), 0))[:, None]
        total = lengths[:, None] + tables["lengths"]
        room = _ROUNDING * total
        middle = total - 2 * (shadow @ tables["shadows"].T)
        slack = 2 * residual * tables["rests"]
        beaten = (middle + slack + room < to_target[:, None]).any(1)
        nearest: npt.NDArray[np.bool_] = ~beaten
        for row in np.flatnonzero(nearest):
            least = middle[row] - slack[row] - room[row]
            open_ = np.flatnonzero(least < to_target[row])
            nearest[row] = not self._any_nearer(pixels[row], open_[np.argsort(least[open_])], to_target[row])
        return nearest

    def _any_nearer(self, pixels: Floats, clips: npt.NDArray[np.int64], limit: float) -> bool:
        for start in range(0, len(clips), _DRAWN_AT_ONCE):
            part = clips[start : start + _DRAWN_AT_ONCE]
            rendered = self._on_support(self.characters.clips(part // MOTIONS, part % MOTIONS))
            if (_squared(rendered, pixels) < limit).any():
                return True
        return False

    def _on_support(self, clips: Frames) -> Floats:
        """The pixels that are not black in all clips; the others add the same to every distance."""
        return clips.reshape(len(clips), -1).take(self._tables["support"], axis=1).astype(np.float32)

    @cached_property
    def _tables(self) -> dict[str, npt.NDArray[Any]]:
        """support int64[S], mean float32[S], basis float32[S, K], and for every clip (character-major) shadows
        float32[11664, K], rests and lengths float64[11664], all relative to the mean."""
        if not self._cache:
            return self._make()
        path = self.cache_path
        with contextlib.suppress(OSError, ValueError):  # missing or damaged: recompute
            tables: dict[str, npt.NDArray[Any]] = load_tree(path)
            return tables
        tables = self._make()
        with contextlib.suppress(OSError):  # only a cache: without it they are recomputed next time
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tree(path, tables)
        return tables

    @cached_property
    def cache_path(self) -> Path:
        """Path of the cached projections."""
        return cache_folder() / "sprites" / f"nearest-{_VERSION}-{self.characters.fingerprint[:16]}.npz"

    def _make(self) -> dict[str, npt.NDArray[Any]]:
        support = np.flatnonzero(self.characters.support())
        rng = np.random.RandomState(0)
        sample = np.concatenate([rng.choice(CHARACTERS, _SAMPLE, replace=False) for _ in range(MOTIONS)])
        clips = self.characters.clips(sample, np.repeat(np.arange(MOTIONS), _SAMPLE))
        pixels = clips.reshape(len(clips), -1)[:, support].astype(np.float32)
        mean = pixels.mean(0)
        pixels -= mean
        # Principal directions from the small Gram matrix; QR makes them orthonormal, as the bounds require.
        _, vectors = np.linalg.eigh((pixels @ pixels.T).astype(np.float64))
        basis = np.linalg.qr(pixels.T @ vectors[:, : -_DIRECTIONS - 1 : -1].astype(np.float32))[0]
        shadows, rests, lengths = [], [], []
        for start in range(0, CHARACTERS, 24):
            part = np.repeat(np.arange(start, start + 24), MOTIONS)
            rendered = self.characters.clips(part, np.tile(np.arange(MOTIONS), 24))
            centred = rendered.reshape(len(rendered), -1)[:, support].astype(np.float32) - mean
            shadow = centred @ basis
            length = _squared(centred)
            shadows.append(shadow)
            lengths.append(length)
            rests.append(np.sqrt(np.maximum(length - _squared(shadow), 0)))
        return {
            "support": support,
            "mean": mean,
            "basis": np.ascontiguousarray(basis, dtype=np.float32),
            "shadows": np.concatenate(shadows).astype(np.float32),
            "rests": np.concatenate(rests),
            "lengths": np.concatenate(lengths),
        }


def _squared(rows: Floats, others: Floats | None = None) -> Doubles:
    """Squared length of each row, or of its difference to another, summed in double precision: exact for pixels."""
    difference = (rows if others is None else rows - others).astype(np.float64)
    squared: Doubles = np.einsum("bi,bi->b", difference, difference)
    return squared
