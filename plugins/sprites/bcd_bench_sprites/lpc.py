"""The LPC characters, cut from the art folder exactly as in the literature. Art: CC-BY-SA 3.0 / GPL 3.0."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bcd_bench.types.errors import MissingAssetError
from bcd_bench_sprites.factors import ACTIONS, DIRECTIONS, MOTIONS, SIZE, VALUES
from bcd_bench_sprites.layers import LayeredCharacters, tagged

__all__ = ["FIRST_CHARACTER_SHA256", "WHOLE_SET_SHA256", "LpcCharacters"]

FIRST_CHARACTER_SHA256 = "6b29bea11bde0ca9e921407998f788589d364f38d2b75118371f3280a05d286f"
"""Hash of uint8[9, 8, 64, 64, 3]: character 0 in all motions."""
WHOLE_SET_SHA256 = "9a90d76e1172c33b1a9e318a299657cecb9d9d19ddfd0d085e800b796a07a9f3"
"""Hash of uint8[1296, 9, 8, 64, 64, 3], characters in index order."""

_FOLDERS = ("body", "bottomwear", "topwear", "hair")
_TOP = 2
"""Index of topwear among the folders, the only one with translucent pixels; its layer's depth is one more."""
_SHOES = "shoes/1.png"
_SHEET_TILES = (21, 13)
# Sheet row of each action in the directions front, left, right, and the sheet column of each frame: casts and slashes
# have 7 and 6 tiles and repeat some, the walk starts with its last tile and omits the standing one.
_ROWS = {"walk": (10, 9, 11), "spellcard": (2, 1, 3), "slash": (14, 13, 15)}
_COLUMNS = {
    "walk": (8, 1, 2, 3, 4, 5, 6, 7),
    "spellcard": (0, 1, 2, 3, 4, 5, 4, 6),
    "slash": (0, 1, 2, 3, 4, 5, 4, 0),
}


class LpcCharacters(LayeredCharacters):
    """The characters of an art folder (`body/0.png` ... `shoes/1.png`); cutting the sheets takes about half a second.

    Raises `MissingAssetError` if an image is missing, unreadable, or not the one used in the literature.
    """

    def __init__(self, art: Path) -> None:
        sheets = [np.stack([_cut(art / folder / f"{value}.png") for value in range(VALUES)]) for folder in _FOLDERS]
        sheets.append(_cut(art / _SHOES))
        *layers, shoes = (tagged(s[..., :3], s[..., 3] == 255, depth) for depth, s in enumerate(sheets, start=1))
        super().__init__("sprites", layers, shoes)
        self._translucent = _translucent(sheets[_TOP])
        first = self.clips(np.zeros(MOTIONS, np.int64), np.arange(MOTIONS))
        if hashlib.sha256(first.data).hexdigest() != FIRST_CHARACTER_SHA256:
            raise _not_the_art(art)

    def _tables(self) -> list[npt.NDArray[np.generic]]:
        parts = [part for key in sorted(self._translucent) for part in self._translucent[key]]
        return [*super()._tables(), *parts]

    def support(self) -> npt.NDArray[np.bool_]:
        coloured = super().support().reshape(-1, 3)
        for where, _, _ in self._translucent.values():
            coloured[where] = True
        return coloured.reshape(-1)

    def _finish(
        self, packed: npt.NDArray[np.uint32], attributes: npt.NDArray[np.int64], motions: npt.NDArray[np.int64]
    ) -> None:
        # One topwear sheet has a few translucent pixels; they are transparent in its layer and blended here.
        for row, key in enumerate(zip(attributes[:, 2].tolist(), motions.tolist(), strict=True)):
            if key in self._translucent:
                where, rgb, alpha = self._translucent[key]
                clip = packed[row].reshape(-1)
                visible = clip[where] >> 24 <= _TOP  # not covered by hair or shoes
                clip[where[visible]] = _blend(rgb[visible], alpha[visible], clip[where[visible]])


def _cut(sheet: Path) -> npt.NDArray[np.uint8]:
    """uint8[9, 8, 64, 64, 4]: the tiles of one RGBA sheet, by motion and frame."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(sheet) as image:
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, UnidentifiedImageError) as error:
        raise _not_the_art(sheet.parent.parent, f"{sheet.parent.name}/{sheet.name} cannot be read ({error})") from error
    rows, columns = _SHEET_TILES
    if pixels.shape[:2] != (rows * SIZE, columns * SIZE):
        raise _not_the_art(
            sheet.parent.parent, f"{sheet.parent.name}/{sheet.name} is not {columns} x {rows} tiles of 64 pixels"
        )
    tiles = pixels.reshape(rows, SIZE, columns, SIZE, 4).transpose(0, 2, 1, 3, 4)
    return np.stack(
        [tiles[_ROWS[action][way], list(_COLUMNS[action])] for action in ACTIONS for way in range(len(DIRECTIONS))]
    )


Translucent = dict[tuple[int, int], tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]


def _translucent(tiles: npt.NDArray[np.uint8]) -> Translucent:
    """(value, motion) -> flat positions in the clip, RGB and alpha of the pixels that are neither transparent nor
    opaque."""
    translucent: Translucent = {}
    for value in range(VALUES):
        for motion in range(MOTIONS):
            pixels = tiles[value, motion].reshape(-1, 4)
            where = np.flatnonzero(pixels[:, 3] % 255)
            if where.size:
                translucent[value, motion] = (where, pixels[where, :3], pixels[where, 3])
    return translucent


def _blend(
    rgb: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], below: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """Blend translucent RGB over opaque packed pixels, with the fixed-point rounding of the usual alpha compositing."""
    out = np.zeros(len(below), np.uint32)
    weight = alpha.astype(np.uint32) * 128  # 7 fractional bits
    for channel in range(3):
        under = below >> np.uint32(8 * channel) & np.uint32(255)
        total = rgb[:, channel] * weight + under * (np.uint32(255 * 128) - weight) + np.uint32(0x80 << 7)
        out |= (((total >> 8) + total) >> 8 >> 7) << np.uint32(8 * channel)
    return out


def _not_the_art(art: Path, why: str = "its images are not those used in the literature") -> MissingAssetError:
    return MissingAssetError(f"sprites-art: {art.name}: {why}", hint="bcd-bench assets verify")
