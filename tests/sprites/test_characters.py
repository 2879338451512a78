"""Both sets of characters: their pixels to the hash, their structure, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from bcd_bench.types.errors import MissingAssetError
from bcd_bench_sprites import lpc as lpc_module
from bcd_bench_sprites import procedural as procedural_module
from bcd_bench_sprites.characters import draw_clip, open_characters
from bcd_bench_sprites.factors import character_index
from bcd_bench_sprites.layers import LayeredCharacters
from bcd_bench_sprites.lpc import LpcCharacters
from bcd_bench_sprites.procedural import ProceduralCharacters


def test_our_characters_are_the_same_pixels_everywhere(procedural: LayeredCharacters) -> None:
    assert procedural.sha256_of_all() == procedural_module.WHOLE_SET_SHA256


def test_drawing_again_gives_the_same(procedural: LayeredCharacters) -> None:
    assert ProceduralCharacters().fingerprint == procedural.fingerprint


def test_lpc_is_the_literature_s_to_the_pixel(lpc: LayeredCharacters) -> None:
    first = lpc.clips([0] * 9, range(9))
    assert hashlib.sha256(first.data).hexdigest() == lpc_module.FIRST_CHARACTER_SHA256
    assert lpc.sha256_of_all() == lpc_module.WHOLE_SET_SHA256


def test_every_character_is_distinct_in_every_motion(procedural: LayeredCharacters) -> None:
    for motion in range(9):
        clips = procedural.clips(range(1296), [motion] * 1296)
        assert len({hashlib.sha256(clip.data).digest() for clip in clips}) == 1296


def test_every_pose_is_distinct(procedural: LayeredCharacters) -> None:
    frames = procedural.clips([0] * 9, range(9)).reshape(72, -1)
    assert len({frame.tobytes() for frame in frames}) == 72


def test_left_is_the_mirror_of_right(procedural: LayeredCharacters) -> None:
    for action in range(3):
        left, right = procedural.clips([777, 777], [3 * action + 1, 3 * action + 2])
        assert np.array_equal(left, right[:, :, ::-1])


@pytest.mark.parametrize("attribute", range(4))
def test_an_attribute_shows_in_every_frame(procedural: LayeredCharacters, attribute: int) -> None:
    for value in range(1, 6):
        values = [0, 0, 0, 0]
        values[attribute] = value
        changed = procedural.clips([character_index(*values)] * 9, range(9))
        differs = (changed != procedural.clips([0] * 9, range(9))).any(-1).sum((-1, -2))
        assert differs.min() >= 20


def test_no_hair_is_cut_off(procedural: LayeredCharacters) -> None:
    clips = procedural.clips(np.arange(1296).repeat(9)[::7], np.tile(np.arange(9), 1296)[::7])
    assert clips[:, :, 0].max() == 0


@pytest.mark.parametrize("name", ["procedural", "lpc"])
def test_a_batch_is_its_clips(name: str, request: pytest.FixtureRequest) -> None:
    characters: LayeredCharacters = request.getfixturevalue(name)
    numbers, motions = [5, 1295, 700, 18 + 3], [8, 0, 4, 6]
    batch = characters.clips(numbers, motions)
    assert batch.shape == (4, 8, 64, 64, 3)
    assert batch.dtype == np.uint8
    for clip, number, motion in zip(batch, numbers, motions, strict=True):
        assert np.array_equal(clip, characters.clip(number, motion))


@pytest.mark.parametrize("name", ["procedural", "lpc"])
def test_the_support_covers_every_pixel_that_is_ever_seen(name: str, request: pytest.FixtureRequest) -> None:
    characters: LayeredCharacters = request.getfixturevalue(name)
    outside = ~characters.support()
    for motion in range(9):
        clips = characters.clips(range(motion, 1296, 5), [motion] * len(range(motion, 1296, 5)))
        assert clips.reshape(len(clips), -1)[:, outside].max() == 0


def test_numbers_that_do_not_exist_are_refused(procedural: LayeredCharacters) -> None:
    for number, motion in ((1296, 0), (-1, 0), (0, 9), (0, -1)):
        with pytest.raises(IndexError):
            procedural.clip(number, motion)
    with pytest.raises(ValueError, match="equal length"):
        procedural.clips([0, 1], [0])


def test_draw_clip_is_what_manifests_call(procedural: LayeredCharacters) -> None:
    clip = draw_clip("sprites-procedural", 884, 4)
    assert (clip.fps, clip.id) == (25.0, "0884-spellcard-left")
    assert np.array_equal(clip.frames, procedural.clip(884, 4))


def test_another_set_of_characters_does_not_exist() -> None:
    with pytest.raises(ValueError, match="sprites-procedural"):
        open_characters("sprytes")  # type: ignore[arg-type]


def test_a_missing_picture_is_named(art: Path, tmp_path: Path) -> None:
    shutil.copytree(art, tmp_path / "art")
    (tmp_path / "art/topwear/3.png").unlink()
    with pytest.raises(MissingAssetError, match=r"topwear/3\.png"):
        LpcCharacters(tmp_path / "art")


def test_a_damaged_picture_is_named(art: Path, tmp_path: Path) -> None:
    shutil.copytree(art, tmp_path / "art")
    (tmp_path / "art/hair/0.png").write_bytes((art / "hair/0.png").read_bytes()[:700])
    with pytest.raises(MissingAssetError, match=r"hair/0\.png"):
        LpcCharacters(tmp_path / "art")


def test_an_altered_picture_is_refused(art: Path, tmp_path: Path) -> None:
    shutil.copytree(art, tmp_path / "art")
    shutil.copy(art / "hair/1.png", tmp_path / "art/hair/0.png")
    with pytest.raises(MissingAssetError, match="not those used in the literature"):
        LpcCharacters(tmp_path / "art")
