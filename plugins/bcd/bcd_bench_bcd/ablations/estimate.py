"""`bcd-bench ablate --dry-run`: the variants, and the time of their trainings from a few real steps."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.util.progress import format_seconds
from bcd_bench_bcd.ablations.runner import Job, Request, is_trained
from bcd_bench_bcd.ablations.trainings import training_of

__all__ = ["describe_jobs", "seconds_per_step"]


def seconds_per_step(job: Job, request: Request) -> float | None:
    """Mean duration of real training steps; None for a preset with stages or epochs, see `train --dry-run`.

    Nothing is kept: the steps run on a fresh model in a temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="bcd-bench-ablate-") as folder:
        asked = TrainRequest(
            preset=request.preset, overrides=dict(job.overrides), out=Path(folder), resume=False, max_steps=None,
            max_minutes=None, device=request.device, data=dict(request.data), plan_only=True, seed=None,
        )  # fmt: skip
        return training_of(request.preset).seconds_per_step(job.preset, asked)


def describe_jobs(request: Request, jobs: Sequence[Job]) -> str:
    """One line per job, with its changes and the time that is left to train, and the total."""
    lines = [f"ablation {request.ablation.name}: {request.ablation.summary} ({request.ablation.source or 'ours'})"]
    training = training_of(request.preset)
    total, unknown = 0.0, False
    measured: dict[str, float | None] = {}
    counted: set[Path] = set()
    for job in jobs:
        changes = {**request.overrides, **job.variant.overrides, **job.variant.settings}
        text = ", ".join(f"{key}={json.dumps(value)}" for key, value in changes.items()) or "the preset unchanged"
        text += f"; {job.variant.note}" if job.variant.note else ""
        line = f"  {job.variant.name}, seed {job.seed}: {text}"
        if job.folder is None:
            lines.append(f"{line}; no training")
            continue
        if job.folder in counted or is_trained(request, job):
            lines.append(f"{line}; {'trained' if is_trained(request, job) else 'the same training as above'}")
            continue
        counted.add(job.folder)
        key = json.dumps(training.work(job.preset), sort_keys=True)
        if key not in measured:
            measured[key] = seconds_per_step(job, request)
        seconds = measured[key]
        if seconds is None:
            unknown = True
            lines.append(
                f"{line}; for the time see bcd-bench train {training.name} --preset {request.preset} --dry-run"
            )
            continue
        duration = seconds * job.preset.train.steps
        total += duration
        lines.append(f"{line}; {job.preset.train.steps} steps of {seconds:.2f} s, {format_seconds(duration)}")
    if not counted:
        lines.append("nothing is left to train")
    elif not unknown:
        lines.append(
            f"training here: about {total / 3600:.2g} h, measured on a few real steps; scoring is not included"
        )
    return "\n".join(lines)
