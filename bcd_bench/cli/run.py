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
from bcd_bench.cli.workers import Devices, Executor, Jobs, LogJson, Timeout, open_workers
from bcd_bench.scoring.missing_metrics import by_reason, these_metrics
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.util.devices import DEVICES
from bcd_bench.util.progress import format_seconds, open_progress

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.estimate import Estimate
    from bcd_bench.run.folder import RunFolder
    from bcd_bench.run.pipeline import Prepared
    from bcd_bench.run.plan import RunPlan
    from bcd_bench.run.request import RunRequest

EXAMPLES = (
    "bcd-bench run --method bcd --suite sprites-procedural --limit 64",
    "bcd-bench run --method bcd,oracle --suite heads-cross-128 --device cuda --metric csim,target-psnr",
    "bcd-bench run --method bcd --suite lrs3-cross --data lrs3=/data/lrs3 --set steps=10 --dry-run",
    "bcd-bench run --file runs.toml --dry-run",
    "bcd-bench run --method bcd --suite sprites-procedural --jobs 8 --timeout 600 --shard 1/4",
)


def _print_plan(plan: RunPlan, metrics: Sequence[str], out: Path, time_needed: Estimate) -> None:
    """Print the plan of a run, its progress and the time it needs."""
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
    seconds = time_needed.seconds
    print(f"  time      {'unknown' if seconds is None else f'about {format_seconds(seconds)}'} ({time_needed.basis})")


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
        list[str] | None,
        typer.Option(metavar="M[,M…]", help="Methods, see `bcd-bench list methods`.", autocompletion=methods),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(metavar="S[,S…]", help="Suites, see `bcd-bench list suites`.", autocompletion=suites),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run what a TOML file lists, see docs/command-line.md.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Weights (default: those for the suite).")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data for the suite.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="Change a setting of the method, or executor.K of the executor."),
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
    pair: Annotated[
        list[str] | None, typer.Option(metavar="ID[,ID…]", help="Only these pairs; such a run is never ranked.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Random seed (default: 0).")] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
    executor: Executor = "local",
    jobs: Jobs = None,
    devices: Devices = None,
    timeout: Timeout = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N|auto", help="Only part I of N; auto reads Slurm's or torchrun's variables."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for all runs.")] = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and an estimate of its time; run nothing.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed pairs again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if a default metric is missing an asset.")] = False,
    log_json: LogJson = None,
) -> int:
    """Generate, score and record methods on suites.

    An interrupted run resumes with the same command; its outputs are byte-identical.
    """
    from bcd_bench.run.executors import split_settings
    from bcd_bench.run.request import RunRequest, prepare_requests, read_run_file
    from bcd_bench.run.shard import Shard

    part = None if shard is None else Shard.parse(shard)
    registry = load()
    spec = registry.executor(executor)
    all_settings = parse_settings([*(settings or []), *(config or [])], "--set")
    method_settings, executor_settings = split_settings(all_settings)
    if file is not None:
        given = {
            "--method": method, "--suite": suite, "--weights": weights, "--data": data,
            "--set": method_settings or None, "--metric": metric, "--limit": limit, "--pair": pair, "--seed": seed,
        }  # fmt: skip
        both = [name for name, value in given.items() if value is not None]
        if both:
            raise UsageError(f"{both[0]} and --file exclude each other: the file says what is run")
        requests = read_run_file(file.expanduser())
    else:
        if not method or not suite:
            raise UsageError(
                f"run needs {'--suite' if method else '--method'}", hint="--method M --suite S, or --file runs.toml"
            )
        requests = [
            RunRequest(
                split_names(method, "--method"),
                split_names(suite, "--suite"),
                weights,
                method_settings,
                parse_data(data or []),
                split_names(metric, "--metric") or None,
                limit,
                pair or None,
                seed or 0,
            )
        ]
    runs = prepare_requests(registry, requests, device=device, strict=strict)
    every = [item for _, _, prepared in runs for item in prepared.values()]
    print_notes(dict.fromkeys(note for item in every for note in item.notes))
    if dry_run:
        _dry_run(registry, every, out)
    some_missing = _print_missing(every)
    if dry_run:
        return 0
    workers = open_workers(jobs, every[0].plan.device, devices, timeout, spec, executor_settings)
    options: dict[str, Any] = {"executor": executor, "out": out, "retry_failed": retry_failed, "shard": part}
    options |= {"jobs": workers.jobs, "pool": workers.pool, "progress": open_progress(log=log_json)}
    return _run_all(registry, runs, strict=strict, some_missing=some_missing, options=options)


def _dry_run(registry: Registry, prepared: Sequence[Prepared], out: Path) -> None:
    """Print every plan, and the time of all of them if there are several."""
    from bcd_bench.run.estimate import estimate

    times = [estimate(registry, item, out) for item in prepared]
    for item, needed in zip(prepared, times, strict=True):
        shown = [f"{name} (not scored)" if name in item.missing else name for name in item.metrics]
        _print_plan(item.plan, shown, out, needed)
    known = [needed.seconds for needed in times if needed.seconds is not None]
    if len(times) > 1:
        unknown = len(times) - len(known)
        rest = f", and {unknown} run{'s' if unknown > 1 else ''} of unknown time" if unknown else ""
        print(f"{len(times)} runs: about {format_seconds(sum(known))}{rest}")


def _run_all(
    registry: Registry,
    runs: Sequence[tuple[RunRequest, str, dict[str, Prepared]]],
    *,
    strict: bool,
    some_missing: bool,
    options: dict[str, Any],
) -> int:
    """Run and print everything. A method that fails does not stop the others. Returns the exit code."""
    from bcd_bench.run.pipeline import Runs, run_all

    several = sum(len(prepared) for *_, prepared in runs) > 1
    folders: list[Path] = []
    parts: list[RunFolder] = []
    required: list[tuple[list[Path], Sequence[str] | None]] = []
    first: BcdBenchError | None = None
    for request, suite, prepared in runs:
        finished = Runs()

        def announce(name: str, suite: str = suite) -> None:
            if several:
                print(f"{name} on {suite}", file=sys.stderr)

        def report(name: str, error: BcdBenchError, suite: str = suite) -> None:
            if not several:
                raise error
            print_error(error, name if len(runs) == 1 else f"{name} on {suite}")

        try:
            run_all(registry, prepared, runs=finished, on_start=announce, on_error=report, **options)
        except Interrupted:
            print_runs([*folders, *(folder.path for folder in finished.folders if folder.shard is None)])
            raise
        parts += [folder for folder in finished.folders if folder.shard is not None]
        paths = [folder.path for folder in finished.folders if folder.shard is None]
        folders += [path for path in paths if path not in folders]
        first = first or next(iter(finished.errors.values()), None)
        required.append((paths, request.metrics or (None if strict else ())))
    print_runs(folders)
    failed = [_print_part(part) for part in parts]
    if first is not None:
        return first.exit_code
    codes = [exit_code(paths, required=names, told=some_missing) for paths, names in required]
    return max(codes) or int(any(failed))
