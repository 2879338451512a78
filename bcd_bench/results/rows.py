"""Rows of a report: measured runs from their records, and values reported in papers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.results.schema import PairValues, RecipeInfo, RunRecord, Value, conflict_note, conflicting, load_records
from bcd_bench.verification.files import first_failure
from bcd_bench.verification.signoff import SignOff, find_sign_offs, record_key

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ReportedRow

__all__ = ["ReportRow", "collect_rows", "conflict_notes", "row_from_record"]


@dataclass(frozen=True)
class ReportRow:
    """One line of a table: a run, or values quoted from a paper (`reported`, without run, pairs or intervals)."""

    suite: str
    suite_version: str
    method: str
    run_id: str | None
    partial: bool
    reported: bool
    n_pairs: int | None
    n_failed: int | None
    metrics: Mapping[str, Value]
    provenance: Mapping[str, Any]
    reference: bool = False
    seeded: bool = False
    unhashed: bool = False
    conflict: str = ""
    """Distinguishes this row from another record of the same run with different content ("outputs 1a2b3c4d", "record
    2"); in that case it is unknown which of them is right. Empty without a conflict."""
    manifest_sha256: str | None = None
    record: RunRecord | None = None
    folder: Path | None = field(default=None, repr=False)
    verified: SignOff | None = field(default=None, repr=False)
    """What somebody else has checked; None for a self-reported record."""

    @property
    def group(self) -> tuple[str, str, str | None]:
        """Name, version and manifest of the suite: rows with the same are in one table."""
        return self.suite, self.suite_version, self.manifest_sha256

    @property
    def label(self) -> str:
        """Name in tables: the method, its configured `name` if any, and the recipe of its weights."""
        return self.name if self.recipe is None else f"{self.name} ({self.recipe.label})"

    @property
    def name(self) -> str:
        """The method and its configured `name` if any, without the recipe of its weights."""
        name = self.record.method.config.get("name") if self.record else None
        return f"{self.method}: {name}" if isinstance(name, str) and name else self.method

    @property
    def recipe(self) -> RecipeInfo | None:
        """Training recipe of the weights, if the method states it."""
        return self.record.method.recipe if self.record else None

    @property
    def weights(self) -> str:
        """The names of the weights; empty without weights."""
        return ", ".join(self.record.method.weights) if self.record else ""

    @property
    def ranked(self) -> bool:
        """False for reference methods, quoted figures, partial runs, random weights, methods without a fingerprint,
        and records that contradict another one or their own files: they are shown and never ranked."""
        unfit = self.reported or self.reference or self.partial or self.seeded or self.unhashed or self.conflict
        return not (unfit or self.refusal)

    @cached_property
    def refusal(self) -> str:
        """Why the record contradicts its own files, as a clause (`verification.files`); empty if it does not."""
        if self.record is None or self.folder is None:
            return ""
        return first_failure(self.record, self.folder)

    @cached_property
    def pair_values(self) -> PairValues | None:
        """Per-pair values for paired comparisons; None if they are not available."""
        return None if self.folder is None else PairValues.load(self.folder)

    def clusters(self, column: str) -> int | None:
        """Number of content subjects that the value of a column is based on; None if not recorded."""
        number = self.metrics[column].n_clusters
        if (
            number is None and not self.refusal and self.pair_values is not None
        ):  # older records do not contain this number
            clusters = self.pair_values.cluster_by_pair()
            number = len({clusters[pair] for pair in self.pair_values.by_pair(column)}) or None
        return number


def collect_rows(
    paths: Iterable[Path], suite: str | None = None, registry: Registry | None = None, *, with_reported: bool = True
) -> list[ReportRow]:
    """Rows for every record under `paths` (run folders, a results tree, or record files).

    `suite` selects one suite. With a `registry`, values that its suites quote from papers come first. Reported rows
    are included for each suite that has a record, and for `suite` even without one. A record is verified if
    `verified.json` in one of the `paths` has its hash. Raises `UsageError` for a path that does not exist or a file
    that cannot be read.
    """
    paths = list(paths)
    sign_offs = find_sign_offs(paths)
    measured = [
        row_from_record(record, path.parent, sign_offs.get(record_key(path)) if sign_offs else None)
        for path, record in load_records(paths)
    ]
    measured = _with_conflicts([row for row in measured if suite is None or row.suite == suite])
    measured.sort(key=lambda row: (row.suite, row.suite_version, row.method, row.run_id or ""))
    if registry is None or not with_reported:
        return measured
    reported = []
    names = {row.suite for row in measured} | ({suite} if suite else set())
    for name in sorted(names & set(registry.suites)):
        spec = registry.suites[name]
        versions = sorted({row.suite_version for row in measured if row.suite == name}) or [spec.version]
        if spec.version in versions:
            columns = {c: v for row in measured if row.suite == name for c, v in row.metrics.items()}
            reported += [_reported(name, spec.version, line, columns) for line in spec.reported]
    return reported + measured


def row_from_record(record: RunRecord, folder: Path | None = None, verified: SignOff | None = None) -> ReportRow:
    """A measured row; `folder` is the folder that may contain `values.json`."""
    return ReportRow(
        suite=record.suite.name,
        suite_version=record.suite.version,
        method=record.method.name,
        run_id=record.run_id,
        partial=record.partial,
        reported=False,
        n_pairs=record.n_pairs,
        n_failed=record.n_failed,
        metrics=record.values,
        provenance=_provenance(record),
        reference=record.method.reference,
        seeded=record.seeded,
        unhashed=record.unhashed,
        manifest_sha256=record.suite.manifest_sha256,
        record=record,
        folder=folder,
        verified=verified,
    )


def conflict_notes(rows: Iterable[ReportRow]) -> list[str]:
    """One sentence for each run with contradictory records among these rows."""
    return [conflict_note(group) for group in conflicting(row.record for row in rows if row.record and row.conflict)]


def _with_conflicts(rows: Sequence[ReportRow]) -> list[ReportRow]:
    names: dict[int, str] = {}
    for group in conflicting(row.record for row in rows if row.record):
        outputs = [record.outputs_sha256 for record in group]
        for number, record in enumerate(group, 1):
            differs = outputs.count(record.outputs_sha256) == 1
            names[id(record)] = f"outputs {record.outputs_sha256[:8]}" if differs else f"record {number}"
    return [replace(row, conflict=names.get(id(row.record), "")) for row in rows]


def _provenance(record: RunRecord) -> dict[str, Any]:
    body = record.model_dump(mode="json")
    keep = ("suite", "method", "limit", "seeded", "seed", "device", "dtype", "outputs_sha256", "failures", "metrics")
    extra = ("metric", "ci_method", "wilson", "kind", "definition", "decimals", "n_clusters", "frame_coverage")
    columns = {name: {key: value[key] for key in extra} for name, value in body["values"].items()}
    return {**{key: body[key] for key in keep}, "columns": columns, **body["provenance"]}


def _reported(suite: str, version: str, line: ReportedRow, columns: Mapping[str, Value]) -> ReportRow:
    """A quoted row: unit, direction and decimals are taken from the measured column of the same name, if any."""
    metrics = {}
    for name, figure in line.metrics.items():
        measured = columns.get(name)
        blank = {"ci_low": None, "ci_high": None, "ci_method": None, "wilson": None, "n": 0, "n_failed": 0}
        blank["frame_coverage"] = None
        if measured is None:
            metrics[name] = Value(metric="", value=figure, n=0, n_failed=0)
        else:
            metrics[name] = measured.model_copy(update={**blank, "value": figure})
    return ReportRow(
        suite=suite,
        suite_version=version,
        method=line.method,
        run_id=None,
        partial=False,
        reported=True,
        n_pairs=None,
        n_failed=None,
        metrics=metrics,
        provenance={"source": line.source, "note": line.note},
    )
