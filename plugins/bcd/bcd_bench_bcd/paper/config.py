"""The paper's settings, each with its symbol. Settings that the paper does not state are marked as such."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "Config",
    "DecoderConfig",
    "Direction",
    "EDMConfig",
    "EncoderConfig",
    "LatentConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizationConfig",
    "QuantizerConfig",
    "SamplerConfig",
    "StageConfig",
]

Direction = Literal["forward", "same"]
"""Content from the first half of a training clip and motion from the second one ("forward"), or both from the second
one ("same"): the paper's ablation without cross-driven training (Table 3)."""


class Config(BaseModel):
    """Immutable settings; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderConfig(Config):
    """T5 encoder over [content queries; one token per frame] (Sec. 3.1, Tables A7 and A8)."""

    layers: int = Field(default=12, ge=1)
    """Blocks of T5."""
    width: int = Field(default=384, ge=8)
    """d = C_c = C_m, channels of content tokens and motion latents."""
    heads: int = Field(default=6, ge=1)
    """Attention heads."""
    feed_forward: int = Field(default=1536, ge=8)
    """Units of the feed-forward layers."""
    content_tokens: int = Field(default=8, ge=1)
    """K, the number of learned content queries (not stated in the paper)."""


class QuantizerConfig(Config):
    """Group vector quantisation with a distance-Gumbel-softmax (Sec. 3.2, eqs. 1-5)."""

    groups: int = Field(default=1, ge=1)
    """N, the number of codebooks."""
    entries: int = Field(default=64, ge=2)
    """J, the entries of a codebook."""
    dim: int = Field(default=384, ge=1)
    """D, the channels of an entry."""
    alpha: float = Field(default=5.0, gt=0)
    """alpha, the scale of the distance in the softmax (eq. 2)."""
    distance: Literal["squared", "scaled", "l2"] = "squared"
    """l in eq. 1. "scaled" is the squared distance times 16 / D. With alpha = 5 and the 384 channels of Table A8, a sum
    of squares makes the softmax one-hot from the start: neither rate nor gradient is left, and the codebook collapses
    within two steps. With the 16 channels of Table A7, "squared" and "scaled" are the same."""
    tau_start: float = Field(default=2.0, gt=0)
    """tau, the temperature of the Gumbel softmax, at the first step."""
    tau_end: float = Field(default=0.5, gt=0)
    """The lowest temperature."""
    tau_decay: float | None = Field(default=None, gt=0, lt=1)
    """Factor on the temperature per step (Tables A7 and A8). None: exponential from tau_start at the first step to
    tau_end at the last one."""
    codes_from_data: bool = False
    """Data-dependent codebook initialisation from motion latents of training clips instead of U(-1, 1) (not stated in
    the paper). An untrained T5 gives nearly the same latent for every frame, so few of 64 entries from U(-1, 1) are
    nearest."""


class DecoderConfig(Config):
    """Diffusion transformer with per-frame motion, content tokens and temporal blocks (Sec. 3.3, Appendix A.1)."""

    depth: int = Field(default=12, ge=1)
    """Spatial blocks."""
    width: int = Field(default=384, ge=8)
    """Channels of a token."""
    heads: int = Field(default=6, ge=1)
    """Attention heads."""
    patch: int = Field(default=8, ge=1)
    """Side of a patch in pixels (or in latents)."""
    temporal_blocks: tuple[int, ...] = (0, 2, 4, 6, 8, 10)
    """Indices of the spatial blocks that are followed by a temporal block."""
    time_positions: Literal["none", "rotary"] = "none"
    """Position encoding over time in temporal blocks: rotary (Su et al. 2021), for any number of frames, or none (not
    stated in the paper). With none, a permutation of the frames permutes the output."""


class EDMConfig(Config):
    """Training noise (Karras et al. 2022, Table 1). The paper uses EDM but states none of its constants."""

    sigma_data: float = Field(default=0.5, gt=0)
    """Standard deviation of the data."""
    p_mean: float = -1.2
    """Mean of ln sigma in training."""
    p_std: float = Field(default=1.2, gt=0)
    """Standard deviation of ln sigma in training."""


class LatentConfig(Config):
    """The image autoencoder whose latents a model uses (Sec. 4.1)."""

    vae: Literal["sd2-vae", "taef2"] = "sd2-vae"
    """"sd2-vae": a diffusers autoencoder (SD 2.0's, or a compatible one). "taef2": the tiny one for FLUX.2."""
    factor: int = Field(default=8, ge=1)
    """Pixels per latent along a side."""


class ModelConfig(Config):
    """The complete architecture; stored with the weights."""

    frame_size: tuple[int, int] = (64, 64)
    """Height and width of the frames in pixels."""
    channels: int = 3
    """Channels of the model's input: 3 for pixels, else those of the latents."""
    latent: LatentConfig | None = None
    """The autoencoder whose latents the model uses (None: pixels)."""
    pixel_mean: float = -0.8
    """Mean used to standardise pixels in [-1, 1] for the encoder (not stated in the paper; that of Sprites)."""
    pixel_std: float = Field(default=0.45, gt=0)
    """Standard deviation used to standardise pixels for the encoder."""
    encoder: EncoderConfig = EncoderConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    decoder: DecoderConfig = DecoderConfig()
    edm: EDMConfig = EDMConfig()

    @model_validator(mode="after")
    def _patches_fill_the_frame(self) -> ModelConfig:
        unit = self.decoder.patch * (1 if self.latent is None else self.latent.factor)
        if any(side % unit for side in self.frame_size):
            raise ValueError(f"frame_size {list(self.frame_size)} is not a multiple of the patch side, {unit} pixels")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels or latents."""
        factor = 1 if self.latent is None else self.latent.factor
        return self.frame_size[0] // factor, self.frame_size[1] // factor


class ObjectiveConfig(Config):
    """Weights and targets of the loss L = L_d + lambda * L_VQ (eqs. 6-8)."""

    rate_weight: float = Field(default=0.04, ge=0)
    """lambda, the weight of the rate loss."""
    target_bits: float = Field(default=6.0, gt=0)
    """H_target, bits per frame over all groups."""
    rate_form: Literal["per-group", "total"] = "per-group"
    """Apply eq. 8 per group, averaged over groups, or to the total over groups as the text says. With one group both
    are the same."""
    condition_drop: float = Field(default=0.1, ge=0, lt=1)
    """Probability of replacing content and motion of a clip by learned nulls (classifier-free guidance)."""


class SamplerConfig(Config):
    """How clips are sampled (Karras et al. 2022, eq. 5 and Algorithm 1)."""

    name: Literal["heun", "euler", "dpmpp-2m"] = "heun"
    """The solver: EDM's Algorithm 1 (Heun), Euler, or DPM-Solver++(2M)."""
    steps: int = Field(default=50, ge=1)
    """Number of noise levels from sigma_max to sigma_min."""
    guidance: float = Field(default=1.5, ge=0)
    """w of classifier-free guidance; 1 disables guidance and halves the work."""
    sigma_min: float = Field(default=0.002, gt=0)
    """Lowest noise level before 0."""
    sigma_max: float = Field(default=80.0, gt=0)
    """Highest noise level."""
    rho: float = Field(default=7.0, gt=0)
    """Exponent of the noise level schedule."""

    @property
    def nfe(self) -> int:
        """Network evaluations per clip, guidance included."""
        evaluations = 2 * self.steps - 1 if self.name == "heun" else self.steps
        return evaluations * (1 if self.guidance == 1.0 else 2)


class StageConfig(Config):
    """One of several stages of a training run (Sec. 4.2); None keeps the preset's value."""

    name: str
    epochs: int = Field(ge=1)
    temporal: bool = True
    """Whether the decoder has its temporal blocks."""
    lr: float | None = Field(default=None, gt=0)
    encoder_lr: float | None = Field(default=None, gt=0)


class OptimizationConfig(Config):
    """The optimisation of Tables A7 and A8."""

    steps: int = Field(default=100_000, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training clips; they determine the number of steps."""
    stages: tuple[StageConfig, ...] = ()
    """Consecutive stages, each initialised with the weights of the previous one; they set epochs and learning rates."""
    clip_frames: int | None = Field(default=None, ge=2)
    """Frames of a training clip, after `frame_step`; None: the suite's length."""
    frame_step: int = Field(default=1, ge=1)
    """Use every n-th frame of a video (temporal down-sampling)."""
    batch: int = Field(default=128, ge=1)
    """Clips per step, over all processes and all parts of an accumulated step."""
    direction: Direction = "forward"
    """Halves that give content and motion: "same" is the ablation without cross-driving."""
    lr: float = Field(default=5e-5, gt=0)
    """Learning rate of AdamW."""
    encoder_lr: float = Field(default=1.0, gt=0)
    """Learning rate of encoder and codebook, relative to `lr`."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of matrices; vectors do not decay."""
    warmup: int = Field(default=0, ge=0)
    """Steps of linear learning-rate warm-up (not stated in the paper)."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Maximum norm of the gradient (not stated in the paper)."""
    ema: float = Field(default=0.9999, ge=0, lt=1)
    """Decay of the moving average of the weights (not stated in the paper)."""
