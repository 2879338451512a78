"""Settings of `bcd-bench train bcd-landmarks`."""

from __future__ import annotations

from pydantic import Field, model_validator

from bcd_bench.training import TrackerName
from bcd_bench_bcd.paper.config import Config

__all__ = ["LandmarkPreset", "LandmarkSettings", "LandmarkTrainConfig"]


class LandmarkSettings(Config):
    """Settings of the extension, see `LandmarkMotion`."""

    groups: int = Field(default=8, ge=1)
    entries: int = Field(default=256, ge=2, le=256)
    dim: int = Field(default=3, ge=1)
    """Groups, entries per group, and channels per entry of the motion code."""
    subject: int = Field(default=48, ge=1)
    """Channels of what is known about a person's shape."""


class LandmarkTrainConfig(Config):
    """The data, losses and optimisation of a training run."""

    suite: str = "heads-cross-128"
    """The suite whose training split is used; it has to give exact points (see `random_points`)."""
    people: int = Field(default=8000, ge=2)
    """Number of training people, each in a motion of their own, and in that of another."""
    held_out: int = Field(default=256, ge=1)
    """Number of them, the last ones, that are not trained on but give the figures of the log."""
    shift: int = Field(default=17, ge=1)
    """Person n also gets motion n + shift (modulo the number of people)."""
    frames: int = Field(default=8, ge=1)
    """Random frames of every motion."""
    free_steps: int = Field(default=4000, ge=1)
    """Steps without quantiser; the codebooks are fitted to what has been learned by then."""
    steps: int = Field(default=8000, ge=2)
    """All steps."""
    batch: int = Field(default=32, ge=1)
    """People per step."""
    lr: float = Field(default=6e-4, gt=0)
    """Highest learning rate, AdamW; in both stages it decays to 1 % along a cosine."""
    shape_rate: float = Field(default=0.3, gt=0)
    """Factor on it for the shapes of the decoder."""
    warmup: int = Field(default=200, ge=0)
    """Steps of linear learning-rate warm-up, in both stages."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Maximum norm of the gradient."""
    noise: float = Field(default=0.005, ge=0)
    """Standard deviation of the errors of landmarks that are simulated, once per frame and once per clip; 2 is a whole
    side."""
    single: float = Field(default=0.25, ge=0, le=1)
    """Probability that the content of a batch is one frame, as a photo is."""
    part_weight: float = Field(default=3.0, ge=0)
    """Additional weight of errors where expressions move the face (lids, brows, lips)."""
    hidden_weight: float = Field(default=0.1, ge=0)
    """Weight of points that are turned away; that of the others is 1."""
    content: float = Field(default=0.5, ge=0)
    """Weight of the error of the content's own points."""
    facing: float = Field(default=0.01, ge=0)
    """Weight of the cross-entropy of which points are turned away."""
    commitment: float = Field(default=2e-3, ge=0)
    """Weight of the squared distance of latents from their entries."""
    code_memory: float = Field(default=0.99, gt=0, lt=1)
    """Decay of the running means that the entries are."""
    translation_clips: int = Field(default=512, ge=2)
    """Rendered training clips on which the codes are translated into those that the transformer was trained with."""
    translation_steps: int = Field(default=1500, ge=1)
    """Steps of this translation, with all frames in each."""
    seed: int = 0
    """Random seed of the training."""
    tracker: TrackerName = "none"
    """Experiment tracker that also receives the log: "tensorboard" or "trackio"."""
    log_every: int = Field(default=250, ge=1)
    """Steps between log lines, each with the figures of the held-out people."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _enough(self) -> LandmarkTrainConfig:
        if self.held_out >= self.people:
            raise ValueError(f"held_out {self.held_out} must be less than people {self.people}")
        if self.free_steps >= self.steps:
            raise ValueError(f"free_steps {self.free_steps} must be less than steps {self.steps}")
        return self


class LandmarkPreset(Config):
    """A complete, named recipe."""

    summary: str
    """One line for tables and help."""
    bcd: str | None
    """The BCD weights to extend: a name of shipped weights, or a file. None: must be set."""
    pixel_path: str | None = None
    """Weights whose pixel path the result gets, with its layer for the code fitted to the new code (None: no pixel
    path; `bcd-bench train bcd-pixels` trains one)."""
    landmarks: LandmarkSettings = LandmarkSettings()
    train: LandmarkTrainConfig = LandmarkTrainConfig()
