"""Checks of methods: requirements of `transfer` on shapes, seeds, order and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import resolve_weights
from bcd_bench.run.executor import Work, load_method
from bcd_bench.scoring.features import extractor_assets, needed_extractors
from bcd_bench.testing.synthetic import cut_ref
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair

if TYPE_CHECKING:
    from bcd_bench.plugin.base import Method
    from bcd_bench.testing.check import Subject

__all__ = ["CHECKS"]

SEED = 7


def _fresh(subject: Subject) -> Method:
    """Load the method as in a run, with its default weights for the suite, or without weights if the author's
    configuration selects random weights."""
    spec, store = subject.spec, AssetStore(subject.registry)
    config = {**spec.config, **subject.config.get(spec.name, {})}
    for asset in [*spec.assets, *extractor_assets(subject.registry, spec.extractors)]:
        store.find(asset)
    try:
        seeded = config.get(spec.seeded_by) is not None
        weights = None if seeded else resolve_weights(spec, subject.suite or "*", None, store)
    except UsageError:
        raise AssertionError(
            f"{spec.name} has no default weights for synthetic clips; pass suite= to parametrize_with_checks"
        ) from None
    path = None if weights is None else weights.path
    size = subject.pairs()[0].motion.load().frames.shape[1:3]
    needed = tuple(needed_extractors(subject.registry, spec.extractors))
    return load_method(Work(spec.name, spec.factory, config, path, "cpu", SEED, (size[0], size[1]), needed))


def _transfer(method: Method, pairs: Sequence[Pair]) -> list[Clip | Failed]:
    results = list(method.transfer(pairs, seed=SEED))
    assert len(results) == len(pairs), f"transfer returned {len(results)} outputs for {len(pairs)} pairs"
    for result in results:
        assert isinstance(result, Clip | Failed), f"transfer returned {type(result).__name__}, not Clip or Failed"
        if isinstance(result, Failed):
            assert result.reason.strip(), "Failed needs a reason"
    return results


def _expect_shape(pair: Pair, result: Clip, note: str = "") -> None:
    motion = pair.motion.load()
    assert result.frames.dtype == "uint8", f"{pair.id}: frames are {result.frames.dtype}, not uint8"
    assert result.frames.shape == motion.frames.shape, (
        f"{pair.id}{note}: output has shape {list(result.frames.shape)}, its driving clip {list(motion.frames.shape)}"
    )
    assert 0 < result.fps < float("inf"), f"{pair.id}: frame rate {result.fps}"


def _expect_same(subject: Subject, first: Clip | Failed, second: Clip | Failed, what: str) -> None:
    """Require equal bytes, or equality within the author's tolerance in mean grey levels."""
    import numpy as np

    if isinstance(first, Failed) or isinstance(second, Failed):
        assert type(first) is type(second), f"whether a pair fails depends on {what}"
        return
    assert first.frames.shape == second.frames.shape, f"{what} changes the output's shape"
    difference = float(np.abs(first.frames.astype(np.int16) - second.frames).mean())
    assert difference <= subject.tolerance, (
        f"{what} changes the output by {difference:.4g} grey levels on average (allowed: {subject.tolerance:g}); draw "
        "noise from identity.pair_seed(seed, pair.id) alone, or pass tolerance= if this is rounding"
    )


def outputs_have_shape_and_dtype(subject: Subject) -> None:
    """uint8 RGB frames, one clip per pair, with the size of the driving clip; no failures on ordinary pairs."""
    pairs = subject.pairs()
    for pair, result in zip(pairs, _transfer(_fresh(subject), pairs), strict=True):
        if subject.spec.reference and pair.target is None:
            continue  # an oracle has no output without a target
        assert isinstance(result, Clip), f"{pair.id} failed: {result.reason if isinstance(result, Failed) else result}"
        _expect_shape(pair, result)


def length_equals_the_driver(subject: Subject) -> None:
    """A shorter driving clip yields a shorter output; an unsupported length is a `Failed` with a reason."""
    pairs = []
    for pair in subject.pairs():
        frames = max(1, len(pair.motion.load()) - 3)
        target = None if pair.target is None else cut_ref(pair.target, frames)
        pairs.append(dataclasses.replace(pair, motion=cut_ref(pair.motion, frames), target=target))
    for pair, result in zip(pairs, _transfer(_fresh(subject), pairs), strict=True):
        if isinstance(result, Clip):
            _expect_shape(pair, result, " with a shorter driving clip")


def one_frame_of_content_is_enough(subject: Subject) -> None:
    """A single content frame yields an output with the length of the driving clip, or a `Failed` with a reason."""
    pairs = [dataclasses.replace(pair, content=cut_ref(pair.content, 1)) for pair in subject.pairs()]
    for pair, result in zip(pairs, _transfer(_fresh(subject), pairs), strict=True):
        if isinstance(result, Clip):
            _expect_shape(pair, result, " with one content frame")


def same_seed_gives_same_bytes(subject: Subject) -> None:
    """Loading and calling a method twice yields equal bytes."""
    pairs = subject.pairs()
    first, again = _transfer(_fresh(subject), pairs), _transfer(_fresh(subject), pairs)
    exact = dataclasses.replace(subject, tolerance=0.0)
    for first_result, second_result in zip(first, again, strict=True):
        _expect_same(exact, first_result, second_result, "repeating the call with the same seed")


def order_does_not_matter(subject: Subject) -> None:
    """Reversing the pairs reverses the outputs."""
    pairs, method = subject.pairs(), _fresh(subject)
    forwards = _transfer(method, pairs)
    for result, reversed_result in zip(forwards, reversed(_transfer(method, pairs[::-1])), strict=True):
        _expect_same(subject, result, reversed_result, "the order of pairs")


def batch_mates_do_not_matter(subject: Subject) -> None:
    """A pair yields the same output individually and in a batch."""
    pairs, method = subject.pairs(), _fresh(subject)
    together = _transfer(method, pairs)
    for pair, result in zip(pairs, together, strict=True):
        _expect_same(subject, result, _transfer(method, [pair])[0], "the batch composition")


CHECKS = (
    outputs_have_shape_and_dtype,
    length_equals_the_driver,
    one_frame_of_content_is_enough,
    same_seed_gives_same_bytes,
    order_does_not_matter,
    batch_mates_do_not_matter,
)
