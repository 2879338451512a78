"""Training in stages: each begins with the weights of the one before (Sec. 4.1: without temporal layers, then with)."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from bcd_bench.atomic import atomic_path
from bcd_bench.errors import UsageError
from bcd_bench_bcd.batches import steps_of
from bcd_bench_bcd.checkpoints import CHECKPOINT, WEIGHTS
from bcd_bench_bcd.configs import Preset

__all__ = ["FINISHED", "Limits", "begun", "keep_result", "stage_presets"]

FINISHED = "finished.json"
"""Written into a stage's folder after its last step."""


def stage_presets(preset: Preset, clips: int, out: Path) -> list[tuple[Preset, Path]]:
    """The preset of every stage with its steps counted for so many training clips, and its folder below `out`.

    A preset without stages is its own only one, in `out` itself.
    """
    if not preset.train.stages:
        train = preset.train.model_copy(update={"steps": steps_of(preset.train, clips)})
        return [(preset.model_copy(update={"train": train}), out)]
    made: list[tuple[Preset, Path]] = []
    before, init = preset.train.steps_before, preset.train.init
    for stage in preset.train.stages:
        changes = {"stages": (), "stage": stage.name, "epochs": stage.epochs, "steps_before": before, "init": init}
        changes |= {name: value for name in ("lr", "encoder_lr") if (value := getattr(stage, name)) is not None}
        train = preset.train.model_copy(update=changes)
        train = train.model_copy(update={"steps": steps_of(train, clips)})
        model = preset.model
        if not stage.temporal:
            decoder = model.decoder.model_copy(update={"temporal_blocks": ()})
            model = model.model_copy(update={"decoder": decoder})
        folder = out / stage.name
        made.append((preset.model_copy(update={"model": model, "train": train}), folder))
        before, init = before + train.steps, str(folder / WEIGHTS)
    return made


def begun(stages: list[tuple[Preset, Path]]) -> list[Path]:
    """The folders of stages that have a checkpoint."""
    return [folder for _, folder in stages if (folder / CHECKPOINT).exists()]


def keep_result(folder: Path, out: Path) -> None:
    """Put the weights of the last stage where a run without stages has them. Raises `UsageError` as disks do."""
    if folder == out:
        return
    try:
        with atomic_path(out / WEIGHTS) as temporary:
            shutil.copy2(folder / WEIGHTS, temporary)
    except OSError as error:
        raise UsageError(f"{out / WEIGHTS}: cannot be written ({error.strerror}); it is in {folder}") from None


class Limits:
    """What `--max-steps` and `--max-minutes` leave for the stage at hand."""

    def __init__(self, max_steps: int | None, max_minutes: float | None) -> None:
        self._steps, self._minutes, self._began = max_steps, max_minutes, time.monotonic()

    def steps(self, before: int) -> int | None:
        """Steps that a stage may come to, where `before` were done in earlier ones."""
        return None if self._steps is None else self._steps - before

    @property
    def minutes(self) -> float | None:
        return None if self._minutes is None else self._minutes - (time.monotonic() - self._began) / 60
