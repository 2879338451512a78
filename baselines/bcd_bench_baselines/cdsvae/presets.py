"""Typed configurations of C-DSVAE. Fields that differ from the paper are marked ("ours")."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bcd_bench.plugin.settings import change_tree
from bcd_bench.training import TrackerName
from bcd_bench.types.errors import UsageError

__all__ = ["NOT_RESULTS", "PRESETS", "ModelConfig", "ObjectiveConfig", "Preset", "TrainConfig", "resolve_preset"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Config):
    """The complete architecture; stored with the weights."""

    frame_size: tuple[int, int] = (64, 64)
    """Height and width, multiples of 16."""
    channels: tuple[int, int, int] = (48, 96, 128)
    """Ours: channels at 1/4, 1/8 and 1/16 of the frame size, multiples of 8 (the paper's networks have 64 to 512)."""
    frame_features: int = Field(default=128, ge=1)
    """Features per frame, the inputs of the recurrent networks."""
    hidden: int = Field(default=128, ge=1)
    """Width of every LSTM (the paper: 256)."""
    f_dim: int = Field(default=256, ge=1)
    """Size of the static code (one per clip)."""
    z_dim: int = Field(default=32, ge=1)
    """Size of the dynamic code (one per frame)."""


class ObjectiveConfig(_Config):
    """Weights of the terms of the objective, and settings of the contrastive views."""

    kl_f: float = Field(default=1.0, ge=0)
    kl_z: float = Field(default=1.0, ge=0)
    contrast_f: float = Field(default=10.0, ge=0)
    contrast_z: float = Field(default=10.0, ge=0)
    dependence: float = Field(default=1.0, ge=0)
    """Weight of the estimated mutual information I(f; z)."""
    temperature: float = Field(default=0.5, gt=0)
    distortion: float = Field(default=1.0, ge=0, le=1)
    """Strength of the colour distortion that creates another content for the same motion; 0 leaves colours
    unchanged."""
    decoded_frames: int | None = Field(default=4, ge=1)
    """Ours: number of frames of a clip to decode per step, selected at random and weighted so that the expected
    reconstruction error is that of all frames (None: all of them)."""


class TrainConfig(_Config):
    """The optimisation settings of a training run."""

    suite: str = "sprites-procedural"
    """The suite whose training split is used."""
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=32, ge=2)
    """The paper uses 128."""
    lr: float = Field(default=2e-3, gt=0)
    """Learning rate of Adam, constant after the warm-up (the paper: 1e-3)."""
    warmup: int = Field(default=50, ge=0)
    """Ours: steps of learning-rate warm-up."""
    gradient_clip: float = Field(default=1000.0, gt=0)
    """Ours: maximum norm of the gradient."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Ours: decay of the moving average of the weights, which is the result; 0 uses the last weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of convolutions; "auto" is bf16 if the processor has instructions for it."""
    seed: int = 0
    log_every: int = Field(default=25, ge=1)
    checkpoint_every: int = Field(default=50, ge=1)
    tracker: TrackerName = "none"
    """Experiment tracker in addition to log.jsonl: "tensorboard" or "trackio"."""


class Preset(_Config):
    """One training run: the model, the objective, the optimisation."""

    summary: str
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()


NOT_RESULTS = {"train": {"tracker"}}
"""Settings that do not affect results: they may change when a run is resumed."""

PRESETS: dict[str, Preset] = {
    "sprites-procedural": Preset(
        summary="the embedded procedural Sprites; no files needed", train=TrainConfig(steps=3600)
    ),
    "sprites": Preset(summary="LPC Sprites (asset sprites-art)", train=TrainConfig(suite="sprites", steps=3600)),
}


def resolve_preset(name: str, overrides: dict[str, Any] | None = None) -> Preset:
    """The preset `name` with dotted `overrides` ("train.lr": 1e-4) applied and validated.

    Raises `UsageError` for unknown presets or fields and for values out of range.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r} of cdsvae", hint=f"choose one of: {', '.join(PRESETS)}")
    return change_tree(PRESETS[name], overrides or {}, owner="cdsvae", fixed=("summary",))
