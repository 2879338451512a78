"""A tiny model of Sprites for ablations: many trainings from scratch on a small machine."""

from __future__ import annotations

from bcd_bench_bcd.extensions.base import Extensions, Schedule
from bcd_bench_bcd.extensions.content_bottleneck import ContentBottleneck
from bcd_bench_bcd.extensions.content_dropout import ContentDropout
from bcd_bench_bcd.extensions.dead_code_restart import DeadCodeRestart
from bcd_bench_bcd.extensions.robust_loss import RobustLoss
from bcd_bench_bcd.extensions.swap_cycle import SwapCycle
from bcd_bench_bcd.paper.config import DecoderConfig, EncoderConfig
from bcd_bench_bcd.presets.sprites_small import SPRITES_SMALL

__all__ = ["SPRITES_PROCEDURAL_TINY", "SPRITES_TINY"]

_SHORTER = (
    # The penalty starts once the decoder uses the content; from step 100 on, it suppressed the content for good.
    ContentBottleneck(dim=16, kl_weight=Schedule(points=((350, 0.0), (500, 1e-4), (700, 1e-4), (701, 1e-5)))),
    SwapCycle(weight=0.01, content_weight=1e-4, start=450),
    RobustLoss(width=0.05, start=700),
    DeadCodeRestart(every=50, start=750, stop=950),
)
_REPLACED = {ContentDropout.name, *(extension.name for extension in _SHORTER)}

SPRITES_TINY = SPRITES_SMALL.model_copy(
    update={
        "summary": "2 M parameters on LPC Sprites, for ablations: 1,300 steps, 25 minutes on a shared CPU core",
        "model": SPRITES_SMALL.model.model_copy(
            update={
                "encoder": EncoderConfig(layers=2, width=96, heads=4, feed_forward=384, content_tokens=64),
                "quantizer": SPRITES_SMALL.model.quantizer.model_copy(update={"dim": 96}),
                "decoder": DecoderConfig(depth=3, width=128, heads=4, patch=16, temporal_blocks=(1,)),
            }
        ),
        "train": SPRITES_SMALL.train.model_copy(
            update={
                "steps": 1300,
                "batch": 16,
                "warmup": 30,
                "ema": 0.99,
                "log_every": 25,
                "checkpoint_every": 300,
                "grid_every": 400,
            }
        ),
        "extensions": Extensions(
            [
                *(one for one in SPRITES_SMALL.extensions if one.name not in _REPLACED),
                *_SHORTER,
            ]
        ),
    }
)
"""`sprites-small` with a quarter of the tokens and narrower networks, and its schedules shortened."""

SPRITES_PROCEDURAL_TINY = SPRITES_TINY.model_copy(
    update={
        "summary": "the same tiny model on the embedded procedural suite: no files needed",
        "train": SPRITES_TINY.train.model_copy(update={"suite": "sprites-procedural"}),
    }
)
