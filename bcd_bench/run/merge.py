"""Merges the shards of a run: pairs, scores and environments become those of one run, then the record is written.

Nothing is locked between machines. Every shard has its own folder, and says in `done.json` that it is finished; the
shard that finds all others finished merges them, or `bcd-bench merge` does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.io.atomic import read_jsonl, write_json_atomic, write_text_atomic
from bcd_bench.results.build import write_record
from bcd_bench.results.schema import TIMING_NAME
from bcd_bench.run.folder import PairResult, RunFolder, writing
from bcd_bench.run.shard import SHARDS, Shard
from bcd_bench.run.timing import read_timing
from bcd_bench.scoring.score import score_run
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.types.suite import Suite
    from bcd_bench.util.pool import PoolOptions
    from bcd_bench.util.progress import Progress

__all__ = ["DONE", "mark_done", "merge", "unfinished", "unmark_done"]

DONE = "done.json"
"""Written last by a shard: the names of the metrics that it has scored."""


def mark_done(part: RunFolder, metrics: Sequence[str]) -> None:
    """Note that a shard has generated and scored all of its pairs."""
    with writing(part.path):
        write_json_atomic(part.part / DONE, {"metrics": list(metrics)})


def unmark_done(path: Path, shard: Shard) -> None:
    """Take back `mark_done`, before failed pairs of a shard of the run in `path` are tried again."""
    with writing(path):
        (path / SHARDS / shard.name / DONE).unlink(missing_ok=True)


def _done(part: RunFolder) -> list[str] | None:
    """The metrics of a finished shard; None if it is not finished."""
    try:
        content = json.loads((part.part / DONE).read_bytes())
        return [str(name) for name in content["metrics"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unfinished(run: RunFolder) -> list[str]:
    """One clause per shard that is missing or not finished, such as "3/4 is missing"; empty if all can be merged.

    Raises `UsageError` if the shards are not of one number, or a shard contains pairs of another one.
    """
    parts = run.shards()
    if not parts:
        raise UsageError(f"{run.path} has no shards", hint="bcd-bench run … --shard I/N")
    counts = sorted({shard.count for shard in parts})
    if len(counts) > 1:
        names = "; ".join(
            f"of {count}: {', '.join(str(shard.number) for shard in parts if shard.count == count)}" for count in counts
        )
        raise UsageError(
            f"{run.path} contains shards of {len(counts)} different numbers ({names})",
            hint=f"remove those of one number: {run.path / SHARDS}/*-of-{counts[0]:04d}",
        )
    found: list[str] = []
    for number in range(1, counts[0] + 1):
        shard = Shard(number, counts[0])
        part = parts.get(shard)
        planned = [run.plan.pairs[index].id for index in RunFolder(run.path, shard).indices()]
        if part is None or not planned:
            found += [f"{shard} is missing"] if planned else []
            continue
        expected = set(planned)
        foreign = next((pair for pair in part.pairs() if pair not in expected), None)
        if foreign is not None:
            raise UsageError(
                f"shard {shard} contains pair {foreign} of another shard",
                hint=f"remove {part.part} and run with --shard {shard}",
            )
        n_done = len(part.finished())
        if n_done < len(planned):
            found.append(f"{shard} has {n_done} of {len(planned)} pairs")
        elif _done(part) is None:
            found.append(f"{shard} is not scored")
    return found


def merge(
    registry: Registry,
    path: Path,
    *,
    device: str | None = None,
    jobs: int = 1,
    pool: PoolOptions | None = None,
    progress: Progress | None = None,
    suite: Suite | None = None,
) -> RunFolder:
    """Merge the shards of the run in `path`, write its record, and remove the folders of the shards.

    The record is byte-identical to that of a run without shards. Set metrics are added up here, from the cached
    features; where the shards had a cache of their own, the features are extracted again. Can be repeated after an
    interruption. Raises `UsageError` if shards are missing, unfinished or of different numbers.
    """
    run = RunFolder(path)
    parts = run.shards()
    with run.locked():
        if not run.complete:
            if open_shards := unfinished(run):
                raise UsageError(
                    f"{path} cannot be merged: shard {', shard '.join(open_shards)}",
                    hint="run the same command with --shard "
                    + ", ".join(text.partition(" ")[0] for text in open_shards),
                )
            with writing(path):
                _collect(run, parts)
        elif not parts:
            raise UsageError(f"{path} has no shards, or they are merged already", hint=f"bcd-bench score {path}")
    metrics = list(dict.fromkeys(name for part in parts.values() for name in _done(part) or ()))
    results = score_run(
        registry, run, metrics, device=device or run.plan.device, jobs=jobs, pool=pool, progress=progress, suite=suite
    )
    write_record(registry, run, results)
    with writing(path):
        shutil.rmtree(run.part / SHARDS)
    return run


def _collect(run: RunFolder, parts: Mapping[Shard, RunFolder]) -> None:
    """Write scores, environment and timing of all shards, and last the pairs, which make the run complete."""
    results: dict[str, PairResult] = {}
    for part in parts.values():
        results |= part.pairs()
    for metric in sorted({file.name for part in parts.values() for file in part.scores_dir.glob("*.jsonl")}):
        _merge_rows(run, metric, [part.scores_dir / metric for part in parts.values()])
    environments = [part.env() for part in parts.values() if part.env()]
    if environments:
        write_json_atomic(run.env_path, _one_environment(environments))
    shards = {shard.name: read_timing(part.part) for shard, part in parts.items()}
    write_json_atomic(run.part / TIMING_NAME, {**read_timing(run.part), "shards": shards})
    run.rewrite_pairs({pair.id: results[pair.id] for pair in run.plan.pairs})


def _merge_rows(run: RunFolder, name: str, files: Iterable[Path]) -> None:
    """Write the rows of one metric in the order of the plan."""
    header: dict[str, Any] | None = None
    rows: dict[str, dict[str, Any]] = {}
    for lines in filter(None, map(read_jsonl, files)):
        if header is not None and lines[0] != header:
            raise UsageError(
                f"metric {lines[0].get('metric')} was scored with different versions in the shards of {run.path}",
                hint="install the same plugins everywhere, and run all shards again",
            )
        header = lines[0]
        rows |= {line["pair"]: line for line in lines[1:] if "pair" in line}
    planned = [rows[pair.id] for pair in run.plan.pairs if pair.id in rows]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in [header, *planned])
    write_text_atomic(run.scores_dir / name, text)


def _one_environment(environments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first environment, with all different ones added as those of a resumed run are."""
    first, others = environments[0], [dict(other) for other in environments[1:]]
    found = list(first.pop("resumed_in", []))
    for other in others:
        for candidate in (other, *other.pop("resumed_in", [])):
            if candidate != first and candidate not in found:
                found.append(candidate)
    return {**first, "resumed_in": found} if found else first
