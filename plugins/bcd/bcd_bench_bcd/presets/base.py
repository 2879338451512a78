"""The `Preset` type: a complete, named recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bcd_bench.training import TrackerName
from bcd_bench_bcd.extensions.base import Extensions, ExtensionSettings
from bcd_bench_bcd.paper.config import Config, ModelConfig, ObjectiveConfig, OptimizationConfig, SamplerConfig
from bcd_bench_bcd.paper.presets import Recipe

__all__ = ["InferenceConfig", "Preset", "TrainConfig", "preset_of"]


class InferenceConfig(Config):
    """How a trained model processes clips of other lengths and sizes than it was trained on."""

    window: int | None = Field(default=None, ge=2)
    """Frames processed at once (None: any number); longer clips are processed in overlapping windows."""
    resize: bool = False
    """Whether to resize clips of other sizes to the model's, and outputs back to the size of the driving clip."""


class TrainConfig(OptimizationConfig):
    """The optimisation settings and the settings that control how a run is carried out."""

    suite: str = "sprites-procedural"
    """The suite whose training split is used."""
    init: str | None = None
    """Weights of an earlier run to start from (a model.safetensors of the same architecture)."""
    clips: int | None = Field(default=None, ge=2)
    """Number of leading training clips of the suite to use (None: all)."""
    accumulate: int = Field(default=1, ge=1)
    """Number of parts in which a process computes its clips of a step, to save memory; the gradients are
    accumulated."""
    order: Literal["random", "epochs"] = "random"
    """"random" draws clips with replacement. "epochs" visits all clips in a new order each time and gives every clip
    separate random numbers: results are the same for any number of processes and parts."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate after the warm-up: constant, or decaying to 1.5 % (cosine) or 1 % (linear) at the last step."""
    lr_hold_steps: int = Field(default=0, ge=0)
    """Steps before the learning rate begins to decay."""
    activation_checkpointing: bool = False
    """Recompute decoder blocks in the backward pass: the same result in far less memory, for a third more work."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """"auto" is bf16 if it is fast on the device, else fp32."""
    compile: Literal["no", "auto"] = "no"
    """"auto" compiles the transformer blocks on a GPU."""
    seed: int = 0
    """Random seed of the training."""
    tracker: TrackerName = "none"
    """Experiment tracker that also receives the log: "tensorboard" or "trackio"."""
    log_every: int = Field(default=50, ge=1)
    """Steps between log lines."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints."""
    grid_every: int = Field(default=2000, ge=1)
    """Steps between sample grids."""


class Preset(Config):
    """A complete, named recipe: the paper's method, plus extensions."""

    summary: str
    """One line for tables and help."""
    model: ModelConfig
    objective: ObjectiveConfig
    sampler: SamplerConfig
    """How clips are sampled by default."""
    train: TrainConfig
    inference: InferenceConfig = InferenceConfig()
    extensions: ExtensionSettings = Field(default_factory=Extensions)
    """Additions to the paper's method; empty in the paper's presets."""

    @model_validator(mode="after")
    def _fits(self) -> Preset:
        train = self.train
        if self.model.latent is None and (train.frame_step != 1 or train.clip_frames is not None):
            raise ValueError(
                "train.frame_step and train.clip_frames apply to videos; a preset on pixels uses suite clips unchanged"
            )
        for extension in self.extensions:
            extension.check(self)
            if extension.needs_pixels and self.model.latent is not None:
                raise ValueError(f"extension {extension.name} requires pixels; this preset uses latents")
            if extension.needs_random_order and train.order == "epochs":
                raise ValueError(f"extension {extension.name} requires train.order=random")
        return self

    @property
    def recipe(self) -> tuple[str, ...]:
        """("paper",), or the names of the extensions."""
        return self.extensions.recipe


def preset_of(recipe: Recipe, summary: str, suite: str, *, resize: bool = False, **train: object) -> Preset:
    """The preset of one of the paper's tables, without extensions; `train` sets how the run is carried out."""
    return Preset(
        summary=summary,
        model=recipe.model,
        objective=recipe.objective,
        sampler=recipe.sampler,
        train=TrainConfig.model_validate({**recipe.optimization.model_dump(), "suite": suite, **train}),
        inference=InferenceConfig(resize=resize),
    )
