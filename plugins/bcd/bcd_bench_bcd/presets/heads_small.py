"""A small model of rendered talking heads, with extensions; shipped for all face suites."""

from __future__ import annotations

from bcd_bench_bcd.extensions.assignment_entropy import AssignmentEntropy
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.canonical_features import CanonicalFeatures
from bcd_bench_bcd.extensions.color_jitter import ColorJitter
from bcd_bench_bcd.extensions.content_channels import ContentChannels
from bcd_bench_bcd.extensions.content_frame_dropout import ContentFrameDropout
from bcd_bench_bcd.extensions.conv_stem import ConvStem
from bcd_bench_bcd.extensions.frame_subset import FrameSubset
from bcd_bench_bcd.extensions.gradient_loss import GradientLoss
from bcd_bench_bcd.extensions.horizontal_flip import HorizontalFlip
from bcd_bench_bcd.extensions.keypoint_supervision import KeypointSupervision
from bcd_bench_bcd.extensions.latent_gradient import LatentGradient
from bcd_bench_bcd.extensions.loss_weight_clamp import LossWeightClamp
from bcd_bench_bcd.extensions.muon import Muon
from bcd_bench_bcd.extensions.same_identity_pairs import SameIdentityPairs
from bcd_bench_bcd.extensions.spatial_motion import SpatialMotion
from bcd_bench_bcd.extensions.standardized_latents import StandardizedLatents
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.extensions.vq_start import VQStart
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
from bcd_bench_bcd.presets.base import InferenceConfig, Preset, TrainConfig

__all__ = ["HEADS_SMALL"]

HEADS_SMALL = Preset(
    summary="8 M parameters, rendered talking heads at 128x128 with keypoint labels; an hour on two CPU cores; shipped",
    model=ModelConfig(
        frame_size=(128, 128),
        encoder=EncoderConfig(layers=3, width=160, heads=4, feed_forward=640, content_tokens=64),
        quantizer=QuantizerConfig(groups=32, entries=16, dim=8, alpha=20.0, distance="l2", codes_from_data=True),
        decoder=DecoderConfig(depth=4, width=192, heads=4, patch=16, temporal_blocks=(1,)),
        edm=EDMConfig(p_mean=1.8, p_std=1.5),
    ),
    objective=ObjectiveConfig(condition_drop=0.05, target_bits=64.0),
    sampler=SamplerConfig(name="euler", steps=1, guidance=1.0, sigma_min=0.3, sigma_max=20.0),
    train=TrainConfig(
        suite="heads-cross-128",
        steps=2300,
        batch=32,
        lr=1e-3,
        betas=(0.9, 0.99),
        warmup=100,
        lr_schedule="cosine",
        lr_hold_steps=1900,
        ema=0.998,
        checkpoint_every=100,
        grid_every=500,
    ),
    inference=InferenceConfig(window=8, resize=True),
    extensions=Extensions(
        [
            SameIdentityPairs(frames=8, stride=3),
            FrameSubset(frames=4),
            HorizontalFlip(),
            SymmetricHalves(mode="both"),
            ConvStem(stride=16),
            ContentChannels(),
            StandardizedLatents(),
            LatentGradient(),
            SpatialMotion(channels=16),
            CanonicalFeatures(rgb_weight=1.0, warp_start=1500, denoise_start=1900),
            ColorJitter(strength=0.3),
            ContentFrameDropout(probability=0.1),
            VQStart(step=300),
            XPrediction(),
            LossWeightClamp(max=6.0),
            GradientLoss(weight=1.0),
            KeypointSupervision(weight=1.0),
            AssignmentEntropy(weight=0.002),
            Muon(lr=2e-3),
        ]
    ),
)
