"""The swap suites: every clip once on either side, every factor changed, the manifest fixed."""

from __future__ import annotations

import numpy as np
import pytest

from bcd_bench import Suite
from bcd_bench_sprites.factors import ATTRIBUTES, split
from bcd_bench_sprites.suite import lpc_suite, partners, procedural_suite, swap_suite, test_clips

MANIFESTS = {
    "sprites": "ad3ae7822016f3eca10be911d2dc3553a708bc382bef22c63af373e7958f82de",
    "sprites-procedural": "26b18882f3dd58919c3e08d43531a1146d6565fde37de04945045462b5bbdaf3",
}


@pytest.fixture(scope="module", params=[lpc_suite, procedural_suite], ids=["lpc", "procedural"])
def suite(request: pytest.FixtureRequest) -> Suite:
    made: Suite = request.param({})
    return made


def test_the_manifest_is_fixed(suite: Suite) -> None:
    assert suite.manifest_sha256 == MANIFESTS[suite.name]
    assert (suite.version, suite.size, suite.fps, suite.default_metrics) == ("1", (64, 64), 25.0, ("sprites-judge",))


def test_every_test_clip_is_content_once_and_motion_once(suite: Suite) -> None:
    assert len(suite.pairs) == 2664
    assert len({pair.id for pair in suite.pairs}) == 2664
    subjects = {f"{character:04d}" for character in split("test")}
    for side in ("content", "motion"):
        clips = [getattr(pair, side) for pair in suite.pairs]
        assert len({clip.id for clip in clips}) == 2664
        assert {clip.labels["subject"] for clip in clips} == subjects


def test_a_swap_changes_every_factor_and_its_target_is_exact(suite: Suite) -> None:
    for pair in suite.pairs:
        content, motion = pair.content.labels, pair.motion.labels
        assert pair.target is not None
        target = pair.target.labels
        assert all(content[name] != motion[name] for name in (*ATTRIBUTES, "motion"))
        assert all(target[name] == content[name] for name in (*ATTRIBUTES, "subject"))
        assert all(target[name] == motion[name] for name in ("motion", "action", "direction"))


def test_the_first_pairs_are_varied(suite: Suite) -> None:
    first = suite.pairs[:64]
    assert len({pair.content.labels["subject"] for pair in first}) == 64
    assert {pair.content.labels["motion"] for pair in first} == set(range(9))
    assert {pair.motion.labels["motion"] for pair in first} == set(range(9))


def test_intervals_are_clustered_by_character(suite: Suite) -> None:
    assert suite.pairs[0].cluster == suite.pairs[296].cluster == "0884"


def test_clips_load_as_labelled(procedural: object) -> None:
    del procedural
    pair = procedural_suite({}).pairs[7]
    assert pair.target is not None
    assert pair.target.load().frames.shape == (8, 64, 64, 3)
    assert pair.target.load().sha256 != pair.content.load().sha256 != pair.motion.load().sha256


def test_the_seed_decides_the_partners() -> None:
    clips = test_clips()
    assert np.array_equal(partners(clips, 1), partners(clips, 1))
    assert not np.array_equal(partners(clips, 1), partners(clips, 2))
    assert swap_suite("sprites", "", seed=1).manifest_sha256 != swap_suite("sprites", "", seed=2).manifest_sha256


@pytest.mark.parametrize("seed", range(5))
def test_partners_are_a_permutation_for_any_seed(seed: int) -> None:
    assert sorted(partners(test_clips(), seed).tolist()) == list(range(2664))


def test_clips_that_cannot_be_swapped_are_said_so() -> None:
    with pytest.raises(ValueError, match="has no partner"):
        partners(np.array([[0, 0], [1, 1]]), 0)
