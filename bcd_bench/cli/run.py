"""`bcd-bench run`: plans, generates, scores and records one or more methods on a suite."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import complain, load, names, parse_data, parse_settings, print_notes
from bcd_bench.cli.tables import print_runs, trouble_of
from bcd_bench.scoring.missing_metrics import by_reason, these_metrics
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.util.devices import DEVICES
from bcd_bench.util.progress import open_progress

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.pipeline import Prepared
    from bcd_bench.run.plan import RunPlan
    from bcd_bench.types.suite import Suite


def for_each_method(
    registry: Registry, methods: Sequence[str], weights: str | None, config: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Which method gets `--weights` and `--config`: all but the reference methods, which take neither.

    A setting `METHOD.K` is for that method alone and goes before a plain `K`, which is for all. Raises UsageError for
    unknown methods, for one `--weights` on several methods, and for a plain setting that not all of several have.
    """
    takers = [name for name in methods if not registry.method(name).reference] or list(methods)
    if weights is not None and len(takers) > 1:
        raise UsageError(f"--weights {weights} goes with one method, not with {', '.join(takers)}")
    own: dict[str, dict[str, Any]] = {name: {} for name in methods}
    common: dict[str, Any] = {}
    for key, value in config.items():
        method, _, setting = key.partition(".")
        if setting and method in own:
            own[method][setting] = value
        else:
            common[key] = value
    for key in common if len(takers) > 1 else ():
        having = [name for name in takers if key in registry.method(name).config]
        if having and len(having) < len(takers):
            lacking = ", ".join(name for name in takers if name not in having)
            hint = " ".join(f"--config {name}.{key}=…" for name in having)
            raise UsageError(
                f"--config {key} is for every method, and there is no such setting of {lacking}", hint=hint
            )
    return {
        name: {"weights": weights, "config": {**common, **own[name]}} if name in takers else {"config": own[name]}
        for name in methods
    }


def _print_plan(plan: RunPlan, metrics: Sequence[str], out: Path) -> None:
    """What a run would do and how much of it is done, without touching a file."""
    from bcd_bench.run.folder import RunFolder

    folder = out / plan.folder
    done = len(RunFolder(folder).finished()) if (folder / "plan.json").exists() else 0
    batches = sum(1 for _ in plan.batches())
    part = f" of {plan.suite.n_pairs}" if plan.partial else ""
    print(f"{plan.method.name} {plan.method.version} on {plan.suite.name}@{plan.suite.version}")
    print(f"  pairs     {len(plan.pairs)}{part}, {done} finished; {batches} batches of up to {plan.batch_size}")
    print(f"  config    {', '.join(f'{key}={value}' for key, value in plan.method.config.items()) or 'none'}")
    weights = f"{plan.weights.name} (sha256 {plan.weights.sha256[:12]}…)" if plan.weights else "none"
    weights = "seeded, never learned: a test of the plumbing" if plan.seeded else weights
    print(f"  weights   {weights}")
    print(f"  seed      {plan.seed}, device {plan.device}, {plan.dtype}")
    print(f"  metrics   {', '.join(metrics) or 'none'}")
    print(f"  folder    {folder}")


def _say_missing(prepared: Iterable[Prepared]) -> None:
    """Before the work begins, name the metrics that will not be scored, and what mends it."""
    lacking = ((name, error) for one in prepared for name, error in one.missing.items())
    told = by_reason((name, (" ".join(str(error).split()), str(error.hint))) for name, error in lacking)
    for (reason, hint), metrics in told.items():
        print(f"note: {these_metrics(metrics)} will not be scored: {reason}", file=sys.stderr)
        print(f"hint: {hint}", file=sys.stderr)


def command(
    method: Annotated[str, typer.Option(metavar="M[,M…]", help="One or more methods, as `list methods` names them.")],
    suite: Annotated[str, typer.Option(metavar="S", help="A suite, as `list suites` names it.")],
    weights: Annotated[str | None, typer.Option(help="Weights by name or path; default: the suite's.")] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Data of your own.")] = None,
    config: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Change a setting of the method.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric; may be repeated. Default: suite's and method's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first N pairs only: a partial run, never ranked.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
    executor: Annotated[str, typer.Option(help="How batches are spread: local, or a plugin's.")] = "local",
    jobs: Annotated[int, typer.Option(min=1, help="Parallel workers of the executor.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed pairs again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse where a default metric lacks an asset.")] = False,
) -> int:
    """Generate, score and record methods on a suite. The same command continues where it stopped."""
    from bcd_bench.plugin.suites import load_suite
    from bcd_bench.run import pipeline as benchmark

    registry, chosen, metrics = load(), names(method, "--method"), metric or None
    given = for_each_method(registry, chosen, weights, parse_settings(config or [], "--config"))
    paths = parse_data(data or [])
    registry.executor(executor)
    made: Suite = load_suite(registry, suite, paths)
    common: dict[str, Any] = {"metrics": metrics, "limit": limit, "seed": seed, "device": device, "data": paths}
    common["strict"] = strict
    # wrong names, weights and assets are found before the first method starts
    prepared = {name: benchmark.prepare(registry, name, made, **given[name], **common) for name in chosen}
    print_notes(dict.fromkeys(note for one in prepared.values() for note in one.notes))
    if dry_run:
        for one in prepared.values():
            _print_plan(one.plan, [f"{m} (not scored)" if m in one.missing else m for m in one.metrics], out)
        _say_missing(prepared.values())
        return 0
    _say_missing(prepared.values())
    folders: list[Path] = []
    first: BcdBenchError | None = None
    for name, one in prepared.items():
        if len(chosen) > 1:
            print(f"{name} on {suite}", file=sys.stderr)
        try:
            folder = benchmark.run(
                registry,
                one,
                executor=executor,
                jobs=jobs,
                out=out,
                retry_failed=retry_failed,
                progress=open_progress(),
            )
        except Interrupted:
            print_runs(folders)
            raise
        except BcdBenchError as error:
            if len(chosen) == 1:
                raise
            first = first or error
            complain(error, name)
            continue
        folders.append(folder.path)
    print_runs(folders)
    return first.exit_code if first else trouble_of(folders, wanted=metrics or (None if strict else ()))
