"""`bcd-bench train`: trains what a plugin offers, from one of its presets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load, parse_data, parse_settings
from bcd_bench.plugin.specs import TrainableSpec, TrainRequest
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES, device_name


def chosen_preset(spec: TrainableSpec, preset: str | None) -> str:
    """The preset asked for, or the default with a word on stderr about what else there is.

    Raises UsageError with the nearest names for a preset that does not exist.
    """
    from bcd_bench.plugin.registry import nearest

    if spec.default_preset not in spec.presets:
        raise UsageError(f"trainable {spec.name!r} is broken: it has no preset {spec.default_preset!r}, its default")
    if preset is None:
        others = [f"{name} ({summary})" for name, summary in spec.presets.items() if name != spec.default_preset]
        print(f"preset {spec.default_preset}: {spec.presets[spec.default_preset]}", file=sys.stderr)
        if others:
            print(f"other presets: {'; '.join(others)}", file=sys.stderr)
        return spec.default_preset
    if preset not in spec.presets:
        hint = f"bcd-bench show trainable {spec.name}"
        raise UsageError(f"{spec.name} has no preset {preset!r}; {nearest(preset, spec.presets)}", hint=hint)
    return preset


def command(
    name: Annotated[str, typer.Argument(help="What to train, as `bcd-bench list trainables` prints it.")],
    preset: Annotated[str | None, typer.Option(help="A preset; without it, the default one.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting.")] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Data of your own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; by default train/NAME-PRESET.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in the folder.")] = False,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps in all.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes.")] = None,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the preset's.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained, and stop.")] = False,
) -> None:
    """Train a method or a judge from a preset."""
    from bcd_bench.plugin.loading import load_code
    from bcd_bench.training import leaving_process_group, training_folder

    spec: TrainableSpec = load().get("trainables", name)
    if max_minutes is not None and not max_minutes > 0:
        raise UsageError(f"--max-minutes {max_minutes}: must be more than 0")
    picked = chosen_preset(spec, preset)
    request = TrainRequest(
        preset=picked,
        overrides=parse_settings(settings or [], "--set"),
        out=Path("train") / f"{name}-{picked}" if out is None else out,
        resume=resume,
        max_steps=max_steps,
        max_minutes=max_minutes,
        device=device_name(device),
        data=parse_data(data or []),
        plan_only=plan,
        seed=seed,
    )
    trainer = load_code(spec.factory, f"training {name}")
    if plan:
        trainer(request)
        return
    with training_folder(request.out), leaving_process_group():
        trainer(request)
