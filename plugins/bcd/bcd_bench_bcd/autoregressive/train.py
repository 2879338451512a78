"""`bcd-bench train bcd-motion`: train GPT-2 on the motion codes of a trained BCD (Sec. 4.3, Appendix A.2).

Every random number of a step comes from (seed, step), so an interrupted run resumes exactly as if it had not been
interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcd_bench import training
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import (
    EMA,
    Every,
    Limits,
    Parts,
    RunCheckpoint,
    TrainingLog,
    TrainingLoop,
    check_finite,
    checkpoints_to_resume,
    count_parameters,
    resolve_precision,
    seconds_per_step,
    writing_into,
)
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import keep_freed_memory, resolve_device
from bcd_bench_bcd.autoregressive.codes import ClipCodes, encode_training_clips, missing_shards
from bcd_bench_bcd.autoregressive.config import CodeConfig, MotionConfig, MotionPreset, MotionTrainConfig
from bcd_bench_bcd.autoregressive.model import ALONE, FIRST, MIDDLE, MotionGPT, motion_loss
from bcd_bench_bcd.autoregressive.ngram import count_codes
from bcd_bench_bcd.autoregressive.presets import NOT_RESULTS, resolve_preset
from bcd_bench_bcd.autoregressive.prompt_encoder import adapt_encoder, prompt_pipeline
from bcd_bench_bcd.autoregressive.weights import LoadedMotionModel, MotionDescription, save_motion_model
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.latents.cache import LatentClips
from bcd_bench_bcd.presets.registry import PRESETS
from bcd_bench_bcd.training.dataset import DeviceClips
from bcd_bench_bcd.training.rng import step_generator
from bcd_bench_bcd.training.schedules import warm_cosine

__all__ = ["Trainer", "sample_batch", "train"]

WHAT = "BCD motion model training run"
WEIGHTS, CODES, PROMPT_ENCODER = "model.safetensors", "codes", "prompt_encoder"


def train(request: TrainRequest) -> None:
    """Train a motion model. Writes prompt_encoder/ (if the encoder is adapted), codes/, model.safetensors, config.json,
    log.jsonl and checkpoint.pt.

    Raises `UsageError` for invalid settings, an unavailable device, missing weights, or a folder that does not fit.
    """
    overrides = dict(request.overrides)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    if preset.bcd is None:
        raise UsageError(
            f"preset {request.preset!r} learns the codes of a BCD model, which must be given",
            hint="--set bcd=PATH, a model.safetensors written by bcd-bench train bcd",
        )
    bcd = BCD.from_pretrained(preset.bcd, request.device)
    clips, count = open_clips(preset, bcd, request)
    if request.plan_only:
        print(plan(preset, bcd, count, request))
        return
    limits, sha256 = Limits.of(request), bcd.loaded.codes_sha256
    adapting = preset.prompt_encoder.steps > 0
    prepared = request.out / (PROMPT_ENCODER if adapting else CODES)
    resumes = bool(checkpoints_to_resume(request.out, resume=request.resume, prepared=prepared))
    adapted = None
    if adapting:
        adapted = adapt_encoder(preset, bcd, clips, count, prepared, limits, resume=request.resume)
        if adapted is None:
            return
    pooled = preset.gpt.prefix == "pooled"
    with writing_into(request.out):
        data = encode_training_clips(
            bcd, sha256, clips, count, request.out / CODES, pooled=pooled, prompts=prompt_pipeline(bcd, adapted)
        )
    trainer = Trainer(preset, bcd, sha256, data, request.device, request.out, adapted)
    trainer.start(resume=resumes)
    trainer.run(limits)


def open_clips(preset: MotionPreset, bcd: BCD, request: TrainRequest) -> tuple[DeviceClips, int]:
    """The training clips, and how many of them are used. Raises `UsageError` if there are too few."""
    clips: Any
    if bcd.model.config.latent is None:
        clips = training.open_training_clips(preset.train.suite, request)
    else:
        if set(request.data) != {"latents"}:
            raise UsageError(
                "the BCD weights use latents, which must be encoded first",
                hint="--data latents=PATH, created by bcd-bench prepare bcd",
            )
        base = PRESETS["lrs3"]
        fitting = base.model_copy(
            update={
                "model": bcd.model.config,
                "train": base.train.model_copy(update={"clip_frames": preset.gpt.frames}),
            }
        )
        clips = LatentClips(request.data["latents"], fitting)
    count = len(clips) if preset.train.clips is None else preset.train.clips
    if count > len(clips):
        raise UsageError(f"--set train.clips={count}: there are {len(clips)} training clips")
    if count <= preset.train.held_out:
        raise UsageError(f"--set train.held_out={preset.train.held_out}: must be less than the {count} clips")
    return DeviceClips(clips, next(bcd.model.parameters()).device), count


def motion_config(preset: MotionPreset, bcd: BCD) -> MotionConfig:
    """The architecture for the codes and content of `bcd`."""
    model = bcd.model
    quantizer = model.quantizer.config
    height, width = model.config.frame_size
    device = next(model.parameters()).device
    with torch.inference_mode():
        black = torch.zeros(1, 1, height, width, 3, dtype=torch.uint8, device=device)
        if model.config.latent is None:
            values = model.values(black)
        else:
            values = torch.zeros(1, 1, model.config.channels, *model.config.grid, device=device)
        content = bcd.pipeline.encode_content(values)
    codes = CodeConfig(
        groups=quantizer.groups,
        entries=quantizer.entries,
        dim=quantizer.dim,
        content_tokens=content.shape[1],
        content_width=content.shape[2],
    )
    return MotionConfig(codes=codes, gpt=preset.gpt)


def build(preset: MotionPreset, bcd: BCD) -> MotionGPT:
    """A motion model with random weights and the codebook of `bcd`."""
    torch.manual_seed(preset.train.seed)
    model = MotionGPT(motion_config(preset, bcd))
    model.codebook.copy_(bcd.model.quantizer.codebook.detach())
    return model


def sample_batch(data: ClipCodes, preset: MotionPreset, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random batch: content [B, P, C_c], codes [B, T, N] with T of at most the model's frames, and how the sequences
    start, int64 [B] as in `MotionGPT.prompt`.

    All sequences of a batch have one length. With the probabilities of the settings, the clips of a step are
    down-sampled by 2 in time, start in the middle of the clip, and have content and first code of the first frame
    alone.
    """
    train, context = preset.train, preset.gpt.frames
    indices = torch.randint(len(data), (train.batch,), generator=generator)
    part = data[indices]
    codes = part.codes
    alone = torch.rand(train.batch, generator=generator) < train.prompt
    start = torch.where(alone, ALONE, FIRST)
    half, cropped = torch.rand(2, generator=generator) < torch.tensor([train.half_rate, train.crop])
    codes = torch.where(
        (alone[:, None] & (torch.arange(codes.shape[1]) == 0))[..., None], part.first_codes[:, None], codes
    )
    content = torch.where(alone[:, None, None], part.first_content, part.content)
    if half and codes.shape[1] >= 4:
        codes = codes[:, ::2]
    first = 0
    if cropped and codes.shape[1] > 2:
        first = int(torch.randint(1, codes.shape[1] - 1, (), generator=generator))
        start[:] = MIDDLE
    return content, codes[:, first : first + context], start


class Trainer:
    """One training run in one folder."""

    def __init__(
        self,
        preset: MotionPreset,
        bcd: BCD,
        bcd_sha256: str,
        data: ClipCodes,
        device: str,
        out: Path,
        prompt_encoder: dict[str, Tensor] | None = None,
    ) -> None:
        train = preset.train
        self.prompt_encoder = prompt_encoder
        self.preset, self.bcd_sha256, self.out = preset, bcd_sha256, out
        self.device = resolve_device(device)
        keep_freed_memory(self.device.type)
        self.precision = resolve_precision(train.precision, self.device.type)
        self.data, self.held_out = data[: -train.held_out], data[-train.held_out :]
        self.model = build(preset, bcd).to(self.device).train()
        self.description = MotionDescription(motion=self.model.config, bcd_sha256=bcd_sha256)
        self.ema: EMA[MotionGPT] | None = EMA(self.model, train.ema) if train.ema else None
        decayed = [p for p in self.model.parameters() if p.ndim >= 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=train.lr,
            betas=train.betas,
            fused=True,
        )
        counts, first, follow = count_codes(self.data.codes, self.model.config.codes.entries)
        self.statistics = {
            "counts": torch.from_numpy(counts),
            "first": torch.from_numpy(first),
            "follow": torch.from_numpy(follow),
            "sequences": self.data.codes,
        }
        log = TrainingLog(self.out, digits=5, tracker=train.tracker)
        self.loop = TrainingLoop(
            f"train bcd-motion {train.suite}", train.steps, log, log_every=train.log_every,
            save_every=train.checkpoint_every, steps_before=preset.prompt_encoder.steps,
        )  # fmt: skip
        settings = {
            "preset": preset.model_dump(mode="json", exclude={**NOT_RESULTS, "bcd": True}),
            "bcd": bcd_sha256,
            "precision": self.precision,
        }
        self.checkpoint = RunCheckpoint(self.out, WHAT, self.loop, settings, self.device)

    @property
    def result(self) -> MotionGPT:
        """The model that is saved: the moving average, if there is one."""
        average: MotionGPT | None = None if self.ema is None else self.ema.module
        return self.model if average is None else average

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Resume from the folder's checkpoint, or begin. Raises `UsageError` if the folder does not fit."""
        self.checkpoint.start(self._parts(), resume=resume)

    def save(self) -> None:
        """Write the checkpoint and the weights, each atomically."""
        with self.checkpoint.saving(self._parts()):
            save_motion_model(self.out / WEIGHTS, self.loaded())

    def _parts(self) -> Parts:
        average = None if self.ema is None else self.ema.module
        return {"model": self.model, "average": average, "optimizer": self.optimizer}

    def loaded(self) -> LoadedMotionModel:
        """The result with the statistics of the training codes."""
        return LoadedMotionModel(
            self.result,
            self.description,
            prompt_encoder=self.prompt_encoder,
            card=self.card(),
            **self.statistics,
        )

    def card(self) -> dict[str, Any]:
        """Training data, settings and duration of the weights; stored in the weight file."""
        return {
            "suite": self.preset.train.suite,
            "clips": len(self.data),
            "step": self.loop.step,
            "hours": round(self.loop.seconds / 3600, 3),
            "device": self.device.type,
            "precision": self.precision,
            "train": self.preset.train.model_dump(mode="json", exclude=NOT_RESULTS["train"]),
            "prompt_encoder": self.preset.prompt_encoder.model_dump(mode="json"),
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, limits: Limits) -> None:
        """Train to the preset's last step, or to the limits. Interrupted or limited runs leave a checkpoint."""
        every = Every(self.preset.train.log_every, lambda done: self.held_out_bits())
        self.loop.run(limits, self.train_step, self.save, validate=every, describe=_in_words)
        print(f"motion model: {self.out / WEIGHTS}")

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the loss in nats and the norm of the gradient before clipping."""
        train = self.preset.train
        generator = step_generator(train.seed, step, "motion")
        torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))  # dropout
        content, codes, start = (t.to(self.device) for t in sample_batch(self.data, self.preset, generator))
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for part in torch.arange(train.batch).chunk(train.accumulate):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = self.model(content[part], codes[part], start[part])
            loss = motion_loss(logits, codes[part]) * (len(part) / train.batch)
            loss.backward()
            losses.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clip)
        values = {"loss": float(torch.stack(losses).sum()), "gradient_norm": float(norm)}
        check_finite(step, values, rate=train.lr, setting="train.lr")
        for group in self.optimizer.param_groups:
            group["lr"] = train.lr * rate_factor(step, train)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step)
        return values

    @torch.no_grad()
    def held_out_bits(self) -> dict[str, float]:
        """Cross-entropies of the held-out clips in bits per frame: of the network, and of the unigram and Markov models
        of the same training codes."""
        model = self.result
        was_training = model.training
        model.eval()
        data = self.held_out
        bits = [
            model.code_bits(data.content[part].to(self.device), data.codes[part].to(self.device)).sum(-1).cpu()
            for part in torch.arange(len(data)).split(64)
        ]
        model.train(was_training)
        markov = self.loaded().markov
        codes = data.codes.numpy()
        return {
            "bits": float(torch.cat(bits).double().mean()),
            "unigram_bits": float(markov.unigram_bits(codes).mean()),
            "markov_bits": float(markov.bits(codes).mean()),
        }


def rate_factor(step: int, config: MotionTrainConfig) -> float:
    """Factor on the learning rate at `step` (0-based): warm-up, then the schedule."""
    floor = 1.0 if config.lr_schedule == "constant" else 0.01
    return warm_cosine(step, config.steps, config.warmup, floor)


def _in_words(line: Mapping[str, float]) -> str:
    return (
        f"loss {line['loss']:.4f}, held-out clips {line['bits']:.3f} bits per frame "
        f"(Markov {line['markov_bits']:.3f}, unigram {line['unigram_bits']:.3f}), "
        f"gradient norm {line['gradient_norm']:.2f}"
    )


def plan(preset: MotionPreset, bcd: BCD, count: int, request: TrainRequest) -> str:
    """Parameters, clips and an estimate of the time from real steps on this device; writes nothing."""
    config = motion_config(preset, bcd)
    codes, frames = config.codes, min(preset.gpt.frames, 50)
    length = codes.content_tokens if preset.gpt.prefix == "tokens" else 1
    generator = torch.Generator().manual_seed(0)
    shape = (preset.train.held_out + 2, frames, codes.groups)
    random_codes = torch.randint(codes.entries, shape, generator=generator)
    content = torch.randn(len(random_codes), length, codes.content_width, generator=generator)
    data = ClipCodes(random_codes, random_codes[:, 0], content, content)
    trainer = Trainer(preset, bcd, "", data, request.device, request.out)
    seconds = seconds_per_step(trainer.train_step)
    total = count_parameters(trainer.model)
    train = preset.train
    return "\n".join(
        [
            f"suite: {train.suite} ({count} training clips, {train.held_out} of them held out)",
            f"clips to encode: {missing_shards(count, request.out / CODES)}",
            f"sequence: {length} content + {preset.gpt.frames} frames of {codes.groups} x {codes.entries} codes",
            f"parameters: {total / 1e6:.2f} M (GPT-2 {count_parameters(trainer.model.gpt2) / 1e6:.2f} M)",
            f"work: {train.steps} steps of {train.batch} sequences",
            f"speed here ({trainer.device.type}, {trainer.precision}): {seconds:.2f} s per step, "
            f"{seconds * train.steps / 3600:.2f} h in total",
        ]
    )
