"""The record of a run: every value with its interval, and complete provenance.

Next to `record.json` are `values.json` (per-pair values, so that two runs can be compared from committed records alone)
and `timing.json`. Wall times are stored only in the latter: running the same command twice on one machine produces
identical `record.json` and `values.json`.
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
"""Maximum number of provenance differences listed in a note on conflicting records."""
MIN_COVERAGE = 0.95
"""A value with lower coverage (`Value.coverage`) is marked with a dagger and not ranked."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(_Model):
    """One column of one run. `value` is None if nothing could be scored; rates are in percent.

    `n` pairs contributed to the value and `n_failed` did not (no output, a failed detection, a metric that raised):
    these lower the coverage and are never averaged in. Pairs to which the column does not apply are counted in neither.
    `ci_method` is the method of the 95 % interval: "clustered bootstrap", "wilson" (a rate whose bootstrap is
    degenerate), "delete-group jackknife", "metric" (provided by the metric), or None without interval. `wilson` is set
    for every rate. `frame_coverage` is the fraction of a clip's frames, 0..1, that a pair's value is based on, averaged
    over the contributing pairs; None for columns that use all frames. `n_clusters` is the number of content subjects
    among the n pairs: with fewer than `statistics.MIN_CLUSTERS_TO_COMPARE` an interval would be unreliable and is
    omitted. It is None in older records.
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
        """Scored fraction, 0..1, of the pairs, or of their frames, with 0 frames for a failed pair."""
        total = self.n + self.n_failed
        frames = 1.0 if self.frame_coverage is None else self.frame_coverage
        return frames * (self.n / total) if total else 0.0

    @property
    def covered(self) -> bool:
        """Whether enough pairs, and enough of their frames, were scored to rank the value."""
        return self.value is not None and self.coverage >= MIN_COVERAGE


class SuiteInfo(_Model):
    """The suite of a run; `n_pairs` is the size of the complete suite, regardless of the run's limit."""

    name: str
    version: str
    manifest_sha256: str
    n_pairs: int


class RecipeInfo(_Model):
    """Training recipe of weights: a short `label` for the row, the techniques (`parts`), and those that used `labels`
    of the suite. Without labels, the recipe is self-supervised."""

    label: str
    parts: list[str] = Field(default_factory=list)
    labels: list[str] = Field(default_factory=list)


class MethodInfo(_Model):
    """The method of a run: its resolved configuration and the sha256 of every weights file by name.

    `recipe` is that of the weights; None if the method has only one recipe, and in older records.
    """

    name: str
    version: str
    config: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)
    recipe: RecipeInfo | None = None
    reference: bool = False


class MetricInfo(_Model):
    """A metric of a run; `failures` counts the reasons, `error` is set if the metric failed completely.

    `plugin` describes the plugin version used (name, dist, version, source_sha256), `restrictions` the licences that
    restrict the use of its assets. `assets` maps each asset that accepts any file to the name and sha256 of the file
    used. With `missing`, the metric did not fail but was not scored, because the asset or package named in `error` is
    missing.
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
    """Provenance of a record, beyond suite and method. `plugins` maps plugin -> {dist, version, source_sha256}."""

    bcd_bench: str
    git: dict[str, Any] | None = None
    plugins: dict[str, dict[str, str]] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    restrictions: list[str] = Field(default_factory=list)
    """Restrictive licences of all assets involved; printed below every table."""


class RunRecord(_Model):
    """The results of a run. Identical for two runs of the same command on one machine."""

    format: Literal[1] = 1
    run_id: str
    suite: SuiteInfo
    method: MethodInfo
    limit: int | None = None
    seeded: bool = False
    """Random weights were used instead of trained ones: the run only shows that the pipeline works and is never
    ranked."""
    unhashed: bool = False
    """The method is a Python object whose source or state could not be hashed; such a run is never ranked."""
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
        """Whether the run covers only part of the suite; partial runs are never ranked."""
        return self.n_pairs < self.suite.n_pairs

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


class PairValues(_Model):
    """Per-pair values of a run's "mean" and "rate" columns, in plan order; None for pairs that were not scored."""

    format: Literal[1] = 1
    pairs: list[str]
    clusters: list[str]
    """Names of the content subjects; `cluster_of` contains an index into this list for every pair."""
    cluster_of: list[int]
    columns: dict[str, list[float | None]]

    @model_validator(mode="after")
    def _aligned(self) -> PairValues:
        lengths = {len(self.pairs), len(self.cluster_of), *(len(values) for values in self.columns.values())}
        if len(lengths) > 1:
            raise ValueError("pairs, cluster_of and the columns differ in length")
        if len(set(self.pairs)) != len(self.pairs):
            raise ValueError("a pair is listed twice")
        if any(not 0 <= index < len(self.clusters) for index in self.cluster_of):
            raise ValueError("cluster_of contains an invalid index")
        return self

    @staticmethod
    def build(pairs: Sequence[tuple[str, str]], columns: Mapping[str, Sequence[float | None]]) -> PairValues:
        """Build from (pair id, cluster) in plan order and the values of every column in the same order; non-finite
        values become None."""
        names = sorted({cluster for _, cluster in pairs})
        position = {name: index for index, name in enumerate(names)}
        return PairValues(
            pairs=[pair for pair, _ in pairs],
            clusters=names,
            cluster_of=[position[cluster] for _, cluster in pairs],
            columns={name: [_finite(value) for value in values] for name, values in columns.items()},
        )

    def by_pair(self, column: str) -> dict[str, float]:
        """Pair id -> value, for pairs with a value; empty for an unknown column."""
        values = self.columns.get(column, [])
        return (
            {pair: value for pair, value in zip(self.pairs, values, strict=True) if value is not None} if values else {}
        )

    def cluster_by_pair(self) -> dict[str, str]:
        return {pair: self.clusters[index] for pair, index in zip(self.pairs, self.cluster_of, strict=True)}

    def to_json(self) -> str:
        """Serialize with one line for each field, which keeps the file small and diffs readable."""
        body = self.model_dump(mode="json")
        columns = body.pop("columns")
        lines = [f"{json.dumps(key)}: {_dense(value)}" for key, value in body.items()]
        inner = ",\n".join(
            f"  {json.dumps(name)}: {_dense([_compact(v) for v in values])}" for name, values in columns.items()
        )
        return "{\n" + ",\n".join(lines) + ',\n"columns": {\n' + inner + "\n}\n}\n"

    @staticmethod
    def load(folder: Path) -> PairValues | None:
        """The values stored next to a record, or None if the folder has none (such as for a copied record)."""
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
    """Read one record file. Raises `UsageError` if it is missing, damaged, or of a different version."""
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        run = path.parent
        hint = f"bcd-bench score {run}" if path.name == RECORD_NAME and (run / "plan.json").is_file() else None
        raise UsageError(f"{path}: not a record of this version: {first_error(error)}", hint=hint) from None


def find_records(paths: Iterable[Path]) -> list[Path]:
    """Record files under `paths` (files or folders of any depth), sorted, without duplicates.

    Raises `UsageError` for a path that does not exist.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            files.update(dict.fromkeys(sorted(path.rglob(RECORD_NAME))))
        elif path.is_file():
            files[path] = None
        else:
            raise UsageError(f"{path}: no such run folder or record")
    return list(files)


def load_records(paths: Iterable[Path]) -> list[tuple[Path, RunRecord]]:
    """Every record under `paths` with its file. Copies of one record count once (the first).

    Records of one run that differ in outputs or values are all kept, since it is unknown which of them is right
    (see `conflicting`).
    """
    records: dict[str, tuple[Path, RunRecord]] = {}
    for path in find_records(paths):
        record = load_record(path)
        records.setdefault(_content(record), (path, record))
    return list(records.values())


def conflicting(records: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Groups of two or more records of the same run: equal suite, method and run id, but different content."""
    groups: dict[tuple[str, str, str], dict[str, RunRecord]] = {}
    for record in records:
        key = (record.suite.manifest_sha256, record.method.name, record.run_id)
        groups.setdefault(key, {}).setdefault(_content(record), record)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def conflict_note(group: Sequence[RunRecord]) -> str:
    """One sentence on differing records of one run: which parts differ, and the environments that created them."""
    first = group[0]
    outputs = {record.outputs_sha256 for record in group}
    values = {json.dumps(record.model_dump(mode="json")["values"], sort_keys=True) for record in group}
    differing_part = "outputs" if len(outputs) > 1 else "values" if len(values) > 1 else "metrics"
    hashes = f" (outputs_sha256 {' and '.join(sorted(sha[:8] for sha in outputs))})" if len(outputs) > 1 else ""
    differing = []
    environments = [{"device": record.device, **_flat(record.provenance.model_dump(mode="json"))} for record in group]
    for key in sorted({key for environment in environments for key in environment}):
        texts = list(dict.fromkeys(str(environment.get(key, "none")) for environment in environments))
        if len(texts) > 1:
            differing.append(f"{key}: {' and '.join(texts)}")
    listed = differing[:SHOWN_DIFFERENCES]
    more = f" and {len(differing) - len(listed)} more" if len(differing) > len(listed) else ""
    reason = f"; they differ in {', '.join(listed)}{more}" if listed else ""
    return (
        f"{len(group)} records of run {first.run_id} of {first.method.name} on {first.suite.name} have different "
        f"{differing_part}{hashes}: each has a row, and none is ranked{reason}"
    )


def _content(record: RunRecord) -> str:
    """The content that copies of one record share: everything except provenance."""
    return record.model_dump_json(exclude={"provenance"})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _compact(value: float | None) -> float | None:
    """Integers as int, other numbers with 9 digits: sufficient for comparisons, at a third of the size."""
    if value is None:
        return None
    return int(value) if value == int(value) else float(f"{value:.9g}")


def _dense(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
