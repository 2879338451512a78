"""Score files of a run, so that nothing is scored twice: rows of pairs, states of sets, finished results.

    scores/<metric>.jsonl         a header (metric, identity), then one line for each scored pair
    scores/<metric>.state.npz     the mergeable state of a set metric
    scores/<metric>.result.json   values with intervals, valid for exactly these rows

Every line is keyed by the output's hash, every file by the metric's identity: if an output or a metric changes, only
the affected scores are recomputed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bcd_bench.io.atomic import append_jsonl, iterate_jsonl, write_text_atomic
from bcd_bench.results.schema import MetricInfo, PairValues, Value
from bcd_bench.types.failed import Failed

__all__ = ["MetricResult", "Row", "ScoreFiles"]

Row = Mapping[str, Any] | Failed


class MetricResult(BaseModel):
    """Results of one metric. `pair_values` contains the per-pair values of its "mean" and "rate" columns."""

    metric: str
    info: MetricInfo
    values: dict[str, Value] = {}
    pair_values: PairValues | None = None


@dataclass(frozen=True)
class ScoreFiles:
    """The files of one metric with one identity in a run's `scores` folder."""

    folder: Path
    metric: str
    identity: str

    @property
    def rows_path(self) -> Path:
        return self.folder / f"{self.metric}.jsonl"

    @property
    def state_path(self) -> Path:
        return self.folder / f"{self.metric}.state.npz"

    @property
    def result_path(self) -> Path:
        return self.folder / f"{self.metric}.result.json"

    def read_rows(self, outputs: Mapping[str, str]) -> dict[str, Row]:
        """Rows by pair id that are still valid for `outputs` (pair id -> sha256); empty under a different identity."""
        lines = iterate_jsonl(self.rows_path)
        if next(lines, {}).get("identity") != self.identity:
            return {}
        rows: dict[str, Row] = {}
        for line in lines:
            pair = line.get("pair")
            if isinstance(pair, str) and line.get("output") == outputs.get(pair):
                rows[pair] = Failed(line["failed"]) if "failed" in line else line["row"]
        return rows

    def append(self, rows: Iterable[tuple[str, str, Row]]) -> None:
        """Append (pair id, output sha256, row) durably; rows of a different identity are replaced."""
        lines: list[dict[str, Any]] = []
        for pair, output, row in rows:
            body = {"failed": row.reason} if isinstance(row, Failed) else {"row": dict(row)}
            lines.append({"pair": pair, "output": output, **body})
        if not self._started():
            header = {"metric": self.metric, "identity": self.identity}
            text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in [header, *lines])
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text_atomic(self.rows_path, text)
        elif lines:
            append_jsonl(self.rows_path, lines)

    def read_result(self, key: str) -> MetricResult | None:
        """The finished result, if it was computed from exactly the inputs hashed in `key`."""
        try:
            body = json.loads(self.result_path.read_bytes())
            return MetricResult.model_validate(body["result"]) if body["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None  # missing, damaged or of a different version: recomputed

    def write_result(self, key: str, result: MetricResult) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        body = {"key": key, "result": result.model_dump(mode="json")}
        write_text_atomic(self.result_path, json.dumps(body, ensure_ascii=False, allow_nan=False) + "\n")

    def _started(self) -> bool:
        try:
            with self.rows_path.open(encoding="utf-8") as stream:
                return bool(json.loads(stream.readline()).get("identity") == self.identity)
        except (OSError, ValueError, AttributeError):
            return False
