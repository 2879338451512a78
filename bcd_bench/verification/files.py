"""Checks of a record against the files next to it: they need no plugin, no suite and no output.

`values.json` holds the value of every pair, so values, counts and intervals of the record can be computed again. In a
run folder or a bundle, `plan.json` and `pairs.jsonl` hold what the run's id and the hash of its outputs are made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bcd_bench.assets.hashing import hash_json_list
from bcd_bench.io.atomic import iterate_jsonl
from bcd_bench.results.schema import PairValues, RunRecord
from bcd_bench.run.fingerprint import pair_seed, run_id
from bcd_bench.run.folder import PairResult
from bcd_bench.run.plan import RunPlan, read_plan
from bcd_bench.types.errors import UsageError
from bcd_bench.verification.check import Check, failed, passed, skipped
from bcd_bench.verification.values import check_intervals, check_values

__all__ = ["check_files", "first_failure"]


def check_files(record: RunRecord, folder: Path) -> list[Check]:
    """All checks of `record` that the files in `folder` allow, in a fixed order."""
    return list(_checks(record, folder))


def first_failure(record: RunRecord, folder: Path) -> str:
    """The finding of the first check that fails; empty if none does."""
    return next((check.detail for check in _checks(record, folder) if check.status == "failed"), "")


def _checks(record: RunRecord, folder: Path) -> Iterator[Check]:
    yield _counts(record)
    try:
        values = PairValues.load(folder)
    except UsageError as error:
        yield failed("per-pair values", _without_folder(error, folder))
        return
    if values is None:
        yield skipped("per-pair values", "there is no values.json, so values and intervals cannot be computed again")
    else:
        yield _pairs(record, values)
        yield check_values(record, values)
        yield check_intervals(record, values)
    plan: RunPlan | None = None
    if (folder / "plan.json").exists():
        try:
            plan = read_plan(folder / "plan.json")
        except UsageError as error:
            yield failed("run id", _without_folder(error, folder))
            return
        yield _run_id(record, plan, values)
    else:
        yield skipped("run id", "there is no plan.json, which holds what the run's id is made of")
    if plan is not None and (folder / "pairs.jsonl").exists():
        yield _outputs(record, plan, folder / "pairs.jsonl")
    else:
        yield skipped("hash of the outputs", "there is no pairs.jsonl, which holds the hash of every output")


def _without_folder(error: UsageError, folder: Path) -> str:
    return str(error).replace(f"{folder}/", "").replace(str(folder), "the folder")


def _counts(record: RunRecord) -> Check:
    name = "counts"
    planned = record.suite.n_pairs if record.limit is None else record.limit
    if record.n_pairs != planned:
        whole = "the suite has" if record.limit is None else "the limit is"
        return failed(name, f"the record is of {record.n_pairs} pairs, but {whole} {planned}")
    if record.n_pairs > record.suite.n_pairs:
        return failed(name, f"the record is of {record.n_pairs} pairs, but the suite has {record.suite.n_pairs}")
    told = sum(record.failures.values())
    if told != record.n_failed:
        return failed(name, f"{record.n_failed} pairs failed, but the reasons are those of {told}")
    return passed(name, f"{record.n_pairs} of {record.suite.n_pairs} pairs, {record.n_failed} of them failed")


def _pairs(record: RunRecord, values: PairValues) -> Check:
    if len(values.pairs) != record.n_pairs:
        return failed("pairs", f"values.json has {len(values.pairs)} pairs, but the record {record.n_pairs}")
    return passed("pairs", f"values.json has each of the {record.n_pairs} pairs once")


def _run_id(record: RunRecord, plan: RunPlan, values: PairValues | None) -> Check:
    """The plan against its fingerprint, and the record against the plan."""
    name, identity = "run id", plan.identity
    computed = run_id(identity)
    if computed != record.run_id:
        return failed(name, f"run id is {record.run_id}, but the plan's fingerprint gives {computed}")
    method = identity.get("method", {})
    told = {
        "run id": (record.run_id, plan.run_id),
        "manifest": (record.suite.manifest_sha256, identity.get("manifest_sha256"), plan.suite.manifest_sha256),
        "suite": (record.suite.name, plan.suite.name),
        "suite version": (record.suite.version, plan.suite.version),
        "suite size": (record.suite.n_pairs, plan.suite.n_pairs),
        "limit": (record.limit, identity.get("limit"), plan.limit),
        "method": (record.method.name, method.get("name"), plan.method.name),
        "method version": (record.method.version, method.get("version"), plan.method.version),
        "method config": (record.method.config, method.get("config")),
        "seed": (record.seed, identity.get("seed"), plan.seed),
        "dtype": (record.dtype, identity.get("dtype"), plan.dtype),
        "device": (record.device, plan.device),
        "reference": (record.method.reference, plan.method.reference),
        "random weights": (record.seeded, plan.seeded),
        "no fingerprint": (record.unhashed, plan.unhashed),
        "weights": (record.method.weights, {plan.weights.name: plan.weights.sha256} if plan.weights else {}),
    }
    for field, found in told.items():
        if any(value != found[0] for value in found[1:]):
            return failed(name, f"{field} of the record is not that of the plan: {_shown(found)}")
    hashed = identity.get("weights", [])
    for weights, sha256 in record.method.weights.items():
        if sha256 not in hashed:
            return failed(name, f"weights {weights} have sha256 {sha256[:12]}, which is not in the plan's fingerprint")
    ids = [pair.id for pair in plan.pairs]
    if wrong := _differing(ids, values.pairs if values is not None else ids, "the plan", "values.json"):
        return failed(name, wrong)
    if len(ids) != record.n_pairs:
        return failed(name, f"the plan has {len(ids)} pairs, but the record {record.n_pairs}")
    for pair in plan.pairs:
        if pair.seed != pair_seed(plan.seed, pair.id):
            return failed(name, f"the seed of pair {pair.id} is not that of run seed {plan.seed}")
    return passed(name, f"{record.run_id} is the hash of the plan's fingerprint")


def _outputs(record: RunRecord, plan: RunPlan, path: Path) -> Check:
    name = "hash of the outputs"
    found: list[str] = []
    keys: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    for result in map(PairResult.from_json, iterate_jsonl(path)):
        if result is not None:
            found.append(result.id)
            keys[result.id] = result.score_key
            if result.status == "failed":
                reasons[result.error or "failed"] += 1
    planned = [pair.id for pair in plan.pairs]
    if wrong := _differing(planned, found, "the plan", "pairs.jsonl"):
        return failed(name, wrong)
    outputs = hash_json_list([pair, keys[pair]] for pair in planned)
    if outputs != record.outputs_sha256:
        return failed(
            name, f"outputs_sha256 is {record.outputs_sha256[:12]}, but the outputs in pairs.jsonl give {outputs[:12]}"
        )
    if dict(reasons) != record.failures:
        return failed(name, f"{sum(reasons.values())} pairs of pairs.jsonl failed, but {record.n_failed} of the record")
    return passed(name, f"{record.outputs_sha256[:12]} is the hash of the outputs in pairs.jsonl")


def _differing(first: list[str], second: list[str], a: str, b: str) -> str:
    """The first difference between two lists of pairs, as a clause; empty if they are equal."""
    for ids, where in ((first, a), (second, b)):
        doubled = [pair for pair, number in Counter(ids).items() if number > 1]
        if doubled:
            return f"pair {doubled[0]} is in {where} {ids.count(doubled[0])} times"
    for missing, here, there in (
        (sorted(set(first) - set(second)), a, b),
        (sorted(set(second) - set(first)), b, a),
    ):
        if missing:
            more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
            return f"pair {missing[0]}{more} in {here}, but not in {there}"
    return "" if first == second else f"the pairs of {a} and {b} are in a different order"


def _shown(found: tuple[object, ...]) -> str:
    texts = list(dict.fromkeys(str(value) for value in found))
    return " and ".join(text if len(text) <= 80 else f"{text[:77]}..." for text in texts)
