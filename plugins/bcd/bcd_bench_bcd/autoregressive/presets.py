"""The presets of `bcd-bench train bcd-motion`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcd_bench_bcd.autoregressive.config import GPTConfig, MotionPreset, MotionTrainConfig, PromptEncoderConfig
from bcd_bench_bcd.presets.lookup import named_preset

__all__ = ["NOT_RESULTS", "PRESETS", "resolve_preset", "settings_of"]

NOT_RESULTS = {"train": {"tracker"}}
"""Settings that do not affect results: they may change when a run is resumed."""

TABLE_A9 = MotionPreset(
    summary="Table A9: GPT-2 12 x 1024, batch 256, for codes of the preset lrs3; for GPUs",
    bcd=None,
    gpt=GPTConfig(),
    train=MotionTrainConfig(
        suite="lrs3-cross", steps=100_000, batch=256, half_rate=0.5, crop=0.25, log_every=100, checkpoint_every=1000
    ),
)

SPRITES_SMALL = MotionPreset(
    summary="GPT-2 4 x 128 for the codes of sprites-small; minutes on a CPU; shipped",
    bcd="sprites-small",
    prompt_encoder=PromptEncoderConfig(steps=300),
    gpt=GPTConfig(layers=4, width=128, heads=4, dropout=0.0, frames=8, prefix="pooled"),
    train=MotionTrainConfig(
        suite="sprites",
        steps=2000,
        batch=128,
        lr=2e-3,
        betas=(0.9, 0.99),
        warmup=50,
        lr_schedule="cosine",
        # A clip of 8 frames is one whole motion: at half the rate it would be another motion.
        half_rate=0.0,
        # Without an average over many steps, the probabilities of equally frequent motions differ by the last steps.
        ema=0.995,
        log_every=100,
        checkpoint_every=250,
    ),
)

SPRITES_PROCEDURAL_SMALL = SPRITES_SMALL.model_copy(
    update={
        "summary": "the same for the codes of sprites-procedural-small; no files needed (default)",
        "bcd": "sprites-procedural-small",
        "train": SPRITES_SMALL.train.model_copy(update={"suite": "sprites-procedural", "steps": 1500, "ema": 0.0}),
    }
)

HEADS_SMALL = MotionPreset(
    summary="GPT-2 4 x 160 for the codes of heads-small on rendered heads; shipped",
    bcd="heads-small",
    gpt=GPTConfig(layers=4, width=160, heads=5, dropout=0.2, frames=24, prefix="pooled"),
    train=MotionTrainConfig(
        suite="heads-cross-128",
        clips=1000,
        held_out=100,
        steps=1200,
        batch=64,
        lr=1e-3,
        betas=(0.9, 0.99),
        weight_decay=0.1,
        warmup=100,
        lr_schedule="cosine",
        half_rate=0.25,
        crop=0.35,
        ema=0.99,
        log_every=100,
        checkpoint_every=250,
    ),
)
"""With 900 training clips, larger networks (6 x 192, dropout 0.1) overfit after 1,000 steps: 10.4 bits per frame on
held-out clips instead of 10.0."""

HEADS_LANDMARKS = HEADS_SMALL.model_copy(
    update={"summary": "the same for the codes of heads-landmarks", "bcd": "heads-landmarks"}
)

PRESETS: dict[str, MotionPreset] = {
    "sprites-procedural-small": SPRITES_PROCEDURAL_SMALL,
    "sprites-small": SPRITES_SMALL,
    "heads-small": HEADS_SMALL,
    "heads-landmarks": HEADS_LANDMARKS,
    "table-a9": TABLE_A9,
}


def resolve_preset(name: str, overrides: Mapping[str, Any] | None = None) -> MotionPreset:
    """The preset `name` with dotted `overrides` ("train.lr": 1e-4) applied and validated.

    Raises `UsageError` for unknown presets or fields and for values out of range.
    """
    return named_preset(PRESETS, name, overrides, "bcd-motion")


def settings_of(name: str) -> list[tuple[str, Any, str]]:
    """Every setting of the preset `name`: its dotted name, its value as JSON, and its meaning."""
    from bcd_bench_bcd.presets.registry import fields_of

    return [field for field in fields_of(resolve_preset(name)) if field[0] != "summary"]
