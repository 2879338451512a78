"""The record of a run: every value with its interval, and everything that produced it.

Beside `record.json` lie `values.json` (the value of every pair, so that two runs can be compared from committed
records alone) and `timing.json`. Wall times live only in the last one: two runs of the same command on one machine
give identical `record.json` and `values.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bcd_bench.plugin.settings import first_error
from bcd_bench.types.errors import UsageError

__all__ = [
    "MIN_COVERAGE",
    "MethodInfo",
    "MetricInfo",
    "PairValues",
    "Provenance",
    "RecipeInfo",
    "RunRecord",
    "SuiteInfo",
    "Value",
    "conflict_note",
    "conflicting",
    "find_records",
    "load_record",
    "load_records",
]

RECORD_NAME = "record.json"
VALUES_NAME = "values.json"
TIMING_NAME = "timing.json"
SHOWN_DIFFERENCES = 4
"""Differences of provenance that a note on conflicting records names."""
MIN_COVERAGE = 0.95
"""Below this share of what was to be scored (`Value.coverage`) a value carries a dagger and is not ranked."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(_Model):
    """One column of one run. `value` is None where nothing could be scored; rates are in percent.

    `n` pairs entered the value and `n_failed` did not (no output, a failed detection, a metric that raised): these
    lower the coverage and are never averaged in. A pair to which the column does not apply counts in neither.
    `ci_method` says how the 95 % interval was made: "clustered bootstrap", "wilson" (a rate whose bootstrap is
    degenerate), "delete-group jackknife", "metric" (the metric's own), or None without interval. `wilson` is given
    for every rate. `frame_coverage` is the share of a clip's frames, 0..1, on which a pair's value rests, as the mean
    over the pairs that entered; None for a column that leaves no frames out. `n_clusters` is the number of content
    identities among the n pairs: with fewer than `statistics.MIN_CLUSTERS_TO_COMPARE` no interval can be relied on, so
    there is none. It is None in older records.
    """

    metric: str
    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_method: str | None = None
    wilson: tuple[float, float] | None = None
    n: int
    n_failed: int
    n_clusters: int | None = None
    unit: str = ""
    higher_is_better: bool | None = None
    kind: Literal["mean", "rate", "derived", "set"] = "mean"
    definition: str = ""
    decimals: int = 2
    headline: bool = True
    frame_coverage: float | None = None

    @property
    def coverage(self) -> float:
        """The share of what was to be scored, 0..1: of pairs, or of their frames, of which a failed pair has none."""
        total = self.n + self.n_failed
        frames = 1.0 if self.frame_coverage is None else self.frame_coverage
        return frames * (self.n / total) if total else 0.0

    @property
    def covered(self) -> bool:
        """Whether enough pairs, and of their frames, were scored for the value to be ranked."""
        return self.value is not None and self.coverage >= MIN_COVERAGE


class SuiteInfo(_Model):
    """Which pairs: `n_pairs` is the size of the whole suite, whatever the run's limit."""

    name: str
    version: str
    manifest_sha256: str
    n_pairs: int


class RecipeInfo(_Model):
    """How weights were trained: a short `label` for the row, the techniques (`parts`), and those of them that learned
    from `labels` of the suite. Without any, the recipe is self-supervised."""

    label: str
    parts: list[str] = Field(default_factory=list)
    labels: list[str] = Field(default_factory=list)


class MethodInfo(_Model):
    """Which method: its resolved configuration and the sha256 of every weight file by name.

    `recipe` is that of the weights; None if the method has one recipe only, and in older records.
    """

    name: str
    version: str
    config: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)
    recipe: RecipeInfo | None = None
    reference: bool = False


class MetricInfo(_Model):
    """Which metric scored; `failures` counts the reasons, `error` is set where the metric as a whole failed.

    `plugin` is what it came from when it scored (name, dist, version, source_sha256), `restrictions` the licences that
    restrict the use of its assets. `assets` maps each asset that leaves the choice of the file to the user to the
    name and sha256 of the file that was used. With `missing` the metric did not fail: it was not scored, for want of
    the asset or package that `error` names.
    """

    version: str
    identity: str
    plugin: dict[str, str] = Field(default_factory=dict)
    assets: dict[str, dict[str, str]] = Field(default_factory=dict)
    restrictions: list[str] = Field(default_factory=list)
    columns: list[str] = Field(default_factory=list)
    failures: dict[str, int] = Field(default_factory=dict)
    error: str | None = None
    missing: bool = False


class Provenance(_Model):
    """What produced a record, beyond suite and method. `plugins` maps plugin -> {dist, version, source_sha256}."""

    bcd_bench: str
    git: dict[str, Any] | None = None
    plugins: dict[str, dict[str, str]] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    restrictions: list[str] = Field(default_factory=list)
    """Licences that restrict use, of every asset that took part; printed under every table."""


class RunRecord(_Model):
    """What a run came to. Identical between two runs of the same command on one machine."""

    format: Literal[1] = 1
    run_id: str
    suite: SuiteInfo
    method: MethodInfo
    limit: int | None = None
    seeded: bool = False
    """Pseudo-random weights stood in for learned ones: the run shows that the plumbing holds, and is never ranked."""
    unhashed: bool = False
    """The method is a Python object whose source or state could not be hashed: shown, and never ranked."""
    seed: int
    device: str
    dtype: str
    n_pairs: int
    n_failed: int
    failures: dict[str, int] = Field(default_factory=dict)
    outputs_sha256: str
    values: dict[str, Value] = Field(default_factory=dict)
    metrics: dict[str, MetricInfo] = Field(default_factory=dict)
    provenance: Provenance

    @property
    def partial(self) -> bool:
        """A run over part of the suite never enters a ranking."""
        return self.n_pairs < self.suite.n_pairs

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


class PairValues(_Model):
    """The per-pair values of a run's "mean" and "rate" columns, in plan order; None where a pair was not scored."""

    format: Literal[1] = 1
    pairs: list[str]
    clusters: list[str]
    """Names of the content identities; `cluster_of` holds an index into it for every pair."""
    cluster_of: list[int]
    columns: dict[str, list[float | None]]

    @model_validator(mode="after")
    def _aligned(self) -> PairValues:
        lengths = {len(self.pairs), len(self.cluster_of), *(len(values) for values in self.columns.values())}
        if len(lengths) > 1:
            raise ValueError("pairs, cluster_of and the columns differ in length")
        if len(set(self.pairs)) != len(self.pairs):
            raise ValueError("a pair stands twice")
        if any(not 0 <= index < len(self.clusters) for index in self.cluster_of):
            raise ValueError("cluster_of points outside of clusters")
        return self

    @staticmethod
    def build(pairs: Sequence[tuple[str, str]], columns: Mapping[str, Sequence[float | None]]) -> PairValues:
        """From (pair id, cluster) in plan order and the values of every column in the same order; a value that is not
        finite is none."""
        names = sorted({cluster for _, cluster in pairs})
        place = {name: index for index, name in enumerate(names)}
        return PairValues(
            pairs=[pair for pair, _ in pairs],
            clusters=names,
            cluster_of=[place[cluster] for _, cluster in pairs],
            columns={name: [_finite(value) for value in values] for name, values in columns.items()},
        )

    def by_pair(self, column: str) -> dict[str, float]:
        """Pair id -> value, for the pairs that have one; empty for an unknown column."""
        values = self.columns.get(column, [])
        return (
            {pair: value for pair, value in zip(self.pairs, values, strict=True) if value is not None} if values else {}
        )

    def cluster_by_pair(self) -> dict[str, str]:
        return {pair: self.clusters[index] for pair, index in zip(self.pairs, self.cluster_of, strict=True)}

    def to_json(self) -> str:
        """One line for each field, so that the file stays small and a diff readable."""
        body = self.model_dump(mode="json")
        columns = body.pop("columns")
        lines = [f"{json.dumps(key)}: {_dense(value)}" for key, value in body.items()]
        inner = ",\n".join(
            f"  {json.dumps(name)}: {_dense([_compact(v) for v in values])}" for name, values in columns.items()
        )
        return "{\n" + ",\n".join(lines) + ',\n"columns": {\n' + inner + "\n}\n}\n"

    @staticmethod
    def load(folder: Path) -> PairValues | None:
        """The values beside a record, or None where the folder has none (a record that was copied alone)."""
        path = folder / VALUES_NAME
        if not path.is_file():
            return None
        try:
            return PairValues.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise UsageError(f"{path}: not a values file of this version: {first_error(error)}") from None


def load_record(path: Path) -> RunRecord:
    """Read one record file. Raises `UsageError` where it is missing, damaged, or of another version."""
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        run = path.parent
        hint = f"bcd-bench score {run}" if path.name == RECORD_NAME and (run / "plan.json").is_file() else None
        raise UsageError(f"{path}: not a record of this version: {first_error(error)}", hint=hint) from None


def find_records(paths: Iterable[Path]) -> list[Path]:
    """Record files under `paths` (files or folders of any depth), sorted, each once.

    Raises `UsageError` for a path that does not exist.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(sorted(path.rglob(RECORD_NAME))))
        elif path.is_file():
            found[path] = None
        else:
            raise UsageError(f"{path}: no such run folder or record")
    return list(found)


def load_records(paths: Iterable[Path]) -> list[tuple[Path, RunRecord]]:
    """Every record under `paths` with its file. Copies of one record count once (the first).

    Records of one run that differ in outputs or values are all kept: which of them is right, nobody here can tell
    (`conflicting` finds them).
    """
    records: dict[str, tuple[Path, RunRecord]] = {}
    for path in find_records(paths):
        record = load_record(path)
        records.setdefault(_content(record), (path, record))
    return list(records.values())


def conflicting(records: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Groups of two or more records that claim to be one run: equal suite, method and run id, different content."""
    groups: dict[tuple[str, str, str], dict[str, RunRecord]] = {}
    for record in records:
        key = (record.suite.manifest_sha256, record.method.name, record.run_id)
        groups.setdefault(key, {}).setdefault(_content(record), record)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def conflict_note(group: Sequence[RunRecord]) -> str:
    """One sentence on records of one run that differ: what differs, and in which environments they were made."""
    first = group[0]
    outputs = {record.outputs_sha256 for record in group}
    values = {json.dumps(record.model_dump(mode="json")["values"], sort_keys=True) for record in group}
    what = "outputs" if len(outputs) > 1 else "values" if len(values) > 1 else "metrics"
    hashes = f" (outputs_sha256 {' and '.join(sorted(sha[:8] for sha in outputs))})" if len(outputs) > 1 else ""
    differing = []
    environments = [{"device": record.device, **_flat(record.provenance.model_dump(mode="json"))} for record in group]
    for key in sorted({key for one in environments for key in one}):
        told = list(dict.fromkeys(str(one.get(key, "none")) for one in environments))
        if len(told) > 1:
            differing.append(f"{key}: {' and '.join(told)}")
    shown = differing[:SHOWN_DIFFERENCES]
    more = f" and {len(differing) - len(shown)} more" if len(differing) > len(shown) else ""
    why = f"; they differ in {', '.join(shown)}{more}" if shown else ""
    return (
        f"{len(group)} records of run {first.run_id} of {first.method.name} on {first.suite.name} have different "
        f"{what}{hashes}: each has a row, and none is ranked{why}"
    )


def _content(record: RunRecord) -> str:
    """What two copies of one record share: all but where and when it was made."""
    return record.model_dump_json(exclude={"provenance"})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _compact(value: float | None) -> float | None:
    """Whole numbers as ints and the rest to 9 digits: enough for any comparison, and a third of the size."""
    if value is None:
        return None
    return int(value) if value == int(value) else float(f"{value:.9g}")


def _dense(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
