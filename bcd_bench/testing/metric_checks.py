"""Checks of metrics: documented columns, JSON-safe rows, order independence, exact merging of shards."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bcd_bench.assets.hashing import canonical_json
from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.scoring.features import BatchFeatures, FeatureStore
from bcd_bench.statistics.aggregate import unnamed_frames, usable
from bcd_bench.testing.synthetic import blank, half_blank, still_pair
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair

if TYPE_CHECKING:
    from bcd_bench.testing.check import Subject

__all__ = ["CHECKS"]

ROUNDING = 1e-5
"""Relative difference of a row allowed for rounding in batched float arithmetic."""
FEWER_FRAMES = 0.02
"""Relative difference allowed between an estimate from all frames of a static clip and one from half of them."""


def _loaded(subject: Subject) -> Any:
    store = AssetStore(subject.registry)
    for asset in subject.spec.assets:
        store.find(asset)
    metric = load_factory(subject.spec.factory)()
    metric.load("cpu")
    return metric


def _items(subject: Subject, pairs: Sequence[Pair], outputs: Sequence[Clip], folder: Path) -> list[Scored]:
    features = BatchFeatures(FeatureStore(subject.registry, device="cpu", root=folder), pairs, outputs)
    return [
        Scored(pair, output, features.of(index, subject.spec.extractors))
        for index, (pair, output) in enumerate(zip(pairs, outputs, strict=True))
    ]


def _scored_pairs(subject: Subject) -> tuple[list[Pair], list[Clip]]:
    """Pairs with a plausible output: the target, or the driving clip if there is none."""
    pairs = subject.pairs()
    return pairs, [(pair.target or pair.motion).load() for pair in pairs]


def _score(subject: Subject, metric: Any, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
    rows = list(metric.score(items))
    assert len(rows) == len(items), f"score returned {len(rows)} rows for {len(items)} outputs"
    for row in rows:
        if isinstance(row, Failed):
            assert row.reason.strip(), "Failed needs a reason"
            continue
        assert canonical_json(dict(row)), "rows must be plain JSON values"
        for column in metric.columns:
            if column.kind == "rate":
                assert row.get(column.name) in (0, 1, None), f"rate {column.name} is {row[column.name]!r}, not 0 or 1"
            if column.frames and usable(column, row) is not None:
                share = row.get(column.frames)
                is_share = isinstance(share, int | float) and 0 <= share <= 100
                assert is_share, (
                    f"{column.frames}, which {column.name} rests on, is {share!r}, not a share of 0 to 100 %"
                )
    return rows


def columns_are_documented(subject: Subject) -> None:
    """Columns have unique names, a definition of a sentence, and a kind that fits the metric's level."""
    columns = list(load_factory(subject.spec.factory)().columns)
    assert columns, "a metric has at least one column"
    assert len({column.name for column in columns}) == len(columns), "column names must be unique"
    lost = unnamed_frames(columns)
    assert not lost, f"columns {lost}: their `frames` must name another column of the metric"
    for column in columns:
        assert len(column.definition.split()) >= 3, f"column {column.name} needs a definition of at least three words"
        assert (column.kind == "set") == (subject.spec.level == "set"), f"column {column.name}: kind {column.kind}"


def rows_are_json_safe(subject: Subject) -> None:
    """One row per output with every column, as JSON values; a rate is 0 or 1; `derive` returns finite numbers."""
    if subject.spec.level != "pair":
        return
    metric = _loaded(subject)
    with tempfile.TemporaryDirectory() as folder:
        rows = _score(subject, metric, _items(subject, *_scored_pairs(subject), Path(folder)))
    good = [row for row in rows if not isinstance(row, Failed)]
    if not good:
        pytest.skip(f"{subject.spec.name} fails on every synthetic output: {rows[0].reason}")  # type: ignore[union-attr]
    for column in metric.columns:
        if column.kind in ("mean", "rate"):
            assert any(column.name in row for row in good), f"no row has column {column.name}"
    derived = dict(metric.derive(good))
    expected = {column.name for column in metric.columns if column.kind == "derived"}
    assert expected <= set(derived), f"derive does not return {sorted(expected - set(derived))}"
    assert all(math.isfinite(float(derived[name])) for name in expected)


def batch_mates_do_not_matter(subject: Subject) -> None:
    """An output has the same score individually, in a batch, and in a reversed batch."""
    if subject.spec.level != "pair":
        return
    metric = _loaded(subject)
    pairs, outputs = _scored_pairs(subject)
    with tempfile.TemporaryDirectory() as folder:
        items = _items(subject, pairs, outputs, Path(folder))
        together = _score(subject, metric, items)
        backwards = _score(subject, metric, items[::-1])[::-1]
        alone = [_score(subject, metric, [item])[0] for item in items]
    names = [column.name for column in metric.columns if column.kind in ("mean", "rate")]
    for other_rows, condition in ((backwards, "the order"), (alone, "the batch")):
        for row, again in zip(together, other_rows, strict=True):
            assert isinstance(row, Failed) == isinstance(again, Failed), (
                f"whether an output fails depends on {condition}"
            )
            if isinstance(row, Failed) or isinstance(again, Failed):
                continue
            for name in names:
                _expect_close(row.get(name), again.get(name), f"{name} depends on {condition}")


def blank_frames_do_not_raise(subject: Subject) -> None:
    """A blank output has a score or is a `Failed` with a reason; the metric never raises."""
    if subject.spec.level != "pair":
        return
    metric = _loaded(subject)
    pairs, outputs = _scored_pairs(subject)
    with tempfile.TemporaryDirectory() as folder:
        _score(subject, metric, _items(subject, pairs, [blank(output) for output in outputs], Path(folder)))


def left_out_frames_are_counted(subject: Subject) -> None:
    """For an output with every second frame black, the metric fails, changes, or reports the share of frames used.

    Tested on static clips, for which a mean over half of the frames equals that over all of them. Columns that are
    unchanged on a blank output do not depend on the frames and are exempt; so are rates, for which a few pairs are not
    informative, provided that one of them changes.
    """
    if subject.spec.level != "pair":
        return
    metric = _loaded(subject)
    pairs = [still_pair(pair) for pair in _scored_pairs(subject)[0]]
    outputs = [(pair.target or pair.motion).load() for pair in pairs]
    with tempfile.TemporaryDirectory() as folder:
        full_rows, half_rows, blank_rows = (
            _score(subject, metric, _items(subject, pairs, [change(output) for output in outputs], Path(folder)))
            for change in (lambda output: output, half_blank, blank)
        )
    rows = [
        (full, some, none)
        for full, some, none, output in zip(full_rows, half_rows, blank_rows, outputs, strict=True)
        if len(output) > 1 and not (isinstance(full, Failed) or isinstance(some, Failed))
    ]
    tested = [column for column in metric.columns if column.kind == "mean"]
    rates = [column for column in metric.columns if column.kind == "rate"]
    if all(_near(column, full, some) for column in rates for full, some, _ in rows):
        tested += rates
    for column in tested:
        depends_on_frames = any(isinstance(none, Failed) or not _near(column, full, none) for full, _, none in rows)
        moves = not all(_near(column, full, some) for full, some, _ in rows)
        declared = column.frames and all(
            some.get(column.frames, 0) < full.get(column.frames, 0) for full, some, _ in rows
        )
        assert moves or declared or not depends_on_frames, (
            f"{column.name} is unchanged when every second frame is black: it skips frames without reporting it "
            "(name the column with the share of frames it rests on as `Column.frames`)"
        )


def _near(column: Column, row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether black frames left a value unchanged, apart from estimation with fewer frames."""
    first, second = usable(column, row), usable(column, other)
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=FEWER_FRAMES, abs_tol=ROUNDING)


def shards_merge_exactly(subject: Subject) -> None:
    """States over parts of the outputs merge into the result of a single pass over all of them."""
    if subject.spec.level != "set":
        return
    metric = _loaded(subject)
    with tempfile.TemporaryDirectory() as folder:
        items = _items(subject, *_scored_pairs(subject), Path(folder))
        single_pass = metric.compute(metric.update(None, items))
        parts = [metric.update(None, items[:1]), metric.update(None, items[1:])]
        merged = metric.compute(metric.merge(parts))
    for column in metric.columns:
        _expect_close(
            _number(single_pass[column.name]), _number(merged[column.name]), f"{column.name} differs when merged"
        )


def _number(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value


def _expect_close(first: Any, second: Any, message: str) -> None:
    if first is None or second is None:
        assert first is second, message
        return
    assert math.isclose(first, second, rel_tol=ROUNDING, abs_tol=ROUNDING), f"{message}: {first!r}, {second!r}"


CHECKS = (
    columns_are_documented,
    rows_are_json_safe,
    batch_mates_do_not_matter,
    blank_frames_do_not_raise,
    left_out_frames_are_counted,
    shards_merge_exactly,
)
