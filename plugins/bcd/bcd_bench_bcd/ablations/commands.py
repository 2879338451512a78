"""`bcd-bench ablate`: run an ablation, or continue it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_bench.cli.common import load, parse_data, parse_settings, split_names
from bcd_bench.types.errors import Interrupted, UsageError
from bcd_bench.util.devices import DEVICES, device_name

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench_bcd.ablations.base import Study
    from bcd_bench_bcd.ablations.runner import Outcome, Request

__all__ = ["EXAMPLES", "command"]

EXAMPLES = (
    "bcd-bench ablate bitrate --dry-run",
    "bcd-bench ablate content-frames --preset heads-small --limit 30",
    "bcd-bench ablate bitrate --preset heads-landmarks --seeds 2",
    "bcd-bench ablate cross-driven --preset sprites --device cuda --seeds 2",
)


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="bitrate, single-frame, content-frames, bitrate-loss, cross-driven, extensions, recipes or sampler.",
        ),
    ],
    suite: Annotated[
        str | None, typer.Option(metavar="S", help="Suite to score on (default: the one the preset trains on).")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(metavar="P", help="Preset of `bcd-bench train bcd` or `bcd-landmarks` that the variants change."),
    ] = "sprites-procedural-small",
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings per variant.")] = 1,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Weights for ablations without training (default: the preset's, if shipped)."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder (default: ablations/NAME-PRESET).")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pairs of the suite.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting of the preset in all variants.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data.")] = None,
    variant: Annotated[list[str] | None, typer.Option(metavar="V[,V…]", help="Only these variants.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(metavar="X", help="Stop training after X minutes in total; call again to continue.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the variants and the time of training.")] = False,
) -> int:
    """Run an ablation of BCD: train, score and compare its variants.

    Writes table.md, .csv, .json and .tex, a picture, samples, and a decision on each claim. The same command resumes
    an interrupted ablation, retries failed variants, and reuses everything that is unchanged.
    """
    from bcd_bench.util.progress import open_progress
    from bcd_bench_bcd.ablations.definitions import ablation
    from bcd_bench_bcd.ablations.runner import Request, plan_jobs, run_jobs, study_of, write_state
    from bcd_bench_bcd.ablations.trainings import training_of

    chosen = ablation(name)
    if max_minutes is not None and not max_minutes > 0:
        raise UsageError(f"--max-minutes {max_minutes}: must be more than 0")
    if weights is not None and chosen.trains:
        raise UsageError(f"--weights: ablation {name!r} trains its variants")
    registry = load()
    overrides = parse_settings(settings or [], "--set")
    request = Request(
        ablation=chosen,
        preset=preset,
        suite=suite or training_of(preset).resolve(preset, overrides).train.suite,
        out=Path("ablations") / f"{name}-{preset}" if out is None else out,
        overrides=overrides,
        seeds=seeds,
        weights=weights,
        variants=tuple(split_names(variant, "--variant")),
        limit=limit,
        device=device_name(device),
        data=parse_data(data or []),
        max_minutes=max_minutes,
    )
    registry.suite(request.suite)
    study = study_of(request)
    jobs = plan_jobs(request, study, registry)
    if dry_run:
        from bcd_bench_bcd.ablations.estimate import describe_jobs

        print(describe_jobs(request, jobs))
        return 0
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{request.out}: cannot be written ({error.strerror})", hint="use a different --out") from None
    outcomes: list[Outcome] = []
    try:
        run_jobs(request, jobs, registry, progress=open_progress(), outcomes=outcomes)
    except Interrupted as error:
        raise Interrupted(str(error), hint="rerun the same command to continue") from None
    write_state(request, study, outcomes)
    return _report(request, study, outcomes, registry, _command_line(request, name))


def _report(request: Request, study: Study, outcomes: Sequence[Outcome], registry: Registry, command_line: str) -> int:
    """Write the report and print the decisions; returns the exit code. Raises `Interrupted` if it is unfinished."""
    from bcd_bench_bcd.ablations.report import files_of, write_report

    report = write_report(request, study, outcomes, command_line, registry)
    for verdict in report.verdicts:
        print(verdict.sentence)
    for path in files_of(report.request.out):
        print(path)
    failed = [one for one in report.outcomes if one.error is not None]
    unfinished = [one for one in report.outcomes if one.unfinished]
    if failed:
        first = failed[0]
        print(
            f"error: {len(failed)} of {len(report.outcomes)} runs failed, such as {first.job.variant.name}, "
            f"seed {first.job.seed}: {' '.join(str(first.error).split())}",
            file=sys.stderr,
        )
        print("hint: rerun the same command to retry them", file=sys.stderr)
    if unfinished:
        left = f"{len(unfinished)} of {len(report.outcomes)} trainings are unfinished"
        raise Interrupted(
            f"--max-minutes {report.request.max_minutes:g} is over: {left}", hint="rerun the same command to continue"
        )
    return 1 if failed else 0


def _command_line(asked: Request, name: str) -> str:
    """The command that reproduces the folder, without its place."""
    words = ["bcd-bench", "ablate", name, "--preset", asked.preset, "--suite", asked.suite]
    if asked.seeds > 1:
        words += ["--seeds", str(asked.seeds)]
    if asked.weights is not None:
        words += ["--weights", Path(asked.weights).name]
    if asked.limit is not None:
        words += ["--limit", str(asked.limit)]
    for key, value in asked.overrides.items():
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        words += ["--set", f"{key}={text}"]
    if asked.variants:
        words += ["--variant", ",".join(asked.variants)]
    return shlex.join(words)
