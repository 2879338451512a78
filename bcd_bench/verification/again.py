"""The expensive checks: outputs rescored (`--rescore`), and random pairs regenerated (`--rerun`)."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bcd_bench.results.build import build_record
from bcd_bench.results.schema import PairValues, RunRecord, Value
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import RunPlan, make_plan, read_plan
from bcd_bench.scoring.score import check_metrics, missing_assets, score_run
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.verification.check import Check, failed, passed, skipped
from bcd_bench.verification.installed import find_suite, find_weights, known_data

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.util.progress import Progress

__all__ = ["DEVICE_TOLERANCE", "check_rerun", "check_rescored"]

EQUAL = 1e-6
"""Relative difference below which two numbers count as equal."""
DEVICE_TOLERANCE = 0.05
"""What another device or library may change: the root mean square difference of the values of pairs, in standard
deviations of the column; for a column of whole sets, in half widths of its interval."""


def check_rescored(
    registry: Registry,
    record: RunRecord,
    folder: Path,
    *,
    outputs: Path | None = None,
    data: Mapping[str, Path] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Check:
    """Score the outputs in `outputs` (default: those of the run folder) without stored scores, and compare the values.

    Needs `plan.json` and `pairs.jsonl` next to the record. An output that is missing, or whose frames do not have the
    recorded hash, is a failure.
    """
    name = "rescored"
    outputs = (outputs or folder / "outputs").absolute()
    if not (folder / "plan.json").exists() or not (folder / "pairs.jsonl").exists():
        return skipped(name, "needs plan.json and pairs.jsonl: a run folder or a bundle")
    if not outputs.is_dir():
        return skipped(name, f"there is no folder {outputs.name} with the outputs; --outputs DIR names one")
    try:
        suite = find_suite(registry, record, known_data(folder, data or {}))
        names, lacking = _scorable(registry, record, record.metrics)
    except BcdBenchError as error:
        return skipped(name, str(error))
    with tempfile.TemporaryDirectory(prefix="bcd-bench-rescore-") as temporary:
        copy = Path(temporary) / "run"
        copy.mkdir()
        for file in ("plan.json", "pairs.jsonl"):
            shutil.copyfile(folder / file, copy / file)
        (copy / "scores").mkdir()
        (copy / "outputs").symlink_to(outputs)
        run = RunFolder(copy)
        for result in run.pairs().values():
            if result.status != "ok":
                continue
            try:
                run.read_output(result)
            except (BcdBenchError, OSError, ValueError):
                return failed(name, f"the output of pair {result.id} is missing, or its frames have another hash")
        results = score_run(registry, run, names, device=device, progress=progress, suite=suite)
        scored, values = _as_recorded(record, *build_record(registry, run, results))
    stored = PairValues.load(folder)
    near = []
    for column, value in record.values.items():
        if value.metric not in names:
            continue
        again = scored.get(column)
        if again is None:
            return failed(name, f"{column} is not scored by the installed {value.metric}")
        deviation = _deviation(column, value, again, stored, values)
        if deviation > DEVICE_TOLERANCE:
            told = "nothing" if again.value is None else f"{again.value:.9g}"
            given = "nothing" if value.value is None else f"{value.value:.9g}"
            return failed(name, f"{column} is {given}, but the outputs give {told}")
        if deviation > 0:
            near.append(column)
    counted = f"{sum(value.metric in names for value in record.values.values())} columns are those of the outputs"
    counted += f", within the tolerance of another device: {', '.join(near)}" if near else ""
    return passed(name, counted + (f"; not scored: {', '.join(lacking)}" if lacking else ""))


def check_rerun(
    registry: Registry,
    record: RunRecord,
    folder: Path,
    number: int,
    *,
    seed: int = 0,
    weights: str | None = None,
    data: Mapping[str, Path] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Check:
    """Make the outputs of `number` random pairs again, in their own batches, and compare their hashes.

    If a hash differs (as on another device), or if there is no `pairs.jsonl`, the new outputs are scored and their
    values compared, with a tolerance of `DEVICE_TOLERANCE`. `weights` is as in `check_installed`.
    """
    name = "rerun"
    values = PairValues.load(folder)
    recorded = read_plan(folder / "plan.json") if (folder / "plan.json").exists() else None
    try:
        suite = find_suite(registry, record, known_data(folder, data or {}))
        plan = make_plan(
            registry,
            record.method.name,
            suite,
            weights=find_weights(registry, record, weights),
            config=record.method.config if recorded is None else recorded.method.config,
            seed=record.seed,
            limit=record.limit,
            device=device,
        )
    except BcdBenchError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return skipped(name, f"cannot be regenerated here: {error}{hint}")
    if recorded is not None:
        plan = plan.model_copy(update={"batch_size": recorded.batch_size})
    chosen = sorted(random.Random(seed).sample(range(len(plan.pairs)), min(number, len(plan.pairs))))
    ids = [plan.pairs[index].id for index in chosen]
    part, part_suite = _part(plan, suite, chosen)
    other = "" if plan.run_id == record.run_id else f" (run {plan.run_id} with the code and weights installed here)"
    with tempfile.TemporaryDirectory(prefix="bcd-bench-rerun-") as temporary:
        try:
            run, _ = generate(registry, part, part_suite, Path(temporary), progress=progress)
        except Interrupted:
            raise
        except BcdBenchError as error:
            return failed(name, f"the pairs could not be regenerated: {error}{other}")
        again = run.pairs()
        if recorded is not None and (folder / "pairs.jsonl").exists():
            before = RunFolder(folder).pairs()
            changed = [i for i in ids if i not in before or before[i].score_key != again[i].score_key]
            if not changed:
                return passed(name, f"{len(ids)} random pairs have the same outputs{other}")
            difference = f"{len(changed)} of {len(ids)} random pairs have other frames, first {changed[0]}"
        else:
            difference = "there are no hashes of outputs to compare"
        if values is None:
            return failed(name, f"{difference}, and there are no values to compare{other}")
        try:
            per_pair = {value.metric for column, value in record.values.items() if column in values.columns}
            names, _ = _scorable(registry, record, per_pair)
        except BcdBenchError as error:
            return failed(name, f"{difference}, and they cannot be scored: {error}{other}")
        results = score_run(registry, run, names, device=device, suite=part_suite)
        _, scored = _as_recorded(record, *build_record(registry, run, results))
    if scored is None:
        return failed(name, f"{difference}, and there is no metric to score them{other}")
    worst, column = max((_pairs_deviation(ids, values, scored, key), key) for key in scored.columns)
    told = f"values differ by at most {worst:.2g} standard deviations (of {column})"
    if worst > DEVICE_TOLERANCE:
        return failed(name, f"{difference}, and {told}{other}")
    return passed(name, f"{difference}, but their {told}{other}")


def _scorable(
    registry: Registry, record: RunRecord, wanted: Mapping[str, object] | set[str]
) -> tuple[list[str], list[str]]:
    """The metrics of a record that can be scored here, and the others that it has values of."""
    scored = [n for n, info in record.metrics.items() if n in wanted and not info.error and not info.missing]
    installed = [name for name in scored if name in registry.metrics]
    missing = missing_assets(registry, check_metrics(registry, record.suite.name, installed))
    names = [name for name in installed if name not in missing]
    if not names:
        raise UsageError("no metric of the record is installed with its assets")
    return names, [name for name in scored if name not in names]


def _as_recorded(
    record: RunRecord, scored: RunRecord, values: PairValues | None
) -> tuple[dict[str, Value], PairValues | None]:
    """The columns of `scored` and its values of pairs, under the names that the record has for them.

    Of two metrics with a column of the same name, the one that was scored first has it without a prefix, and here the
    order may be another one.
    """

    def column(key: str, value: Value) -> tuple[str, str]:
        return value.metric, key.removeprefix(f"{value.metric}.")

    known = {column(key, value): key for key, value in record.values.items()}
    names = {key: known.get(column(key, value), key) for key, value in scored.values.items()}
    if values is not None:
        values = values.model_copy(update={"columns": {names[key]: row for key, row in values.columns.items()}})
    return {names[key]: value for key, value in scored.values.items()}, values


def _part(plan: RunPlan, suite: Suite, chosen: Sequence[int]) -> tuple[RunPlan, Suite]:
    """The batches of the chosen pairs, complete, since results can depend on the size of a batch."""
    indices = [index for batch in plan.batches() if set(batch) & set(chosen) for index in batch]
    part = plan.model_copy(update={"pairs": tuple(plan.pairs[index] for index in indices)})
    return part, replace(suite, pairs=[suite.pairs[index] for index in indices])


def _deviation(column: str, old: Value, new: Value, stored: PairValues | None, scored: PairValues | None) -> float:
    """How far a column is from the recorded one, in the unit of `DEVICE_TOLERANCE`; 0 if it is equal."""
    if old.value is None or new.value is None:
        return 0.0 if old.value == new.value else math.inf
    if stored is not None and scored is not None and column in stored.columns and column in scored.columns:
        return _pairs_deviation(stored.pairs, stored, scored, column)
    difference = abs(old.value - new.value)
    if difference <= EQUAL * max(abs(old.value), 1e-6):
        return 0.0
    half = (old.ci_high - old.ci_low) / 2 if old.ci_low is not None and old.ci_high is not None else 0.0
    return difference / half if half else difference / max(abs(old.value), 1e-6)


def _pairs_deviation(ids: Sequence[str], stored: PairValues, scored: PairValues, column: str) -> float:
    old, new = stored.by_pair(column), scored.by_pair(column)
    if any((pair in old) != (pair in new) for pair in ids):
        return math.inf
    both = [pair for pair in ids if pair in old]
    if not both:
        return 0.0
    differences = np.array([old[pair] - new[pair] for pair in both])
    everything = np.array(list(old.values()))
    rms = float(np.sqrt(np.mean(differences**2)))
    if rms <= EQUAL * float(np.abs(everything).max()) + 1e-12:
        return 0.0
    spread = float(everything.std())
    return rms / spread if spread else math.inf
