"""Checks of suites: a reproducible manifest, and clips that match it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bcd_bench.plugin.suites import SAFE_NAME, load_suite

if TYPE_CHECKING:
    from bcd_bench.testing.check import Subject
    from bcd_bench.types.suite import Suite

__all__ = ["CHECKS"]


def _built(subject: Subject) -> Suite:
    if subject.spec.data:
        pytest.skip(f"suite {subject.spec.name} needs --data {', '.join(subject.spec.data)}")
    return load_suite(subject.registry, subject.spec.name)


def manifest_is_the_same_every_time(subject: Subject) -> None:
    """Building a suite twice yields the same hash; its name and version match the spec."""
    first, again = _built(subject), _built(subject)
    assert first.manifest_sha256 == again.manifest_sha256, "the manifest hash differs between builds"
    assert (first.name, first.version) == (subject.spec.name, subject.spec.version)


def pair_ids_are_safe_and_unique(subject: Subject) -> None:
    """Pair ids are unique and valid as file names."""
    ids = [pair.id for pair in _built(subject).pairs]
    assert ids, "a suite has at least one pair"
    assert len({name.casefold() for name in ids}) == len(ids), "pair ids must be unique, ignoring case"
    for name in ids:
        assert SAFE_NAME.fullmatch(name), f"pair id {name!r} is not a safe file name"


def clips_are_as_promised(subject: Subject) -> None:
    """Clips have the size of the suite; a target is as long as its driving clip; declared lengths are correct."""
    suite = _built(subject)
    for index in {0, len(suite.pairs) // 2, len(suite.pairs) - 1}:
        pair = suite.pairs[index]
        motion = pair.motion.load()
        for ref in (pair.content, pair.motion, *([pair.target] if pair.target else [])):
            clip = ref.load()
            assert clip.frames.shape[1:3] == tuple(suite.size), (
                f"{ref.id} is {clip.frames.shape[1:3]}, not {suite.size}"
            )
            assert ref.frames in (None, len(clip)), f"{ref.id} has {len(clip)} frames, not {ref.frames}"
        if pair.target is not None:
            assert len(pair.target.load()) == len(motion), (
                f"the target of {pair.id} differs in length from its driving clip"
            )


def default_metrics_exist(subject: Subject) -> None:
    """The default metrics are installed and suitable for the suite."""
    from bcd_bench.scoring.score import check_metrics

    assert check_metrics(subject.registry, subject.spec.name, _built(subject).default_metrics), "no default metrics"


CHECKS = (
    manifest_is_the_same_every_time,
    pair_ids_are_safe_and_unique,
    clips_are_as_promised,
    default_metrics_exist,
)
