"""Settings of the autoregressive motion model (Sec. 4.3, Appendix A.2, Table A9)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bcd_bench.training import TrackerName
from bcd_bench_bcd.paper.config import Config

__all__ = ["CodeConfig", "GPTConfig", "MotionConfig", "MotionPreset", "MotionTrainConfig", "PromptEncoderConfig"]


class GPTConfig(Config):
    """GPT-2 over the frames of a clip (Table A9)."""

    layers: int = Field(default=12, ge=1)
    """Transformer blocks."""
    width: int = Field(default=1024, ge=8)
    """Hidden size."""
    heads: int = Field(default=8, ge=1)
    """Attention heads."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of embeddings, attention and residual branches (not stated in the paper; GPT-2's own value)."""
    frames: int = Field(default=50, ge=2)
    """Context: the most frames that a prediction depends on. For longer clips the window slides."""
    prefix: Literal["tokens", "pooled"] = "tokens"
    """The content prompt: all K content tokens, or their mean as a single element (the paper says "the content
    token ... as the first sequence element")."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> GPTConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class CodeConfig(Config):
    """The codes and the content of the BCD model whose motion is generated."""

    groups: int = Field(ge=1)
    """N, codebooks."""
    entries: int = Field(ge=2)
    """J, entries per codebook."""
    dim: int = Field(ge=1)
    """D, channels of an entry."""
    content_tokens: int = Field(ge=1)
    """K, content tokens."""
    content_width: int = Field(ge=1)
    """C_c, channels of a content token."""


class MotionConfig(Config):
    """The complete architecture; stored with the weights."""

    codes: CodeConfig
    gpt: GPTConfig = GPTConfig()


class MotionTrainConfig(Config):
    """The optimisation settings of a training run."""

    suite: str = "sprites-procedural"
    """The suite whose training split is encoded and used."""
    clips: int | None = Field(default=None, ge=2)
    """Number of leading training clips to use, held-out ones included (None: all)."""
    held_out: int = Field(default=256, ge=1)
    """Number of training clips, the last ones, that are not trained on but give the cross-entropies in the log."""
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=256, ge=1)
    """Sequences per step."""
    accumulate: int = Field(default=1, ge=1)
    """Number of parts in which the sequences of a step are computed, to save memory."""
    lr: float = Field(default=1e-4, gt=0)
    """Learning rate of AdamW."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of matrices; vectors do not decay."""
    warmup: int = Field(default=0, ge=0)
    """Steps of linear learning-rate warm-up (not stated in the paper)."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or decaying to 1 % at the last step."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Maximum norm of the gradient (not stated in the paper)."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights, which is the result; 0 uses the last weights."""
    half_rate: float = Field(default=0.5, ge=0, le=1)
    """Probability of temporal down-sampling of a sequence by a factor of 2 (Appendix A.2)."""
    crop: float = Field(default=0.25, ge=0, le=1)
    """Probability that a sequence starts in the middle of a clip, as it does when the window slides (ours)."""
    prompt: float = Field(default=0.5, ge=0, le=1)
    """Probability that content and first code are those of the first frame alone, as in a prompt of one frame
    (ours)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """"auto" is bf16 if it is fast on the device, else fp32."""
    seed: int = 0
    """Random seed of the training."""
    tracker: TrackerName = "none"
    """Experiment tracker that also receives the log: "tensorboard" or "trackio"."""
    log_every: int = Field(default=50, ge=1)
    """Steps between log lines, each with the cross-entropy of held-out clips."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints."""


class PromptEncoderConfig(Config):
    """How BCD's encoder is adapted to prompts of one or a few frames (ours), before the motion model is trained."""

    steps: int = Field(default=0, ge=0)
    """Optimiser steps; 0 encodes prompts with the BCD weights as they are."""
    batch: int = Field(default=16, ge=1)
    """Clips per step."""
    lr: float = Field(default=5e-4, gt=0)
    """Highest learning rate of AdamW."""


class MotionPreset(Config):
    """A complete, named training recipe of a motion model."""

    summary: str
    """One line for tables and help."""
    bcd: str | None
    """The BCD weights whose codes are learned: a name of shipped weights, or a file. None: must be set."""
    prompt_encoder: PromptEncoderConfig = PromptEncoderConfig()
    gpt: GPTConfig = GPTConfig()
    train: MotionTrainConfig = MotionTrainConfig()
