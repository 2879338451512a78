"""`bcd-bench train`: train a method, or the network of a metric, from a preset."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, parse_data, parse_settings
from bcd_bench.cli.complete import presets, trainables
from bcd_bench.cli.workers import Executor
from bcd_bench.plugin.specs import TrainableSpec, TrainRequest
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES, device_name

if TYPE_CHECKING:
    from bcd_bench.plugin.specs import ExecutorSpec


def chosen_preset(spec: TrainableSpec, preset: str | None) -> str:
    """The named preset, or the default one; the others are then listed on stderr.

    Raises `UsageError`, with the closest names, if the preset does not exist.
    """
    from bcd_bench.plugin.registry import nearest

    if spec.default_preset not in spec.presets:
        text = f"its default preset {spec.default_preset!r} does not exist"
        raise UsageError(f"trainable {spec.name!r} is broken: {text}")
    if preset is None:
        alternatives = [f"{name} ({summary})" for name, summary in spec.presets.items() if name != spec.default_preset]
        print(f"preset {spec.default_preset}: {spec.presets[spec.default_preset]}", file=sys.stderr)
        if alternatives:
            print(f"other presets: {'; '.join(alternatives)}", file=sys.stderr)
        return spec.default_preset
    if preset not in spec.presets:
        hint = f"bcd-bench show trainable {spec.name}"
        raise UsageError(f"{spec.name} has no preset {preset!r}; {nearest(preset, spec.presets)}", hint=hint)
    return preset


def arguments_of(name: str, request: TrainRequest) -> tuple[str, ...]:
    """The arguments of `bcd-bench` that mean `request`, without `--resume` and with absolute paths."""
    words = [
        "train",
        name,
        "--preset",
        request.preset,
        "--out",
        str(request.out.absolute()),
        "--device",
        request.device,
    ]
    for key, value in request.overrides.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    for key, path in request.data.items():
        words += ["--data", f"{key}={path.absolute()}"]
    for option, number in (
        ("--max-steps", request.max_steps),
        ("--max-minutes", request.max_minutes),
        ("--seed", request.seed),
    ):
        words += [] if number is None else [option, str(number)]
    return tuple(words)


def _train_elsewhere(name: str, request: TrainRequest, spec: ExecutorSpec, settings: Mapping[str, Any]) -> None:
    """Train with an executor, and print what it reports."""
    from bcd_bench.plugin.loading import load_code
    from bcd_bench.run.elsewhere import TrainExecutor, TrainWork
    from bcd_bench.training.folder import writing_into

    execute: TrainExecutor = load_code(spec.train, f"executor {spec.name!r}")
    out = request.out.absolute()
    work = TrainWork(arguments_of(name, request), out, Path.cwd(), request.device, request.resume)
    with writing_into(out):
        for line in execute(work, settings=settings):
            if line is not None:
                print(line, file=sys.stderr, flush=True)


EXAMPLES = (
    "bcd-bench train bcd --dry-run",
    "bcd-bench train bcd --preset sprites-small --device cuda --out train/sprites",
    "bcd-bench train bcd --preset sprites-small --set train.batch=32 --set objective.rate_weight=0.05",
    "bcd-bench train bcd --preset lrs3 --data latents=latents/lrs3 --executor slurm --slurm-nodes 2",
    "bcd-bench show trainable bcd --preset sprites-small    # every setting with its meaning",
)


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="What to train, see `bcd-bench list trainables`.", autocompletion=trainables
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Preset (default: the trainable's default preset).", autocompletion=presets),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting of the preset.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Output folder (default: train/NAME-PRESET).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in the folder.")] = False,
    max_steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after N steps, counted from the first.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(metavar="X", help="Stop after X minutes.")] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Random seed (default: the preset's).")] = None,
    executor: Executor = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan without training.")] = False,
    plan: Annotated[bool, typer.Option("--plan", hidden=True)] = False,
) -> None:
    """Train a method or a metric's network from a preset."""
    from bcd_bench.plugin.loading import load_code
    from bcd_bench.run.executors import executor_settings, split_settings
    from bcd_bench.training import leaving_process_group, training_folder

    registry = load()
    spec, where = registry.trainable(name), registry.executor(executor)
    overrides, for_executor = split_settings(parse_settings(settings or [], "--set"))
    chosen = executor_settings(where, for_executor)
    if executor != "local" and not where.train:
        raise UsageError(f"--executor {executor}: it cannot train", hint="--executor slurm, or torchrun")
    if max_minutes is not None and not max_minutes > 0:
        raise UsageError(f"--max-minutes {max_minutes}: must be more than 0")
    picked = chosen_preset(spec, preset)
    request = TrainRequest(
        preset=picked,
        overrides=overrides,
        out=Path("train") / f"{name}-{picked}" if out is None else out,
        resume=resume,
        max_steps=max_steps,
        max_minutes=max_minutes,
        device=device_name(device),
        data=parse_data(data or []),
        plan_only=dry_run or plan,
        seed=seed,
    )
    if where.train and not request.plan_only:
        _train_elsewhere(name, request, where, chosen)
        return
    trainer = load_code(spec.factory, f"training {name}")
    if request.plan_only:
        trainer(request)
        return
    with training_folder(request.out), leaving_process_group():
        trainer(request)
