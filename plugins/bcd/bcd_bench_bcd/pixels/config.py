"""Settings of `bcd-bench train bcd-pixels`."""

from __future__ import annotations

from pydantic import Field, model_validator

from bcd_bench.training import TrackerName
from bcd_bench_bcd.paper.config import Config

__all__ = ["PixelPreset", "PixelSettings", "PixelTrainConfig"]


class PixelSettings(Config):
    """Settings of the extension, see `PixelPath`."""

    sources: int = Field(default=2, ge=1, le=4)
    """Content frames that are carried for every driving frame."""
    gap: int = Field(default=6, ge=1)
    """Least distance in frames between two of them."""
    mirrored: bool = False
    """Whether a content frame is also carried as its mirror image."""


class PixelTrainConfig(Config):
    """The data, losses and optimisation of a training run."""

    suite: str = "heads-cross-128"
    """The suite whose training split is used; it has to render exact targets (see `crossed`)."""
    clips: int = Field(default=1024, ge=2)
    """Number of leading training clips; each is content once and drives once."""
    held_out: int = Field(default=16, ge=1)
    """Number of them, the last ones, that are not trained on but give the figures of the log."""
    shift: int = Field(default=17, ge=1)
    """Clip n is driven by clip n + shift (modulo the number of clips)."""
    frames: int = Field(default=8, ge=1)
    """Frames of a driving clip."""
    stride: int = Field(default=3, ge=1)
    """Distance between them, in frames of the suite."""
    init: str | None = None
    """Weights whose pixel path is trained further, also for another BCD (None: a new one)."""
    steps: int = Field(default=1200, ge=1)
    batch: int = Field(default=6, ge=1)
    """Pairs per step."""
    batch_frames: int = Field(default=2, ge=1)
    """Random frames of each pair."""
    lr: float = Field(default=1e-3, gt=0)
    """Highest learning rate of the network, AdamW."""
    field_lr: float = Field(default=2e-4, gt=0)
    """Highest learning rate of the flow fields, which begin as those of the BCD weights."""
    warmup: int = Field(default=50, ge=0)
    """Steps of linear learning-rate warm-up; then it decays to 2 % along a cosine."""
    weight_decay: float = Field(default=1e-3, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    """Maximum norm of the gradient."""
    ema: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average of the weights, which is the result."""
    single: float = Field(default=0.25, ge=0, le=1)
    """Probability that the content of a pair is one random frame, as a photo is."""
    jitter: float = Field(default=0.25, ge=0, lt=1)
    """Range of random factors on colour channels; contrast and brightness vary by 0.8 and 0.6 of it."""
    part_weight: float = Field(default=3.0, ge=0)
    """Additional weight of errors where expressions move the face (lids, brows, lips)."""
    structure: float = Field(default=1.0, ge=0)
    """Weight of the structural dissimilarity of the picture."""
    contrast: float = Field(default=0.0, ge=0)
    """Weight of the error of the local contrast, which is lost where pictures that do not match are averaged."""
    carried: float = Field(default=0.3, ge=0)
    """Weight of the error of the first carried picture alone."""
    drawn: float = Field(default=0.2, ge=0)
    """Weight of the error of the drawn picture alone."""
    points: float = Field(default=1.0, ge=0)
    """Weight of the error of the fields at the labelled points of the head."""
    smoothness: float = Field(default=0.5, ge=0)
    """Weight of the second differences of the fields."""
    adversarial: float = Field(default=0.0, ge=0)
    """Weight of a critic's judgement whether the picture is a rendered frame; without this and `features`, there is no
    critic."""
    features: float = Field(default=0.0, ge=0)
    """Weight of the difference from the target in the critic's features."""
    critic_lr: float = Field(default=2e-3, gt=0)
    """Learning rate of the critic."""
    seed: int = 0
    """Random seed of the training."""
    tracker: TrackerName = "none"
    """Experiment tracker that also receives the log: "tensorboard" or "trackio"."""
    log_every: int = Field(default=50, ge=1)
    """Steps between log lines, each with the figures of the held-out pairs."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between checkpoints."""

    @property
    def has_critic(self) -> bool:
        """Whether a critic is trained."""
        return self.adversarial > 0 or self.features > 0

    @model_validator(mode="after")
    def _enough(self) -> PixelTrainConfig:
        if self.held_out >= self.clips:
            raise ValueError(f"held_out {self.held_out} must be less than clips {self.clips}")
        if self.batch_frames > self.frames:
            raise ValueError(f"batch_frames {self.batch_frames} must be at most frames {self.frames}")
        return self


class PixelPreset(Config):
    """A complete, named recipe."""

    summary: str
    """One line for tables and help."""
    bcd: str | None
    """The BCD weights to extend: a name of shipped weights, or a file. None: must be set."""
    pixels: PixelSettings = PixelSettings()
    train: PixelTrainConfig = PixelTrainConfig()
