"""What a preset is: a complete, named recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bcd_bench.training import TrackerName
from bcd_bench_bcd.extensions.base import Extensions, ExtensionSettings
from bcd_bench_bcd.paper.config import Config, ModelConfig, ObjectiveConfig, OptimizationConfig, SamplerConfig
from bcd_bench_bcd.paper.presets import Recipe

__all__ = ["InferenceConfig", "Preset", "TrainConfig", "preset_of"]


class InferenceConfig(Config):
    """How a trained model takes clips of other lengths and sizes than it was trained on."""

    window: int | None = Field(default=None, ge=2)
    """Frames that the model takes at once (None: any number); longer clips go through it in overlapping windows."""
    resize: bool = False
    """Clips of other sizes are resized to the model's, and outputs back to the size of the driving clip."""


class TrainConfig(OptimizationConfig):
    """The optimisation of a run and how it is carried out."""

    suite: str = "sprites-procedural"
    """The suite whose training split is learned."""
    init: str | None = None
    """Weights of an earlier run to start from (a model.safetensors of the same architecture)."""
    clips: int | None = Field(default=None, ge=2)
    """Use only the first of the suite's training clips, this many (None: all)."""
    accumulate: int = Field(default=1, ge=1)
    """Parts in which a process computes its clips of a step, for less memory; gradients are those of the whole."""
    order: Literal["random", "epochs"] = "random"
    """"random" draws clips with replacement. "epochs" goes through all of them in a new order each time and gives every
    clip random numbers of its own: results are the same for any number of processes and parts."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """The learning rate after the warm-up: constant, or down to 1.5 % (cosine) or 1 % (linear) at the last step."""
    lr_hold_steps: int = Field(default=0, ge=0)
    """Steps before the schedule begins to lower the learning rate."""
    activation_checkpointing: bool = False
    """Recompute decoder blocks in the backward pass: the same step in far less memory, a third more work."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """"auto" is bf16 if the device computes it fast, else fp32."""
    compile: Literal["no", "auto"] = "no"
    """"auto" compiles the transformer blocks on a GPU."""
    seed: int = 0
    """Of all random numbers of the training."""
    tracker: TrackerName = "none"
    """"tensorboard" or "trackio" to watch the log there as well."""
    log_every: int = Field(default=50, ge=1)
    """Steps between lines of the log."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints."""
    grid_every: int = Field(default=2000, ge=1)
    """Steps between sample grids."""


class Preset(Config):
    """A complete, named recipe: the paper's method, plus extensions."""

    summary: str
    """A line for tables and help."""
    model: ModelConfig
    objective: ObjectiveConfig
    sampler: SamplerConfig
    """How clips are sampled by default."""
    train: TrainConfig
    inference: InferenceConfig = InferenceConfig()
    extensions: ExtensionSettings = Field(default_factory=Extensions)
    """What is added to the paper's method; empty in the paper's presets."""

    @model_validator(mode="after")
    def _fits(self) -> Preset:
        train = self.train
        if self.model.latent is None and (train.frame_step != 1 or train.clip_frames is not None):
            raise ValueError(
                "train.frame_step and train.clip_frames are about videos; a preset on pixels learns a suite's clips as "
                "they are"
            )
        for extension in self.extensions:
            extension.check(self)
            if extension.needs_pixels and self.model.latent is not None:
                raise ValueError(f"extension {extension.name} changes pixels; this preset learns from latents")
            if extension.needs_random_order and train.order == "epochs":
                raise ValueError(f"extension {extension.name} needs train.order=random")
        return self

    @property
    def recipe(self) -> tuple[str, ...]:
        """("paper",), or the names of the extensions."""
        return self.extensions.recipe


def preset_of(recipe: Recipe, summary: str, suite: str, *, resize: bool = False, **train: object) -> Preset:
    """The preset of one of the paper's tables, without extensions; `train` is how the run is carried out."""
    return Preset(
        summary=summary,
        model=recipe.model,
        objective=recipe.objective,
        sampler=recipe.sampler,
        train=TrainConfig.model_validate({**recipe.optimization.model_dump(), "suite": suite, **train}),
        inference=InferenceConfig(resize=resize),
    )
