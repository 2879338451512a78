"""The training split, and what of the model depends on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bcd_bench import training
from bcd_bench.errors import UsageError
from bcd_bench.specs import TrainingClips, TrainRequest
from bcd_bench_bcd.configs import LatentConfig, ModelConfig, Preset
from bcd_bench_bcd.latent_cache import LatentClips
from bcd_bench_bcd.training_view import training_view

__all__ = ["fitted_model_config", "lit_shares", "measures_light", "open_training_clips"]


def open_training_clips(preset: Preset, request: TrainRequest) -> TrainingClips | LatentClips:
    """The clips a preset learns from: the training split of its suite or, for a model of latents, a cache of them.

    Raises `UsageError` where there is none or it does not fit, and for `--data` that nothing has a use for.
    """
    if preset.model.latent is not None:
        return _open_latents(preset, request)
    clips = training.open_training_clips(preset.train.suite, request)
    return training_view(clips, preset.train, points=preset.objective.guide > 0)


def measures_light(preset: Preset) -> bool:
    """Whether `lit_shares` has to be measured: it looks at every frame, which some suites have to draw first."""
    return preset.model.decoder.skip_static_patches or preset.train.patch_floor < 1


def _open_latents(preset: Preset, request: TrainRequest) -> LatentClips:
    prepare = f"bcd-bench prepare bcd --preset {request.preset} --data NAME=PATH"
    for name in request.data:
        if name != "latents":
            raise UsageError(
                f"--data {name}: preset {request.preset!r} learns from latents, made once of {name} beforehand",
                hint=f"bcd-bench prepare bcd --preset {request.preset} --data {name}={request.data[name]}",
            )
    if "latents" not in request.data:
        raise UsageError(
            f"preset {request.preset!r} learns from a cache of latents", hint=f"--data latents=PATH, made by {prepare}"
        )
    return LatentClips(request.data["latents"], preset)


def lit_shares(clips: TrainingClips, patch: int) -> npt.NDArray[np.float64]:
    """Share of all frames in which each patch is not all black, float64 [rows * columns]; every frame is looked at."""
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


def fitted_model_config(
    preset: Preset, shares: npt.NDArray[np.float64] | None, latent: LatentConfig | None = None
) -> ModelConfig:
    """The preset's model with what depends on the data filled in: drawn patches and, for channels, the token count;
    `latent` is what was measured of a cache of latents.

    `shares` are `lit_shares` of the training split, which `measures_light` says are needed; with `skip_static_patches`
    those of 0 are not drawn.
    """
    config = preset.model
    if latent is not None:
        config = config.model_copy(update={"latent": latent})
    if shares is not None and config.decoder.skip_static_patches:
        config = config.model_copy(update={"drawn_patches": tuple(int(i) for i in np.flatnonzero(shares))})
    if config.decoder.content == "channels":
        height, width = config.grid
        total = (height // config.decoder.patch) * (width // config.decoder.patch)
        count = len(config.drawn_patches) if config.drawn_patches is not None else total
        config = config.model_copy(update={"encoder": config.encoder.model_copy(update={"content_tokens": count})})
    return config
