"""A tiny model of latents, to run the whole pipeline of the preset `lrs3` in minutes."""

from __future__ import annotations

from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.content_channels import ContentChannels
from bcd_bench_bcd.extensions.loss_weight_clamp import LossWeightClamp
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.paper.config import (
    DecoderConfig,
    EDMConfig,
    EncoderConfig,
    LatentConfig,
    ModelConfig,
    ObjectiveConfig,
    QuantizerConfig,
    SamplerConfig,
    StageConfig,
)
from bcd_bench_bcd.presets.base import InferenceConfig, Preset, TrainConfig

__all__ = ["LRS3_TINY"]

LRS3_TINY = Preset(
    summary="7 M parameters on latents of a tiny autoencoder: the path of `lrs3` in minutes on a CPU; blurred pictures",
    model=ModelConfig(
        frame_size=(128, 128),
        channels=32,
        latent=LatentConfig(vae="taef2"),
        encoder=EncoderConfig(layers=2, width=128, heads=4, feed_forward=512, content_tokens=64),
        quantizer=QuantizerConfig(groups=16, entries=32, dim=8, tau_start=1.5, tau_end=0.35),
        decoder=DecoderConfig(depth=4, width=192, heads=4, patch=2, temporal_blocks=(0, 2), time_positions="rotary"),
        edm=EDMConfig(sigma_data=0.5, p_mean=0.4, p_std=1.4),
    ),
    objective=ObjectiveConfig(target_bits=40.0),
    sampler=SamplerConfig(name="dpmpp-2m", steps=8, guidance=1.0),
    train=TrainConfig(
        suite="lrs3-cross",
        stages=(
            StageConfig(name="frames", epochs=60, temporal=False),
            StageConfig(name="video", epochs=30, temporal=True, lr=5e-4),
        ),
        clip_frames=32,
        frame_step=2,
        batch=4,
        order="epochs",
        lr=1e-3,
        warmup=20,
        ema=0.98,
        log_every=10,
        checkpoint_every=50,
        grid_every=100,
    ),
    inference=InferenceConfig(resize=True),
    extensions=Extensions([SymmetricHalves(mode="random"), ContentChannels(), LossWeightClamp(max=30.0)]),
)
