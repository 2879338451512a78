"""Typed configurations of BCD: architecture, objective, sampler, training.

Fields that are not in the paper are marked "ours" and are off in the presets that follow the paper's tables.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "CanvasConfig",
    "DecoderConfig",
    "DiffusionConfig",
    "Direction",
    "EncoderConfig",
    "LatentConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "Preset",
    "QuantizerConfig",
    "SamplerConfig",
    "StageConfig",
    "TrainConfig",
]


Direction = Literal["forward", "random", "both", "same"]
"""Which half of a training clip gives the content and which one the motion, see `TrainConfig.direction`."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderConfig(_Config):
    """T5 encoder over [content queries; one token per frame] (Sec. 3.1, Tables A7 and A8)."""

    layers: int = Field(12, ge=1)
    width: int = Field(384, ge=8)
    heads: int = Field(6, ge=1)
    feed_forward: int = Field(1536, ge=8)
    content_tokens: int = Field(8, ge=1)
    """K, the number of learned content queries (not stated in the paper)."""
    content_dim: int | None = Field(None, ge=1)
    """Ours: narrow every content token to this many Gaussian channels (a variational information bottleneck), so
    that content has a rate too and what the motion code says already is not worth its price."""
    stem: Literal["linear", "conv"] = "linear"
    """How a frame becomes a token: by one linear map, or (ours) by a small convolutional network, whose grid of
    features the content queries look at too."""
    stem_shrink: int = Field(8, ge=2)
    """Pixels of a frame along a side of one place of the convolutional network's grid of features."""
    stem_blocks: int = Field(1, ge=0)
    """Residual blocks of the convolutional network at each of its two scales."""


class QuantizerConfig(_Config):
    """Group VQ with a distance-Gumbel-softmax (Sec. 3.2, eqs. 1-5)."""

    groups: int = Field(1, ge=1)
    """N."""
    entries: int = Field(64, ge=2)
    """J."""
    dim: int = Field(384, ge=1)
    """D, channels of a group."""
    alpha: float = Field(5.0, gt=0)
    distance: Literal["squared", "scaled", "l2"] = "squared"
    """What alpha multiplies (eq. 1). "scaled" is the squared distance times 16 / dim: alpha = 5 is of codes of 16
    channels (Table A7), and over the 384 of Table A8 a plain sum of squares makes the softmax one-hot from the start,
    so that neither rate nor gradient is left and the codebook collapses within two steps."""
    tau_start: float = Field(2.0, gt=0)
    tau_end: float = Field(0.5, gt=0)
    tau_decay: float | None = Field(None, gt=0, lt=1)
    """The temperature is multiplied by this at every step, down to tau_end (Table A7). None: it falls exponentially
    from tau_start to tau_end over the steps of the run, however many."""
    normalize: Literal["none", "batch"] = "none"
    """Ours: "batch" standardises motion latents by running statistics: the encoder cannot drift off its codebook."""
    straight_through: Literal["assignment", "latent"] = "assignment"
    """How gradients reach the encoder: through the relaxed assignment (eq. 2), or (ours) past the codebook as well,
    as in VQ-VAE: where codes are decided, the relaxed assignment passes hardly anything on."""
    codes_from_data: bool = False
    """Start the codebook from the first motion latents instead of U(-1, 1); the paper does not say how it starts. An
    untrained T5 gives nearly the same latents for all frames, so that few of 64 codes from U(-1, 1) are ever near one.
    """


class DecoderConfig(_Config):
    """DiT with per-frame motion conditioning, content tokens and temporal blocks (Sec. 3.3, Appendix A.1, eq. 13)."""

    depth: int = Field(12, ge=1)
    width: int = Field(384, ge=8)
    heads: int = Field(6, ge=1)
    patch: int = Field(8, ge=1)
    temporal_blocks: tuple[int, ...] = (0, 2, 4, 6, 8, 10)
    time_positions: Literal["none", "rotary"] = "none"
    """How temporal blocks know the order of frames: by rotary positions (Su et al. 2021), which hold for any number of
    frames, or not at all, as in weights of before there was this field: then a permutation of frames permutes the
    output. The paper does not say."""
    content: Literal["tokens", "channels"] = "tokens"
    """"tokens": content tokens join the patch tokens of every frame. "channels": one content token per patch is
    concatenated to that patch along channels (then K is the number of patches that are drawn)."""
    motion_map: int = Field(0, ge=0)
    """Ours: channels of a map of the motion, one linear map of the code to every patch, beside the noisy patch: where
    things are need not be worked out from adaptive norms alone (0: none)."""
    skip_static_patches: bool = False
    """Ours: patches that are black all over the training set are not computed; they are output as black."""


class DiffusionConfig(_Config):
    """EDM (Karras et al. 2022, Table 1) with the constants of pixel data."""

    sigma_data: float = Field(0.5, gt=0)
    p_mean: float = -1.2
    p_std: float = Field(1.2, gt=0)
    prediction: Literal["edm", "x"] = "edm"
    """"edm" is EDM's preconditioned target. Ours: "x" lets the network output the clean frames directly."""
    weight_max: float | None = None
    """Ours: upper clamp of the EDM loss weight (None: no clamp)."""


class CanvasConfig(_Config):
    """Ours: content that motion moves, see `canvas`."""

    fine: int = Field(16, ge=1)
    """Channels of the fine map, which has a value for every `cell` x `cell` pixels."""
    cell: int = Field(2, ge=1)
    coarse: int = Field(64, ge=1)
    """Channels of the coarse map, which has a value for every patch."""
    hidden: int = Field(24, ge=1)
    """Channels of the convolutions that make the fine map."""
    field: int = Field(32, ge=2)
    """Displacements along a side of their field."""
    field_hidden: int = Field(256, ge=1)


class LatentConfig(_Config):
    """The latent space a model works in. What is measured on the training set is empty in a preset."""

    vae: Literal["sd2-vae", "taef2"] = "sd2-vae"
    """"sd2-vae": the folder of a diffusers autoencoder (SD 2.0's, or any other). "taef2": the tiny one for FLUX.2."""
    factor: int = Field(8, ge=1)
    """Pixels along one side of a latent's place."""
    sha256: str = ""
    """Of the autoencoder whose latents were learned; no other is taken."""
    mean: tuple[float, ...] = ()
    """Mean of every channel over the training set, before standardising."""
    std: tuple[float, ...] = ()
    """Standard deviation of every channel; latents are scaled to a spread of sigma_data (Karras et al. 2024)."""


class ModelConfig(_Config):
    """Everything that fixes the architecture; stored beside the weights."""

    frame_size: tuple[int, int] = (64, 64)
    """Height and width of the frames in pixels."""
    channels: int = 3
    """Of what the model works on: 3 for pixels, else the latents' channels."""
    latent: LatentConfig | None = None
    """None: pixels."""
    encoder: EncoderConfig = EncoderConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    decoder: DecoderConfig = DecoderConfig()
    canvas: CanvasConfig | None = None
    diffusion: DiffusionConfig = DiffusionConfig()
    drawn_patches: tuple[int, ...] | None = None
    """Indices of the patches that are computed (None: all). Measured on the training set, see `skip_static_patches`."""
    window: int | None = Field(None, ge=2)
    """Frames the model takes at once (None: any number); longer clips go through it in overlapping windows."""
    resize: bool = False
    """Clips of other sizes are resized to `frame_size`, and outputs back to the size of the motion clip."""

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        unit = self.decoder.patch * (1 if self.latent is None else self.latent.factor)
        if any(side % unit for side in self.frame_size):
            raise ValueError(f"frame_size {list(self.frame_size)} is no multiple of {unit} pixels, a patch's side")
        if self.canvas is not None:
            self._canvas_fits(self.canvas)
        return self

    def _canvas_fits(self, canvas: CanvasConfig) -> None:
        if self.encoder.stem != "conv" or self.decoder.content != "channels":
            raise ValueError("a canvas needs encoder.stem=conv and decoder.content=channels")
        if self.encoder.content_dim is not None or self.decoder.skip_static_patches:
            raise ValueError(
                "a canvas is never narrowed (encoder.content_dim) nor drawn in parts (skip_static_patches)"
            )
        if self.encoder.stem_shrink != self.decoder.patch or self.decoder.patch % canvas.cell:
            raise ValueError("a canvas needs encoder.stem_shrink equal to decoder.patch, a multiple of canvas.cell")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of what the model works on, in pixels or latents."""
        factor = 1 if self.latent is None else self.latent.factor
        return self.frame_size[0] // factor, self.frame_size[1] // factor


class ObjectiveConfig(_Config):
    """L = L_d + lambda * L_VQ (eqs. 6-8), and our optional additions, all off by default."""

    rate_weight: float = Field(0.04, ge=0)
    """lambda."""
    target_bits: float = Field(6.0, gt=0)
    """H_target in bits per frame, over all groups."""
    huber: float | None = Field(None, gt=0)
    """Ours: width c of a pseudo-Huber loss, 2 c (sqrt(e^2 + c^2) - c), in place of e^2: errors above c weigh less, so
    that few faint pixels (skin, trousers) are not drowned by outlines."""
    edges: float = Field(0.0, ge=0)
    """Ours: weight of the error of the differences between neighbouring pixels, beside that of the pixels."""
    picture: float = Field(0.0, ge=0)
    """Ours: weight of the error of the moved canvas's own picture."""
    guide: float = Field(0.0, ge=0)
    """Ours: weight of how far both fields of displacements miss the suite's points of the head, where the training
    split tells where those are in every frame. They teach where things go, not what the code has to hold."""
    canvas_from: int = Field(0, ge=0)
    """Ours: step from which the canvas is painted and its picture learned. Before, points guide the fields alone, at a
    small part of the cost of a step."""
    draw_from: int = Field(0, ge=0)
    """Ours: step from which the transformer draws. Before, the moved canvas's picture alone is learned, at half the
    cost of a step."""
    huber_from: int = Field(0, ge=0)
    """Step from which the pseudo-Huber loss holds; the squared error before."""
    rate_form: Literal["per-group", "total"] = "per-group"
    condition_drop: float = Field(0.1, ge=0, lt=1)
    """Chance to replace content and motion together by learned nulls (classifier-free guidance)."""
    content_drop: float = Field(0.0, ge=0, lt=1)
    """Ours: chance to drop the content alone, so that motion has to come from the code."""
    content_drop_until: int = Field(0, ge=0)
    """Ours: step from which content is no longer dropped alone (0: to the end). While it is, a code that also tells
    who moves lowers the loss; once content has a price, nothing else is needed to bring motion into the code."""
    motion_drop: float = Field(0.0, ge=0, lt=1)
    """Ours: chance to drop the motion alone."""
    code_confidence: float = Field(0.0, ge=0)
    """Ours: weight of the mean conditional entropy H(code | frame) in bits; keeps the code from being noise."""
    adversary: float = Field(0.0, ge=0)
    """Ours: weight of a label-free adversary that predicts the content half's code histogram from the content."""
    content_price: tuple[tuple[int, float], ...] = ()
    """Ours: what a nat of content costs (needs `content_dim`), as points (step, price) with straight lines between
    them. Before content is used, any price would silence it for good; once motion has left it, it may be precise."""

    revive_every: int = Field(0, ge=0)
    """Ours: steps between moves of hardly used codebook entries onto latents far from all entries (0: never)."""
    revive_from: int = Field(0, ge=0)
    """Ours: first step at which entries are moved. Before the swap cycle has made latents of one pose alike, those far
    from all entries differ in who moves, and entries moved there would carry that."""
    revive_until: int = Field(0, ge=0)
    """Ours: step from which entries are no longer moved."""
    cycle: float = Field(0.0, ge=0)
    """Ours: weight of the swap cycle. Some driving halves are redrawn with another clip's content and encoded again:
    they have to get the codes they were drawn from (cross-entropy in nats) and the content they were drawn with (in
    nats of the bottleneck's noise, by `cycle_content`). So codes cannot tell who moves, nor content how."""
    cycle_content: float = Field(0.0, ge=0)
    """Ours: weight of the content's part of the swap cycle."""
    cycle_share: float = Field(0.25, gt=0, le=1)
    """Ours: share of the driving halves that go through the swap cycle."""
    cycle_from: int = Field(0, ge=0)
    """Ours: step from which the swap cycle runs; before, what the decoder draws teaches nothing."""
    quantize_from: int = Field(0, ge=0)
    """Ours: step from which motion is quantised; before, the decoder gets the standardised latents, and at this step
    the codebook starts from them. Pose is a small part of what pictures of faces differ in: codes that start from an
    untrained encoder tell of everything else, so the decoder ignores them and the encoder never learns."""
    few_content: float = Field(0.0, ge=0, le=1)
    """Ours: chance of a step to read content from fewer frames than the half has, a number drawn from 1 on."""
    recolour: float = Field(0.0, ge=0)
    """Ours: strength at which the halves of a clip get colours of their own. What has to be drawn is the driving half
    in the colours of the content half, so a motion code that holds colours is of no use."""


class SamplerConfig(_Config):
    """How clips are sampled. `nfe` counts network evaluations of one clip, guidance included."""

    name: Literal["heun", "euler", "dpmpp-2m"] = "heun"
    steps: int = Field(50, ge=1)
    guidance: float = Field(1.5, ge=0)
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    rho: float = Field(7.0, gt=0)

    @property
    def nfe(self) -> int:
        evaluations = 2 * self.steps - 1 if self.name == "heun" else self.steps
        return evaluations * (1 if self.guidance == 1.0 else 2)


class StageConfig(_Config):
    """One of several stages of a training run; what is None is as in the preset."""

    name: str
    epochs: int = Field(ge=1)
    temporal: bool = True
    """With the decoder's temporal blocks, or without."""
    lr: float | None = Field(None, gt=0)
    encoder_lr: float | None = Field(None, gt=0)


class TrainConfig(_Config):
    """The optimisation of one training run."""

    suite: str = "sprites-procedural"
    """The suite whose training split is learned."""
    init: str | None = None
    """Weights of an earlier stage to start from (a model.safetensors of the same architecture)."""
    steps: int = Field(100_000, ge=1)
    epochs: int | None = Field(None, ge=1)
    """Passes over the training clips; they then fix the number of steps."""
    stages: tuple[StageConfig, ...] = ()
    """Stages one after the other, each from the weights of the one before; they fix epochs and learning rates."""
    stage: str = ""
    """Name of the stage that this configuration is for."""
    steps_before: int = Field(0, ge=0)
    """Steps of earlier stages: the Gumbel temperature goes on from there (with `tau_decay`)."""
    clip_frames: int | None = Field(None, ge=2)
    """Frames of a training clip, after `frame_step`; None: as the suite gives them."""
    frame_step: int = Field(1, ge=1)
    """Every n-th frame of a video is used (temporal down-sampling)."""
    batch: int = Field(128, ge=1)
    """Clips of a step, over all processes and all parts of an accumulated step."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a process computes its clips of a step, for less memory; gradients are those of the whole."""
    order: Literal["random", "epochs"] = "random"
    """"random" draws clips with replacement. "epochs" goes through all in a new order each time, and gives every clip
    random numbers of its own: results are the same for any number of processes and parts."""
    compile: Literal["no", "auto"] = "no"
    """"auto" compiles the transformer blocks on a GPU."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Ours: "muon" orthogonalises the updates of the hidden matrices; the rest stays with AdamW."""
    lr: float = Field(5e-5, gt=0)
    encoder_lr: float = Field(1.0, gt=0)
    """Learning rate of encoder and codebook, relative to `lr`."""
    muon_lr: float = Field(0.0, ge=0)
    """Learning rate of the Muon part (0: same as `lr`)."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    hold: int = Field(0, ge=0)
    """Ours: steps before the schedule begins to lower the rate."""
    gradient_clip: float = Field(1.0, gt=0)
    ema: float = Field(0.9999, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    recompute: bool = False
    """Compute decoder blocks again in the backward pass: the same step in far less memory, a third more work."""
    patch_floor: float = Field(1.0, gt=0, le=1)
    """Ours: in a step, a patch that is non-black in a share r of all frames is computed with chance
    max(sqrt(r), patch_floor) and weighted by its inverse. 1 computes all patches."""
    patches_until: float = Field(0.9, ge=0, le=1)
    """Ours: share of the steps after which all patches are computed, as in sampling."""
    direction: Direction = "random"
    """Which half of a clip gives the content: the first (the paper's), one drawn at random, or each in turn for the
    other (one encoder pass then serves two decoder samples). "same" is the paper's ablation without cross-driven
    training: content and motion come from one half, the second."""
    clips: int | None = Field(None, ge=2)
    """Use only the first of the suite's training clips, this many (None: all)."""
    take_frames: int | None = Field(None, ge=1)
    """Ours: the halves of a training clip are two takes of this many frames, of one subject in unrelated motions (None:
    halves of one clip, as in the paper). Needs a suite whose training split offers takes."""
    take_stride: int = Field(1, ge=1)
    """Frames of a take are this far apart."""
    half_frames: int | None = Field(None, ge=1)
    """Ours: frames of each half that a step looks at, drawn at random (None: all)."""
    mirror: bool = False
    """Ours: half of the training clips are shown mirrored, left to right."""
    seed: int = 0
    log_every: int = Field(50, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    grid_every: int = Field(2000, ge=1)


class Preset(_Config):
    """A complete, named recipe."""

    summary: str
    model: ModelConfig
    objective: ObjectiveConfig
    sampler: SamplerConfig
    """The preset's default sampler."""
    train: TrainConfig

    @model_validator(mode="after")
    def _fits(self) -> Preset:
        objective, train = self.objective, self.train
        if self.model.latent is None and (train.frame_step != 1 or train.clip_frames is not None):
            raise ValueError(
                "train.frame_step and train.clip_frames are about videos; a preset on pixels learns a suite's clips as "
                "they are"
            )
        for name in ("picture", "guide", "canvas_from", "draw_from"):
            if getattr(objective, name) and self.model.canvas is None:
                raise ValueError(f"objective.{name} is about the canvas, which this model lacks (model.canvas)")
        if objective.edges and train.patch_floor < 1:
            raise ValueError("objective.edges compares neighbouring patches: train.patch_floor=1 only")
        if objective.guide and (train.take_frames is None or train.direction == "random" or train.order != "random"):
            raise ValueError("objective.guide needs train.take_frames, order=random, and direction=forward or both")
        return self
