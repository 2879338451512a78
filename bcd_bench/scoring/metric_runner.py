"""Execution of one metric on one run: guarded calls into plugin code, rows, states, and the result."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from bcd_bench.io.npz import save_tree
from bcd_bench.plugin.base import Metric
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import MetricSpec
from bcd_bench.results.schema import MetricInfo, PairValues, Value
from bcd_bench.scoring.cache import MetricResult, Row, ScoreFiles
from bcd_bench.statistics.aggregate import aggregate_rows, empty_value, over_clusters, set_value, unnamed_frames
from bcd_bench.statistics.intervals import delete_group_jackknife, jackknife_groups
from bcd_bench.types.errors import BcdBenchError, MissingAssetError, MissingDependencyError, one_line, printable
from bcd_bench.types.failed import Failed

__all__ = ["MetricJob", "not_scored"]


FOLDERS = re.compile(r"(?<![\w:/.])/(?:[^\s/:]+/)+")
"""Matches the folders of an absolute path, but not those of a URL."""


def not_scored(spec: MetricSpec, info: MetricInfo, error: BcdBenchError) -> MetricResult:
    """The result of a metric whose asset or package is missing: all columns are empty, with no failed pairs."""
    try:
        with PluginScope():
            columns = list(load_factory(spec.factory)().columns)
    except BaseException as trouble:  # the missing package may be needed for the import, so only the note is available
        if not raised_by_plugin(trouble):
            raise
        columns = []
    values = {column.name: empty_value(spec.name, column) for column in columns}
    missing_info = info.model_copy(
        update={"columns": list(values), "error": _with_hint(error), "missing": True, "restrictions": []}
    )
    return MetricResult(metric=spec.name, info=missing_info, values=values)


def _with_hint(error: BcdBenchError) -> str:
    """An error with its hint, for records: paths are reduced to file names, since records contain no local folders."""
    return FOLDERS.sub("", f"{error} ({error.hint})" if error.hint else str(error))


class MetricJob:
    """Scores batches for one metric. Exceptions of the metric never leave this class; `error` stores the fatal one."""

    def __init__(self, spec: MetricSpec, info: MetricInfo, files: ScoreFiles, *, device: str) -> None:
        self.spec, self.info, self.files = spec, info, files
        self.error: str | None = None
        self.missing: BcdBenchError | None = None
        """The error if an asset or a package is missing; the metric then counts as not scored instead of failed."""
        self.seconds = 0.0
        self.rows: dict[str, Row] = {}
        self.passing: dict[str, Failed] = {}
        """Failures that may succeed on retry (an exception, an unreadable output): not written to the files."""
        self._device = device
        self._scope = PluginScope()
        self._metric: Metric | None = None
        self._groups: dict[str, int] | None = None
        self._by_group: list[Any] = [None]
        self.included: dict[str, str] = {}
        """Pair id -> cluster of every item included in the state."""

    @property
    def is_set(self) -> bool:
        return self.spec.level == "set"

    def forget(self) -> None:
        """Forget what was scored, but keep the loaded metric: a worker returns the rows of every block on its own."""
        self.rows, self.passing, self.seconds = {}, {}, 0.0
        self._groups, self._by_group, self.included = None, [None], {}

    def needs(self, pair_ids: Iterable[str]) -> bool:
        """Whether a batch of these pairs has to be scored."""
        if self.error is not None:
            return False
        return self.is_set or any(pair_id not in self.rows for pair_id in pair_ids)

    def take(
        self,
        items: Sequence[Scored],
        outputs: Mapping[str, str],
        unreadable: Mapping[str, Failed],
        unread: Collection[str] = (),
    ) -> None:
        """Score one batch (items or unreadable outputs); `outputs` maps pair id -> sha256 of its output.

        `unread` contains the pairs with another unreadable clip or failed feature extraction, as known after the metric
        has accessed them: failures of the metric on these pairs may succeed on retry and are not stored.
        """
        self.passing.update(unreadable)
        metric = self._ready()
        if metric is None or not items:
            return
        started = time.perf_counter()
        if self.is_set:
            self._fold(metric, items, unread)
        else:
            missing = [item for item in items if self.spec.needs_target and item.pair.target is None]
            rows: dict[str, Row] = {item.pair.id: Failed("the suite has no target for this pair") for item in missing}
            rows |= self._score(metric, [item for item in items if item.pair.id not in rows])
            for pair_id in unread:
                if isinstance(row := rows.get(pair_id), Failed):
                    self.passing[pair_id] = row
                    del rows[pair_id]
            self.rows |= rows
            self.files.append((pair_id, outputs[pair_id], row) for pair_id, row in rows.items())
        self.seconds += time.perf_counter() - started

    @property
    def states(self) -> list[Any]:
        """The states of a set metric, one per group of `prepare` that has items."""
        return [state for state in self._by_group if state is not None]

    @states.setter
    def states(self, states: Sequence[Any]) -> None:
        self._by_group = list(states)

    def values_without(self, left_out: int | None) -> Mapping[str, Any] | None:
        """The values of a set metric over all states but the one with this number. None after an error."""
        metric = self._ready()
        if metric is None:
            return None
        started = time.perf_counter()
        values: Mapping[str, Any] | None = self._guard(lambda: _without(metric, self.states, left_out))
        self.seconds += time.perf_counter() - started
        return values

    def finish(
        self,
        pairs: Sequence[tuple[str, str]],
        key: str,
        computed: Sequence[Mapping[str, Any]] = (),
    ) -> MetricResult:
        """The result over `pairs` (id, cluster) in plan order. Cached, unless a failure may succeed on retry.

        `computed` are the `values_without` of a set metric, if they are known: of all states, then without each."""
        started = time.perf_counter()
        metric = self._ready()
        if self.missing is not None:
            return not_scored(self.spec, self.info, self.missing)
        values: dict[str, Value] = {}
        pair_values: PairValues | None = None
        if metric is not None and self.error is None:
            if self.is_set:
                values, state = self._guard(lambda: self._set_values(metric, pairs, computed)) or ({}, None)
                values = values if self._keep(state) else {}
            else:
                values, pair_values = self._pair_values(metric, pairs)
        if self.error is None and self.passing and not self.rows and not self.is_set:
            # No row at all is not a coverage problem: the metric is broken, or all outputs are missing.
            reason, count = Counter(row.reason for row in self.passing.values()).most_common(1)[0]
            self.error = f"no output could be scored ({count}x {reason})"
            values, pair_values = {}, None
        reasons = [row.reason for pair, row in (self.rows | self.passing).items() if isinstance(row, Failed)]
        counted = dict(sorted(Counter(reasons).items()))
        info = self.info.model_copy(update={"columns": list(values), "failures": counted, "error": self.error})
        result = MetricResult(metric=self.spec.name, info=info, values=values, pair_values=pair_values)
        if self.error is None and not self.passing:
            self.files.write_result(key, result)
        self.seconds += time.perf_counter() - started
        return result

    def prepare(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Load the metric, and keep one state per group of `pairs` (id, cluster) if a set metric requests it.

        A set metric with an attribute `jackknife_groups` (2 or more) gets an interval computed by leaving out one group
        of content subjects at a time, which requires that many states and calls of `compute`.
        """
        metric = self._ready()
        n_groups = int(getattr(metric, "jackknife_groups", 0) or 0) if self.is_set else 0
        if n_groups > 1:
            self._groups = jackknife_groups([cluster for _, cluster in pairs], n_groups)
            self._by_group = [None] * (max(self._groups.values()) + 1)

    def _ready(self) -> Metric | None:
        """The loaded metric, or None if it cannot be loaded."""
        if self._metric is None and self.error is None:
            started = time.perf_counter()
            self._metric = self._guard(self._load)
            self.seconds += time.perf_counter() - started
        return self._metric

    def _load(self) -> Metric:
        metric: Metric = load_factory(self.spec.factory)()
        metric.load(self._device)
        names = [column.name for column in metric.columns]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"columns must be named and unique, got {names}")
        wrong = [column.name for column in metric.columns if (column.kind == "set") != self.is_set]
        if wrong:
            raise ValueError(f"columns {wrong} are invalid for a metric of level {self.spec.level!r}")
        if lost := unnamed_frames(metric.columns):
            raise ValueError(f"columns {lost}: their `frames` must name another column of the metric")
        return metric

    def _guard(self, work: Callable[[], Any]) -> Any:
        """Run `work`; an exception becomes the metric's error."""
        try:
            with self._scope:
                return work()
        except BcdBenchError as error:
            self._stop(error)
        except BaseException as error:  # a failing metric must not affect others
            if not raised_by_plugin(error):
                raise
            self.error = one_line(error, place=False)
        return None

    def _stop(self, error: BcdBenchError) -> None:
        self.error = _with_hint(error)
        if isinstance(error, MissingAssetError | MissingDependencyError):
            self.missing = error

    def _score(self, metric: Metric, items: Sequence[Scored]) -> dict[str, Row]:
        if not items:
            return {}
        try:
            with self._scope:
                rows = [
                    _plain_row(row) for row in metric.score(list(items))
                ]  # rows may be yielded one by one, so convert each immediately
            if len(rows) != len(items):
                raise ValueError(f"score returned {len(rows)} rows for {len(items)} outputs")
            return {item.pair.id: row for item, row in zip(items, rows, strict=True)}
        except BcdBenchError as error:
            self._stop(error)
            return {}
        except BaseException as error:  # an invalid output must not affect others
            if not raised_by_plugin(error):
                raise
            if len(items) == 1:
                self.passing[items[0].pair.id] = Failed(one_line(error, place=False))
                return {}
        rows_by_pair: dict[str, Row] = {}
        for item in items:
            rows_by_pair |= self._score(metric, [item])
        return rows_by_pair

    def _accepted(self, metric: Metric, items: Sequence[Scored], unread: Collection[str]) -> list[Scored]:
        """The items that a set metric accepts; the others are stored as failures with its reason."""
        refuse = getattr(metric, "refuse", None)
        if refuse is None:
            return list(items)
        verdicts = self._guard(lambda: [refuse(item) for item in items])
        if verdicts is None:
            return []
        refused = {item.pair.id: verdict for item, verdict in zip(items, verdicts, strict=True) if verdict is not None}
        self.passing |= {pair_id: verdict for pair_id, verdict in refused.items() if pair_id in unread}
        self.rows |= {pair_id: verdict for pair_id, verdict in refused.items() if pair_id not in unread}
        return [item for item in items if item.pair.id not in refused]

    def _fold(self, metric: Metric, items: Sequence[Scored], unread: Collection[str]) -> None:
        groups: dict[int, list[Scored]] = {}
        for item in self._accepted(metric, items, unread):
            groups.setdefault(self._groups[item.pair.cluster] if self._groups else 0, []).append(item)

        def work() -> None:
            for group, members in groups.items():
                self._by_group[group] = metric.update(self._by_group[group], list(members))
                self.included |= {item.pair.id: item.pair.cluster for item in members}

        self._guard(work)

    def _set_values(
        self, metric: Metric, pairs: Sequence[tuple[str, str]], known: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, Value], Any]:
        states = self.states
        if not states:
            empty = {c.name: set_value(self.spec.name, c, math.nan, None, 0, len(pairs)) for c in metric.columns}
            return empty, None
        state = states[0] if len(states) == 1 else metric.merge(states)
        computed = known[0] if known else metric.compute(state)
        replicates: Sequence[Mapping[str, Any]] = known[1:]
        if len(states) > 1 and not known:
            replicates = [_without(metric, states, index) for index in range(len(states))]
        values = {}
        for column in metric.columns:
            number, interval = computed[column.name], None
            if replicates and not isinstance(number, tuple | list):
                interval = delete_group_jackknife(
                    float(number), [float(replicate[column.name]) for replicate in replicates]
                )
            counts = len(self.included), len(pairs)
            value = set_value(self.spec.name, column, number, interval, *counts, computed)
            values[column.name] = over_clusters(value, self.included.values())
        return values, state

    def _keep(self, state: Any) -> bool:
        """Write the merged state. A state that cannot be stored is an error of the metric; a full disk is not."""
        if state is not None:
            self.files.folder.mkdir(parents=True, exist_ok=True)
            try:
                save_tree(self.files.state_path, state)
            except TypeError as error:
                self.error = f"its state cannot be stored: {error}"
                return False
        return True

    def _pair_values(
        self, metric: Metric, pairs: Sequence[tuple[str, str]]
    ) -> tuple[dict[str, Value], PairValues | None]:
        rows = {pair: row for pair, row in self.rows.items() if not isinstance(row, Failed)}
        columns = list(metric.columns)
        aggregated = self._guard(lambda: aggregate_rows(self.spec.name, metric, columns, pairs, rows))
        if aggregated is None:
            # Only `derive` is plugin code here; if it fails, the other columns are still valid.
            columns = [column for column in columns if column.kind != "derived"]
            aggregated = aggregate_rows(self.spec.name, metric, columns, pairs, rows)
        values, per_pair = aggregated
        return values, PairValues.build(pairs, per_pair)


def _without(metric: Metric, states: Sequence[Any], left_out: int | None) -> Mapping[str, Any]:
    """The values over all `states` (two or more), or over all but one of them."""
    kept = [state for index, state in enumerate(states) if index != left_out]
    values: Mapping[str, Any] = metric.compute(metric.merge(kept))
    return values


def _plain_row(row: Any) -> Row:
    """A row as plain JSON, without non-finite numbers. Raises `TypeError` or `ValueError` for values that JSON cannot
    represent."""
    if isinstance(row, Failed):
        return Failed(printable(str(row.reason)))
    if not isinstance(row, Mapping):
        raise TypeError(f"score must return mappings or Failed, not {type(row).__name__}")
    plain = ((str(key), original, _plain(original)) for key, original in row.items())
    # None is the metric's value for "does not apply"; a NaN is a value that could not be computed.
    return {key: value for key, original, value in plain if value is not None or original is None}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, tensors
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        value.encode()  # a lone surrogate cannot be written to a file
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not JSON-safe")
