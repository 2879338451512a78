"""The nearest-clip test is exact: it agrees with comparing against all 11,664 clips."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bcd_bench_sprites.layers import LayeredCharacters
from bcd_bench_sprites.nearest import NearestClip

Frames = npt.NDArray[np.uint8]


def _outputs(characters: LayeredCharacters) -> tuple[Frames, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Targets, near misses and far misses of every kind, with the number of the target's character and motion."""
    rng = np.random.default_rng(3)
    wanted, motions = rng.integers(0, 1296, 12), rng.integers(0, 9, 12)
    target = characters.clips(wanted, motions).astype(np.float64)
    other = characters.clips(rng.integers(0, 1296, 12), rng.integers(0, 9, 12)).astype(np.float64)
    sibling = characters.clips(wanted // 216 * 216 + (wanted + 1) % 216, motions).astype(np.float64)
    noise = rng.standard_normal(target.shape)
    made = [
        target[0],
        target[1] + 10 * noise[1],
        target[2] + 70 * noise[2],
        other[3],
        0.7 * target[4] + 0.3 * other[4],
        0.5 * target[5] + 0.5 * other[5],
        0.52 * target[6] + 0.48 * sibling[6],
        0.48 * target[7] + 0.52 * sibling[7],
        128 + 80 * noise[8],
        np.zeros_like(target[9]),
        np.roll(target[10], 1, axis=2),
        target[11] * 0.5,
    ]
    return np.stack(made).round().clip(0, 255).astype(np.uint8), wanted, motions


def _brute_force(
    characters: LayeredCharacters, outputs: Frames, wanted: npt.NDArray[np.int64], motions: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    norms, doubled = np.einsum("ij,ij->i", flat, flat)[:, None], 2 * flat
    least = np.full(len(flat), np.inf)
    for start in range(0, 1296, 4):  # few at a time, so that they stay in the processor's cache
        numbers = np.repeat(np.arange(start, start + 4), 9)
        clips = characters.clips(numbers, np.tile(np.arange(9), 4)).reshape(36, -1).astype(np.float64)
        squared = norms + np.einsum("ij,ij->i", clips, clips) - doubled @ clips.T  # whole numbers below 2**53
        least = np.minimum(least, squared.min(1))
    exact = ((flat - characters.clips(wanted, motions).reshape(len(flat), -1)) ** 2).sum(1)
    answer: npt.NDArray[np.bool_] = exact <= least
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["procedural", "lpc"])
def test_the_answer_is_that_of_brute_force(name: str, request: pytest.FixtureRequest) -> None:
    characters: LayeredCharacters = request.getfixturevalue(name)
    outputs, wanted, motions = _outputs(characters)
    expected = _brute_force(characters, outputs, wanted, motions)
    assert {True, False} == set(expected.tolist())
    found = NearestClip(characters).target_is_nearest(outputs, wanted, motions)
    assert found.tolist() == expected.tolist()


def test_targets_win_and_other_clips_lose(nearest: NearestClip) -> None:
    numbers, motions = np.arange(0, 1296, 40), np.arange(33) % 9
    clips = nearest.characters.clips(numbers, motions)
    assert nearest.target_is_nearest(clips, numbers, motions).all()
    assert not nearest.target_is_nearest(clips, numbers, (motions + 1) % 9).any()
    assert not nearest.target_is_nearest(clips, (numbers + 1) % 1296, motions).any()


def test_a_tie_goes_to_the_target(nearest: NearestClip, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output half way between two clips is equally far from both, and either may be its target."""
    target, twin = nearest.characters.clips([0, 216], [0, 0])
    distance = (target.astype(np.int64) - twin) % 2
    target, twin = (
        clip.astype(np.int64) - distance * (clip > other) for clip, other in ((target, twin), (twin, target))
    )
    half = ((target + twin) // 2).astype(np.uint8)
    drawn = {0: target.astype(np.uint8), 216: twin.astype(np.uint8)}
    real = nearest.characters.clips

    def clips(numbers: npt.NDArray[np.int64], motions: npt.NDArray[np.int64]) -> Frames:
        made = real(numbers, motions)
        for row, (number, motion) in enumerate(zip(numbers, motions, strict=True)):
            if motion == 0 and int(number) in drawn:
                made[row] = drawn[int(number)]
        return made

    monkeypatch.setattr(nearest.characters, "clips", clips)
    for number in (0, 216):
        assert nearest.target_is_nearest(half[None], np.array([number]), np.array([0])).tolist() == [True]


def test_the_batch_does_not_matter(nearest: NearestClip) -> None:
    outputs, wanted, motions = _outputs(nearest.characters)
    together = nearest.target_is_nearest(outputs, wanted, motions)
    for row in range(len(outputs)):
        alone = nearest.target_is_nearest(outputs[row : row + 1], wanted[row : row + 1], motions[row : row + 1])
        assert alone[0] == together[row]


def test_a_damaged_cache_is_made_anew(nearest: NearestClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NearestClip, "_make", lambda _: nearest._tables)
    clip = nearest.characters.clips([3], [3])
    assert nearest.target_is_nearest(clip, np.array([3]), np.array([3])).all()
    whole = nearest.cache_path.read_bytes()
    nearest.cache_path.write_bytes(whole[:1000])
    again = NearestClip(nearest.characters)
    assert again.target_is_nearest(clip, np.array([3]), np.array([3])).all()
    assert nearest.cache_path.stat().st_size == len(whole)
