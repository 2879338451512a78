"""`bcd-bench run`: generate, score and record methods on a suite."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, parse_data, parse_settings, print_error, print_notes, split_names
from bcd_bench.cli.complete import methods, metrics, suites
from bcd_bench.cli.tables import exit_code, print_runs
from bcd_bench.cli.workers import Devices, Jobs, LogJson, Timeout, open_workers
from bcd_bench.scoring.missing_metrics import by_reason, these_metrics
from bcd_bench.types.errors import BcdBenchError, Interrupted
from bcd_bench.util.devices import DEVICES
from bcd_bench.util.progress import open_progress

if TYPE_CHECKING:
    from bcd_bench.run.folder import RunFolder
    from bcd_bench.run.pipeline import Prepared
    from bcd_bench.run.plan import RunPlan

EXAMPLES = (
    "bcd-bench run --method bcd --suite sprites-procedural --limit 64",
    "bcd-bench run --method bcd,oracle --suite heads-cross-128 --device cuda --metric csim,target-psnr",
    "bcd-bench run --method bcd --suite lrs3-cross --data lrs3=/data/lrs3 --set steps=10 --dry-run",
    "bcd-bench run --method bcd --suite sprites-procedural --jobs 8 --timeout 600 --shard 1/4",
)


def _print_plan(plan: RunPlan, metrics: Sequence[str], out: Path) -> None:
    """Print the plan of a run and its progress, without writing files."""
    from bcd_bench.run.folder import RunFolder

    folder = out / plan.folder
    finished = len(RunFolder(folder).finished()) if (folder / "plan.json").exists() else 0
    batches = sum(1 for _ in plan.batches())
    part = f" of {plan.suite.n_pairs}" if plan.partial else ""
    print(f"{plan.method.name} {plan.method.version} on {plan.suite.name}@{plan.suite.version}")
    print(f"  pairs     {len(plan.pairs)}{part}, {finished} finished; {batches} batches of up to {plan.batch_size}")
    print(f"  settings  {', '.join(f'{key}={value}' for key, value in plan.method.config.items()) or 'none'}")
    weights = f"{plan.weights.name} (sha256 {plan.weights.sha256[:12]}…)" if plan.weights else "none"
    weights = "random: a test of the pipeline, never ranked" if plan.seeded else weights
    print(f"  weights   {weights}")
    print(f"  seed      {plan.seed}, device {plan.device}, {plan.dtype}")
    print(f"  metrics   {', '.join(metrics) or 'none'}")
    print(f"  folder    {folder}")


def _print_missing(prepared: Iterable[Prepared]) -> bool:
    """Print the metrics that will not be scored, and the fix. Returns whether there are any."""
    missing = ((name, error) for item in prepared for name, error in item.missing.items())
    reasons = by_reason((name, (" ".join(str(error).split()), str(error.hint))) for name, error in missing)
    for (reason, hint), names in reasons.items():
        print(f"note: {these_metrics(names)} will not be scored: {reason}", file=sys.stderr)
        print(f"hint: {hint}", file=sys.stderr)
    return bool(reasons)


def _print_part(part: RunFolder) -> bool:
    """Print the state of a finished shard. Returns whether pairs failed."""
    from bcd_bench.run.merge import unfinished

    results = part.pairs().values()
    n_failed = sum(result.status == "failed" for result in results)
    waiting = unfinished(part.root())
    print(f"shard {part.shard}: {len(results)} pairs finished, {n_failed} failed")
    print(f"run folder: {part.path}")
    if waiting:
        print(f"not merged yet: shard {', shard '.join(waiting)}", file=sys.stderr)
        print(f"hint: the last shard merges; or bcd-bench merge {part.path}", file=sys.stderr)
    return n_failed > 0


def command(
    method: Annotated[
        list[str],
        typer.Option(metavar="M[,M…]", help="Methods, see `bcd-bench list methods`.", autocompletion=methods),
    ],
    suite: Annotated[str, typer.Option(metavar="S", help="Suite, see `bcd-bench list suites`.", autocompletion=suites)],
    weights: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Weights (default: those for the suite).")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data for the suite.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting of the method.")
    ] = None,
    config: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M[,M…]",
            help="Metrics (default: those of the suite and the method).",
            autocompletion=metrics,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Only the first N pairs; such a run is never ranked.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
    executor: Annotated[str, typer.Option(metavar="NAME", help="How batches are distributed.")] = "local",
    jobs: Jobs = None,
    devices: Devices = None,
    timeout: Timeout = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N|auto", help="Only part I of N; auto reads Slurm's or torchrun's variables."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for all runs.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan without running it.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed pairs again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if a default metric is missing an asset.")] = False,
    log_json: LogJson = None,
) -> int:
    """Generate, score and record methods on a suite.

    An interrupted run resumes with the same command; its outputs are byte-identical.
    """
    from bcd_bench.run.pipeline import Runs, prepare_all, run_all
    from bcd_bench.run.shard import Shard

    part = None if shard is None else Shard.parse(shard)
    registry, names = load(), split_names(method, "--method")
    metrics = split_names(metric, "--metric") or None
    registry.executor(executor)
    prepared = prepare_all(
        registry,
        names,
        suite,
        weights=weights,
        settings=parse_settings([*(settings or []), *(config or [])], "--set"),
        data=parse_data(data or []),
        metrics=metrics,
        limit=limit,
        seed=seed,
        device=device,
        strict=strict,
    )
    print_notes(dict.fromkeys(note for item in prepared.values() for note in item.notes))
    if dry_run:
        for item in prepared.values():
            _print_plan(item.plan, [f"{m} (not scored)" if m in item.missing else m for m in item.metrics], out)
    some_missing = _print_missing(prepared.values())
    if dry_run:
        return 0
    workers = open_workers(jobs, next(iter(prepared.values())).plan.device, devices, timeout)

    def announce(name: str) -> None:
        if len(names) > 1:
            print(f"{name} on {suite}", file=sys.stderr)

    def report(name: str, error: BcdBenchError) -> None:
        if len(names) == 1:
            raise error
        print_error(error, name)

    options: dict[str, Any] = {"executor": executor, "out": out, "retry_failed": retry_failed, "shard": part}
    options |= {"jobs": workers.jobs, "pool": workers.pool, "progress": open_progress(log=log_json)}
    runs = Runs()
    try:
        run_all(registry, prepared, runs=runs, on_start=announce, on_error=report, **options)
    except Interrupted:
        print_runs([folder.path for folder in runs.folders if folder.shard is None])
        raise
    folders = [folder.path for folder in runs.folders if folder.shard is None]
    print_runs(folders)
    failed = [_print_part(folder) for folder in runs.folders if folder.shard is not None]
    first = next(iter(runs.errors.values()), None)
    if first is not None:
        return first.exit_code
    return exit_code(folders, required=metrics or (None if strict else ()), told=some_missing) or int(any(failed))
