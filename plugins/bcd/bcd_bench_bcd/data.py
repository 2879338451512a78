"""The training split, and what of the model depends on it."""

from __future__ import annotations

import numpy as np

from bcd_bench.errors import UsageError
from bcd_bench.specs import TrainingClips, TrainRequest, load_factory
from bcd_bench_bcd.presets import ModelConfig, Preset

__all__ = ["drawn_patches", "fitted_model_config", "open_training_clips"]


def open_training_clips(suite: str, request: TrainRequest) -> TrainingClips:
    """The training split that the suite's plugin offers. Raises `UsageError` where it has none."""
    from bcd_bench.plugins import load_registry

    spec = load_registry().get("suites", suite)
    if not spec.training:
        raise UsageError(f"suite {suite!r} has no training split", hint="choose another with --set train.suite=NAME")
    clips: TrainingClips = load_factory(spec.training)(request.data)
    return clips


def drawn_patches(clips: TrainingClips, patch: int) -> tuple[int, ...]:
    """Indices of the patches that are ever non-black in the training set (every frame of every clip is looked at)."""
    seen: np.ndarray | None = None
    for start in range(0, len(clips), 250):
        lit = clips.clips(range(start, min(start + 250, len(clips)))).max(axis=(0, 1, 4)) > 0
        seen = lit if seen is None else seen | lit
    if seen is None:
        raise UsageError("the training split is empty")
    height, width = seen.shape
    blocks = seen.reshape(height // patch, patch, width // patch, patch).any(axis=(1, 3))
    return tuple(int(i) for i in np.flatnonzero(blocks))


def fitted_model_config(preset: Preset, clips: TrainingClips) -> ModelConfig:
    """The preset's model with what depends on the data filled in: drawn patches and, for channels, the token count."""
    config = preset.model
    if config.decoder.skip_static_patches:
        config = config.model_copy(update={"drawn_patches": drawn_patches(clips, config.decoder.patch)})
    if config.decoder.content == "channels":
        height, width = config.frame_size
        total = (height // config.decoder.patch) * (width // config.decoder.patch)
        count = len(config.drawn_patches) if config.drawn_patches is not None else total
        config = config.model_copy(update={"encoder": config.encoder.model_copy(update={"content_tokens": count})})
    return config
