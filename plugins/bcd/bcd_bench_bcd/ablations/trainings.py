"""The trainings whose presets an ablation can vary: `bcd-bench train bcd` and `bcd-bench train bcd-landmarks`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import CHECKPOINT, seconds_per_step
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.ablations.base import Ablation, Study
from bcd_bench_bcd.ablations.definitions import capacity
from bcd_bench_bcd.landmarks import presets as landmark_presets
from bcd_bench_bcd.presets import registry as bcd_presets

if TYPE_CHECKING:
    from bcd_bench_bcd.landmarks.config import LandmarkPreset
    from bcd_bench_bcd.presets.base import Preset

__all__ = ["WEIGHTS", "BCDTraining", "LandmarkTraining", "Training", "training_of"]

WEIGHTS = "model.safetensors"
FINISHED = "finished.json"
MEASURED = (0.1, 0.4, 0.7, 0.95)
"""Where in a run steps are measured: extensions begin and end during it, so steps differ in work."""
REPEATS = 2


class Training(Protocol):
    """What an ablation needs to know about a training. Presets are those of the training, with all changes applied."""

    name: str
    """The name in `bcd-bench train NAME`."""

    def resolve(self, preset: str, overrides: Mapping[str, Any]) -> Any:
        """The preset with overrides. Raises `UsageError` if it does not exist or a value is invalid."""

    def study(self, ablation: Ablation, preset: Any) -> Study:
        """The variants of the ablation. Raises `UsageError` if it does not apply to presets of this training."""

    def varies(self, ablation: Ablation) -> tuple[str, ...]:
        """Settings that the variants of the ablation set."""

    def check(self, preset: Any) -> None:
        """Raise `UsageError` if a variant with this preset cannot be trained."""

    def settings(self, preset: Any) -> dict[str, Any]:
        """The settings that affect results, as in config.json."""

    def train(self, request: TrainRequest) -> None:
        """Train, or continue."""

    def has_begun(self, folder: Path, preset: Any) -> bool:
        """Whether a folder contains a checkpoint."""

    def is_finished(self, folder: Path, preset: Any) -> bool:
        """Whether the training of a folder is finished."""

    def data(self, preset: Any) -> tuple[str, ...]:
        """Names of the data that the suite of the training needs."""

    def seconds_per_step(self, preset: Any, request: TrainRequest) -> float | None:
        """Mean duration of real steps, of which nothing is kept; None if it cannot be measured by steps."""

    def work(self, preset: Any) -> Any:
        """What the duration of a step depends on, as JSON."""


def training_of(preset: str) -> Training:
    """The training that has a preset of this name; `bcd-bench train bcd` for unknown names."""
    return LandmarkTraining() if preset in landmark_presets.PRESETS else BCDTraining()


class BCDTraining:
    """`bcd-bench train bcd`."""

    name = "bcd"

    def resolve(self, preset: str, overrides: Mapping[str, Any]) -> Preset:
        return bcd_presets.resolve_preset(preset, overrides)

    def study(self, ablation: Ablation, preset: Preset) -> Study:
        return ablation.study(preset)

    def varies(self, ablation: Ablation) -> tuple[str, ...]:
        return ablation.varies

    def check(self, preset: Preset) -> None:
        """Raise `UsageError` for a target rate above the capacity of the codebooks."""
        target, limit, quantizer = preset.objective.target_bits, capacity(preset), preset.model.quantizer
        if target > limit + 1e-9:
            raise UsageError(
                f"its target of {target:g} bits per frame exceeds what {quantizer.groups} x {quantizer.entries} "
                f"codebook entries can carry, {limit:g} bits",
                hint="--set model.quantizer.entries=N with more entries, or a preset with more groups",
            )

    def settings(self, preset: Preset) -> dict[str, Any]:
        from bcd_bench_bcd.training.trainer import NOT_RESULTS

        return preset.model_dump(mode="json", exclude=NOT_RESULTS)

    def train(self, request: TrainRequest) -> None:
        from bcd_bench_bcd.training.trainer import train

        train(request)

    def has_begun(self, folder: Path, preset: Preset) -> bool:
        names = [stage.name for stage in preset.train.stages] or [""]
        return any((folder / name / CHECKPOINT).exists() for name in names)

    def is_finished(self, folder: Path, preset: Preset) -> bool:
        last = folder / (preset.train.stages[-1].name if preset.train.stages else "")
        return (last / FINISHED).exists() and (folder / WEIGHTS).exists()

    def data(self, preset: Preset) -> tuple[str, ...]:
        return () if preset.model.latent is not None else _data_of_suite(preset.train.suite)

    def seconds_per_step(self, preset: Preset, request: TrainRequest) -> float | None:
        """None for a preset with stages or epochs, see `train --dry-run`."""
        from bcd_bench_bcd.training.data import open_training_clips
        from bcd_bench_bcd.training.stages import Stage
        from bcd_bench_bcd.training.trainer import Trainer

        if preset.train.stages or preset.train.epochs:
            return None
        clips = open_training_clips(preset, request)
        trainer = Trainer(Stage(preset, request.out), clips, request.device)
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

    def work(self, preset: Preset) -> Any:
        quantizer = preset.model.quantizer.model_dump(exclude={"tau_start", "tau_end", "tau_decay", "alpha"})
        return {
            "model": preset.model.model_dump(mode="json", exclude={"quantizer", "edm"}),
            "quantizer": quantizer,
            "batch": preset.train.batch,
            "steps": preset.train.steps,
            "extensions": list(preset.extensions.names),
        }


class LandmarkTraining:
    """`bcd-bench train bcd-landmarks`."""

    name = "bcd-landmarks"

    def resolve(self, preset: str, overrides: Mapping[str, Any]) -> LandmarkPreset:
        return landmark_presets.resolve_preset(preset, overrides)

    def study(self, ablation: Ablation, preset: LandmarkPreset) -> Study:
        if ablation.landmark_study is None:
            raise UsageError(
                f"ablation {ablation.name!r} does not apply to presets of bcd-bench train bcd-landmarks",
                hint="use a preset of bcd-bench train bcd, such as --preset heads-small",
            )
        return ablation.landmark_study(preset)

    def varies(self, ablation: Ablation) -> tuple[str, ...]:
        return ablation.landmark_varies

    def check(self, preset: LandmarkPreset) -> None:
        """Every preset can be trained."""

    def settings(self, preset: LandmarkPreset) -> dict[str, Any]:
        return preset.model_dump(mode="json", exclude={**landmark_presets.NOT_RESULTS, "bcd": True})

    def train(self, request: TrainRequest) -> None:
        from bcd_bench_bcd.landmarks.train import train

        train(request, others=_siblings(request.out))

    def has_begun(self, folder: Path, preset: LandmarkPreset) -> bool:
        return (folder / CHECKPOINT).exists()

    def is_finished(self, folder: Path, preset: LandmarkPreset) -> bool:
        return (folder / WEIGHTS).exists()  # written after the last step

    def data(self, preset: LandmarkPreset) -> tuple[str, ...]:
        return _data_of_suite(preset.train.suite)

    def seconds_per_step(self, preset: LandmarkPreset, request: TrainRequest) -> float | None:
        from bcd_bench_bcd.landmarks.train import trial

        trainer = trial(preset, request)
        seconds = seconds_per_step(trainer.train_step)
        trainer.loop.log.close()
        return seconds

    def work(self, preset: LandmarkPreset) -> Any:
        return preset.model_dump(mode="json", exclude={"train": {"seed"}})


def _siblings(folder: Path) -> list[Path]:
    """The other folders beside a folder, among them those of the ablation's other trainings."""
    parent = folder.parent
    return sorted(path for path in parent.iterdir() if path.is_dir() and path != folder) if parent.is_dir() else []


def _data_of_suite(suite: str) -> tuple[str, ...]:
    from bcd_bench.plugin.registry import load_registry

    return tuple(load_registry().suite(suite).data)
