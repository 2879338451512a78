"""`bcd-bench ablate --dry-run`: the variants, and the time of their trainings from a few real steps."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.util.progress import format_seconds
from bcd_bench_bcd.ablations.runner import Job, Request, is_trained

__all__ = ["describe_jobs", "seconds_per_step"]

MEASURED = (0.1, 0.4, 0.7, 0.95)
"""Where in a run steps are measured: extensions begin and end during it, so steps differ in work."""
REPEATS = 2


def seconds_per_step(job: Job, request: Request) -> float | None:
    """Mean duration of real training steps spread over the run; None for a preset with stages, see `train --dry-run`.

    Nothing is kept: the steps run on a fresh model in a temporary folder.
    """
    from bcd_bench_bcd.training.data import open_training_clips
    from bcd_bench_bcd.training.stages import Stage
    from bcd_bench_bcd.training.trainer import Trainer

    preset = job.preset
    if preset.train.stages or preset.train.epochs:
        return None
    with tempfile.TemporaryDirectory(prefix="bcd-bench-ablate-") as folder:
        clips = open_training_clips(preset, _train_request(job, request, Path(folder)))
        trainer = Trainer(Stage(preset, Path(folder)), clips, request.device)
        trainer.start(resume=False)
        trainer.train_step(0)  # a warm-up, which also fills caches
        steps = sorted({min(preset.train.steps - 1, int(part * preset.train.steps)) for part in MEASURED})
        began = time.monotonic()
        for step in steps:
            for _ in range(REPEATS):
                trainer.train_step(step)
        duration = (time.monotonic() - began) / (REPEATS * len(steps))
        trainer.loop.log.close()
        return duration


def _train_request(job: Job, request: Request, out: Path) -> TrainRequest:
    return TrainRequest(
        preset=request.preset, overrides=dict(job.overrides), out=out, resume=False, max_steps=None, max_minutes=None,
        device=request.device, data=dict(request.data), plan_only=True, seed=None,
    )  # fmt: skip


def describe_jobs(request: Request, jobs: Sequence[Job]) -> str:
    """One line per job, with its changes and the time that is left to train, and the total."""
    lines = [f"ablation {request.ablation.name}: {request.ablation.summary} ({request.ablation.source or 'ours'})"]
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
        if job.folder in counted or is_trained(job):
            lines.append(f"{line}; {'trained' if is_trained(job) else 'the same training as above'}")
            continue
        counted.add(job.folder)
        key = json.dumps(_work(job), sort_keys=True)
        if key not in measured:
            measured[key] = seconds_per_step(job, request)
        seconds = measured[key]
        if seconds is None:
            unknown = True
            lines.append(f"{line}; for the time see bcd-bench train bcd --preset {request.preset} --dry-run")
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


def _work(job: Job) -> dict[str, Any]:
    """What the duration of a step depends on: variants that agree in it are measured once."""
    preset = job.preset
    quantizer = preset.model.quantizer.model_dump(exclude={"tau_start", "tau_end", "tau_decay", "alpha"})
    return {
        "model": preset.model.model_dump(mode="json", exclude={"quantizer", "edm"}),
        "quantizer": quantizer,
        "batch": preset.train.batch,
        "steps": preset.train.steps,
        "extensions": list(preset.extensions.names),
    }
