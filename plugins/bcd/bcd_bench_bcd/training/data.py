"""The training split, and the parts of the model that depend on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bcd_bench import training
from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.content_channels import ContentChannels
from bcd_bench_bcd.extensions.model import build_model
from bcd_bench_bcd.extensions.patch_skipping import PatchSkipping
from bcd_bench_bcd.latents.cache import LatentClips
from bcd_bench_bcd.paper.config import ModelConfig
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.training.dataset import training_view

__all__ = ["Fitted", "fit_to_data", "needs_patch_occupancy", "open_training_clips", "patch_occupancy"]


def open_training_clips(preset: Preset, request: TrainRequest) -> TrainingClips | LatentClips:
    """The training clips of a preset: the training split of its suite or, for a model of latents, a cache of them.

    Raises `UsageError` if there are none or they do not fit, and for unused `--data`.
    """
    if preset.model.latent is not None:
        return _open_latents(preset, request)
    return training_view(training.open_training_clips(preset.train.suite, request), preset)


def _open_latents(preset: Preset, request: TrainRequest) -> LatentClips:
    prepare = f"bcd-bench prepare bcd --preset {request.preset} --data NAME=PATH"
    for name in request.data:
        if name != "latents":
            raise UsageError(
                f"--data {name}: preset {request.preset!r} uses latents, which must be encoded from {name} first",
                hint=f"bcd-bench prepare bcd --preset {request.preset} --data {name}={request.data[name]}",
            )
    if "latents" not in request.data:
        raise UsageError(
            f"preset {request.preset!r} requires a cache of latents", hint=f"--data latents=PATH, created by {prepare}"
        )
    return LatentClips(request.data["latents"], preset)


def needs_patch_occupancy(preset: Preset) -> bool:
    """Whether `patch_occupancy` must be measured: it reads every frame, which some suites have to render first."""
    return preset.extensions.get(PatchSkipping) is not None


def patch_occupancy(clips: TrainingClips, patch: int) -> npt.NDArray[np.float64]:
    """Fraction of all frames in which each patch is not all black, float64 [rows * columns]; it reads every frame."""
    if not len(clips):
        raise UsageError("the training split is empty")
    lit, frames = np.zeros(0), 0
    for start in range(0, len(clips), 250):
        part = clips.clips(range(start, min(start + 250, len(clips)))).max(axis=-1) > 0
        count, length, height, width = part.shape
        blocks = part.reshape(count * length, height // patch, patch, width // patch, patch).any(axis=(2, 4))
        lit = blocks.sum(0) + (lit if frames else 0)
        frames += count * length
    return lit.ravel() / frames


@dataclass(frozen=True)
class Fitted:
    """The preset's architecture, with the parts that depend on the training data filled in."""

    config: ModelConfig
    preset: Preset
    active_patches: tuple[int, ...] | None
    """Indices of the patches that are computed (None: all), see `patch_skipping`."""

    def build(self) -> BCD:
        """A new model with random weights."""
        return build_model(self.config, self.preset.extensions, self.active_patches)


def fit_to_data(preset: Preset, occupancy: npt.NDArray[np.float64] | None = None) -> Fitted:
    """Fill in the active patches and, with content channels, the number of content tokens.

    `occupancy` is `patch_occupancy` of the training split, if `needs_patch_occupancy`.
    """
    config, active = preset.model, None
    if occupancy is not None:
        active = tuple(int(index) for index in np.flatnonzero(occupancy))
    if preset.extensions.get(ContentChannels) is not None:
        height, width = config.grid
        count = (height // config.decoder.patch) * (width // config.decoder.patch) if active is None else len(active)
        config = config.model_copy(update={"encoder": config.encoder.model_copy(update={"content_tokens": count})})
    return Fitted(config, preset, active)
