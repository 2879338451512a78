"""What a gallery shows, as JSON: runs, leaderboard, columns, pairs with their clips and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.figures.sources import method_label
from bcd_bench.plugin.loading import plugin_code
from bcd_bench.results.rows import collect_rows, conflict_notes
from bcd_bench.results.schema import PairValues, RunRecord, load_record
from bcd_bench.results.table import build_tables
from bcd_bench.run.folder import PairResult, RunFolder, find_runs
from bcd_bench.types.errors import BcdBenchError, UsageError
from bcd_bench.view.previews import preview_key
from bcd_bench.view.tables import tables_json

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.types.clip import Clip, ClipRef
    from bcd_bench.types.pair import Pair
    from bcd_bench.types.suite import Suite

__all__ = ["Content"]

UNFINISHED = "not finished"
NOT_PLANNED = "not part of this run"


class Content:
    """Runs over one suite, and what is needed to show their pairs.

    `pairs` are those that any run has finished, in the order of the suite, at most `limit`. `clips` maps the key of
    every preview to a function that loads its clip, and `outputs` has the keys of those that are outputs. Raises
    `UsageError` for a path without a run, runs over different suites or versions of one, and runs without a finished
    pair.
    """

    def __init__(self, paths: Sequence[Path], registry: Registry, *, limit: int | None = None) -> None:
        self.runs = find_runs(paths)
        self.suite = _common_suite(self.runs, registry)
        self.results = [run.pairs() for run in self.runs]
        finished = {pair_id for results in self.results for pair_id in results}
        self.pairs = [pair for pair in self.suite.pairs if pair.id in finished][:limit]
        if not self.pairs:
            where = str(self.runs[0].path) if len(self.runs) == 1 else f"the {len(self.runs)} runs"
            raise UsageError(f"{where}: no pair is finished yet", hint="run the command of the run again")
        self.labels = [method_label(run, self.runs) for run in self.runs]
        self._registry = registry
        self._planned = [{pair.id for pair in run.plan.pairs} for run in self.runs]
        self.clips: dict[str, Callable[[], Clip]] = {}
        self.outputs: set[str] = set()
        self._shown = [[self._clip_of(pair, index) for index in range(len(self.runs))] for pair in self.pairs]
        self._sources = [[self._source(ref) for ref in (p.content, p.motion, p.target)] for p in self.pairs]

    @property
    def metrics(self) -> list[str]:
        """The metrics that the runs were scored with, or those of the suite if none is scored."""
        records = [load_record(run.record_path) for run in self.runs if run.record_path.exists()]
        return list(dict.fromkeys(name for record in records for name in record.metrics)) or list(
            self.suite.default_metrics
        )

    def _source(self, ref: ClipRef | None) -> dict[str, str] | None:
        """The key of a clip of the suite; None for a pair without this clip."""
        if ref is None:
            return None
        key = preview_key("clip", self.suite.name, self.suite.version, ref.sha256, ref.source.describe())
        self.clips.setdefault(key, partial(_load, ref))
        return {"key": key}

    def _clip_of(self, pair: Pair, index: int) -> dict[str, str]:
        """The key of a run's output, or the reason why there is none."""
        run, result = self.runs[index], self.results[index].get(pair.id)
        if result is None:
            return {"absent": UNFINISHED if pair.id in self._planned[index] else NOT_PLANNED}
        if result.status != "ok":
            return {"failed": result.error or "no reason was recorded"}
        key = preview_key("output", result.output_sha256, result.fps)
        self.clips.setdefault(key, partial(_output, run, result))
        self.outputs.add(key)
        return {"key": key}

    def to_json(self, media: Mapping[str, int], failures: Mapping[str, str]) -> dict[str, Any]:
        """Everything the page shows except the previews: `media` maps keys to their position in the list of previews,
        and `failures` to the reason why there is none."""

        def shown(clip: dict[str, str] | None) -> dict[str, Any] | None:
            if clip is None or "key" not in clip:
                return clip
            key = clip["key"]
            return {"media": media[key]} if key in media else {"failed": failures.get(key, "no preview")}

        records = [load_record(run.record_path) if run.record_path.exists() else None for run in self.runs]
        values = [
            None if record is None else PairValues.load(run.path)
            for run, record in zip(self.runs, records, strict=True)
        ]
        columns = _columns(records, values)
        by_run = [{c["name"]: {} if v is None else v.by_pair(c["name"]) for c in columns} for v in values]
        pairs = []
        for pair, sources, outputs in zip(self.pairs, self._sources, self._shown, strict=True):
            content, motion, target = sources
            pairs.append({
                "id": pair.id,
                "labels": _labels(pair),
                "content": shown(content),
                "motion": shown(motion),
                "target": shown(target),
                "outputs": [shown(output) for output in outputs],
                "values": [[_rounded(one[c["name"]].get(pair.id), c["scale"]) for c in columns] for one in by_run],
            })  # fmt: skip
        plan = self.runs[0].plan.suite
        return {
            "suite": {"name": plan.name, "version": plan.version, "manifest": plan.manifest_sha256,
                      "pairs": len(self.suite.pairs)},
            "runs": [_run(*one) for one in zip(self.runs, self.labels, records, self.results, strict=True)],
            "columns": columns,
            "tables": self._tables(),
            "pairs": pairs,
        }  # fmt: skip

    def _tables(self) -> list[dict[str, Any]]:
        """The tables of `bcd-bench report`; none if no run is scored."""
        scored = [run.record_path for run in self.runs if run.record_path.exists()]
        if not scored:
            return []
        rows = collect_rows(scored, registry=self._registry)
        return tables_json(build_tables(rows), [*conflict_notes(rows)], heading="Leaderboard")


def _common_suite(runs: Sequence[RunFolder], registry: Registry) -> Suite:
    suites = {run.plan.suite.manifest_sha256: run.plan.suite for run in runs}
    if len(suites) > 1:
        names = sorted(f"{suite.name}@{suite.version}" for suite in suites.values())
        raise UsageError(
            f"a gallery shows runs of one suite, and these are of {len(suites)}: {', '.join(names)}",
            hint="bcd-bench view RUN… with run folders of one suite, such as runs/SUITE@VERSION",
        )
    return runs[0].suite(registry)


def _load(ref: ClipRef) -> Clip:
    with plugin_code(f"clip {ref.id!r}", "cannot be loaded"):
        return ref.load()


def _output(run: RunFolder, result: PairResult) -> Clip:
    try:
        return run.read_output(result)
    except FileNotFoundError:
        raise UsageError(f"the output {run.output_path(result.id).name} is missing") from None
    except BcdBenchError as error:  # the page is shown to others: no path of this machine
        raise UsageError(str(error).replace(f"{run.outputs_dir}/", "")) from error


def _labels(pair: Pair) -> dict[str, str]:
    """The labels of a pair and its clips; those of a clip are prefixed with its role."""
    labels = {name: str(value) for name, value in pair.labels.items()}
    for role, ref in (("content", pair.content), ("motion", pair.motion)):
        labels |= {f"{role} {name}": str(value) for name, value in ref.labels.items()}
    return labels


def _columns(records: Sequence[RunRecord | None], values: Sequence[PairValues | None]) -> list[dict[str, Any]]:
    """The columns with per-pair values, those of the table first; rates are in percent, as in the table."""
    columns: dict[str, dict[str, Any]] = {}
    for record, one in zip(records, values, strict=True):
        if record is None or one is None:
            continue
        for name in (name for name in record.values if one.by_pair(name)):
            info = record.values[name]
            columns.setdefault(name, {
                "name": name, "unit": info.unit, "decimals": info.decimals, "higher": info.higher_is_better,
                "definition": info.definition, "headline": info.headline, "scale": 100 if info.kind == "rate" else 1,
                "metric": info.metric,
            })  # fmt: skip
    return sorted(columns.values(), key=lambda column: not column["headline"])


def _rounded(value: float | None, scale: int) -> float | None:
    return None if value is None else float(f"{value * scale:.6g}")


def _run(run: RunFolder, label: str, record: RunRecord | None, results: Mapping[str, PairResult]) -> dict[str, Any]:
    plan = run.plan
    weights = plan.weights
    recipe = weights.recipe if weights else None
    notes = {
        "reference method": plan.method.reference,
        "random weights": plan.seeded,
        "part of the suite": plan.partial,
    }
    return {
        "label": label,
        "run": plan.run_id,
        "method": f"{plan.method.name} {plan.method.version}",
        "plugin": f"{plan.method.dist} {plan.method.dist_version}",
        "weights": f"{weights.name} (sha256 {weights.sha256[:12]})" if weights else "",
        "recipe": recipe.label if recipe else "",
        "version": record.provenance.bcd_bench if record else "",
        "seed": plan.seed,
        "device": plan.device,
        "finished": len(results),
        "failed": sum(result.status != "ok" for result in results.values()),
        "planned": len(plan.pairs),
        "scored": record is not None,
        "notes": [note for note, holds in notes.items() if holds],
    }
