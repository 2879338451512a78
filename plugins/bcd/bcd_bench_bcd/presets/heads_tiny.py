"""A tiny model of rendered talking heads for ablations: many trainings from scratch on a small machine."""

from __future__ import annotations

from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.canonical_features import CanonicalFeatures
from bcd_bench_bcd.extensions.conv_stem import ConvStem
from bcd_bench_bcd.extensions.vq_start import VQStart
from bcd_bench_bcd.paper.config import DecoderConfig, EncoderConfig
from bcd_bench_bcd.presets.heads_small import HEADS_SMALL

__all__ = ["HEADS_TINY"]

_SHORTER = (
    ConvStem(stride=8),
    CanonicalFeatures(rgb_weight=1.0, warp_start=450, denoise_start=550),
    VQStart(step=100),
)
_REPLACED = {extension.name for extension in _SHORTER}

HEADS_TINY = HEADS_SMALL.model_copy(
    update={
        "summary": "4 M parameters on rendered heads at 64x64, for ablations: 700 steps, 25 minutes on a CPU core",
        "model": HEADS_SMALL.model.model_copy(
            update={
                "frame_size": (64, 64),
                "encoder": EncoderConfig(layers=2, width=96, heads=4, feed_forward=384, content_tokens=64),
                "decoder": DecoderConfig(depth=3, width=128, heads=4, patch=8, temporal_blocks=(1,)),
            }
        ),
        "train": HEADS_SMALL.train.model_copy(
            update={
                "suite": "heads-cross-64",
                "clips": 1024,
                "steps": 700,
                "batch": 16,
                "warmup": 40,
                "lr_hold_steps": 560,
                "ema": 0.99,
                "log_every": 25,
                "checkpoint_every": 200,
                "grid_every": 400,
            }
        ),
        "extensions": Extensions([*(one for one in HEADS_SMALL.extensions if one.name not in _REPLACED), *_SHORTER]),
    }
)
"""`heads-small` at a quarter of the pixels with narrower networks, and its schedule shortened."""
