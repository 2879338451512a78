"""Staged training: each stage is initialised with the weights of the previous one (Sec. 4.1: without temporal blocks,
then with)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from bcd_bench.io.atomic import atomic_path
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.training.sharding import steps_of

__all__ = ["FINISHED", "WEIGHTS", "Stage", "copy_result", "stages_of"]

WEIGHTS = "model.safetensors"
FINISHED = "finished.json"
"""Written into a stage's folder after its last step."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run: its preset with the number of steps filled in, and its folder."""

    preset: Preset
    folder: Path
    name: str = ""
    """Empty for a run without stages."""
    steps_before: int = 0
    """Steps of earlier stages, from which the Gumbel temperature continues (with `tau_decay`)."""


def stages_of(preset: Preset, clips: int, out: Path) -> list[Stage]:
    """The stages of a run over this many training clips, with their folders below `out`.

    A preset without stages is a single stage, in `out` itself.
    """
    if not preset.train.stages:
        train = preset.train.model_copy(update={"steps": steps_of(preset.train, clips)})
        return [Stage(preset.model_copy(update={"train": train}), out)]
    stages: list[Stage] = []
    before, init = 0, preset.train.init
    for stage in preset.train.stages:
        changes = {"stages": (), "epochs": stage.epochs, "init": init}
        changes |= {name: value for name in ("lr", "encoder_lr") if (value := getattr(stage, name)) is not None}
        train = preset.train.model_copy(update=changes)
        train = train.model_copy(update={"steps": steps_of(train, clips)})
        model = preset.model
        if not stage.temporal:
            decoder = model.decoder.model_copy(update={"temporal_blocks": ()})
            model = model.model_copy(update={"decoder": decoder})
        folder = out / stage.name
        stages.append(Stage(preset.model_copy(update={"model": model, "train": train}), folder, stage.name, before))
        before, init = before + train.steps, str(folder / WEIGHTS)
    return stages


def copy_result(folder: Path, out: Path) -> None:
    """Copy the weights of the last stage to the place where a run without stages has them.

    Raises `UsageError` if the file cannot be written.
    """
    if folder == out:
        return
    try:
        with atomic_path(out / WEIGHTS) as temporary:
            shutil.copy2(folder / WEIGHTS, temporary)
    except OSError as error:
        raise UsageError(
            f"{out / WEIGHTS}: cannot be written ({error.strerror}); the weights are in {folder}"
        ) from None
