"""Small models of Sprites, with extensions; shipped."""

from __future__ import annotations

from bcd_bench_bcd.extensions.assignment_entropy import AssignmentEntropy
from bcd_bench_bcd.extensions.base import Extensions, Schedule, constant
from bcd_bench_bcd.extensions.content_bottleneck import ContentBottleneck
from bcd_bench_bcd.extensions.content_channels import ContentChannels
from bcd_bench_bcd.extensions.content_dropout import ContentDropout
from bcd_bench_bcd.extensions.dead_code_restart import DeadCodeRestart
from bcd_bench_bcd.extensions.loss_weight_clamp import LossWeightClamp
from bcd_bench_bcd.extensions.muon import Muon
from bcd_bench_bcd.extensions.patch_skipping import PatchSkipping
from bcd_bench_bcd.extensions.robust_loss import RobustLoss
from bcd_bench_bcd.extensions.standardized_latents import StandardizedLatents
from bcd_bench_bcd.extensions.swap_cycle import SwapCycle
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.extensions.x_prediction import XPrediction
from bcd_bench_bcd.paper.config import (
    DecoderConfig,
    EDMConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    QuantizerConfig,
    SamplerConfig,
)
from bcd_bench_bcd.presets.base import Preset, TrainConfig

__all__ = ["SPRITES_PROCEDURAL_SMALL", "SPRITES_SMALL"]

SPRITES_SMALL = Preset(
    summary="9 M parameters on LPC Sprites, with extensions; hours on two CPU cores; these weights are shipped",
    model=ModelConfig(
        encoder=EncoderConfig(layers=4, width=192, heads=4, feed_forward=768, content_tokens=64),
        quantizer=QuantizerConfig(dim=192, alpha=12.0, distance="l2", codes_from_data=True),
        decoder=DecoderConfig(depth=6, width=192, heads=4, patch=8, temporal_blocks=(2,)),
        edm=EDMConfig(p_mean=1.8, p_std=1.5),
    ),
    objective=ObjectiveConfig(target_bits=5.6),
    sampler=SamplerConfig(name="euler", steps=2, guidance=1.0, sigma_min=0.3, sigma_max=20.0),
    train=TrainConfig(
        suite="sprites",
        steps=4000,
        batch=20,
        lr=1e-3,
        betas=(0.9, 0.99),
        warmup=100,
        lr_schedule="cosine",
        ema=0.998,
        checkpoint_every=250,
        grid_every=500,
    ),
    extensions=Extensions(
        [
            SymmetricHalves(mode="both"),
            ContentChannels(),
            # A large penalty, or content dropout while it is active, moves the character into the code permanently.
            ContentBottleneck(dim=8, kl_weight=Schedule(points=((300, 0.0), (450, 1e-4), (700, 1e-4), (701, 1e-5)))),
            StandardizedLatents(),
            DeadCodeRestart(every=50, start=1300, stop=1800),
            XPrediction(),
            LossWeightClamp(max=6.0),
            ContentDropout(probability=constant(0.15, stop=300)),
            RobustLoss(width=0.05, start=700),
            AssignmentEntropy(weight=0.02),
            SwapCycle(weight=0.01, content_weight=1e-4, start=400),
            PatchSkipping(min_keep_prob=0.3),
            Muon(lr=2e-3),
        ]
    ),
)

SPRITES_PROCEDURAL_SMALL = SPRITES_SMALL.model_copy(
    update={
        "summary": "the same small model on the embedded procedural suite: no files needed (default)",
        "train": SPRITES_SMALL.train.model_copy(update={"suite": "sprites-procedural", "steps": 4400}),
    }
)
