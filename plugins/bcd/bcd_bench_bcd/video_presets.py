"""Recipes for videos of real faces, which work on latents: the paper's, and a small one for trying the whole path."""

from __future__ import annotations

from bcd_bench_bcd.configs import (
    DecoderConfig,
    DiffusionConfig,
    EncoderConfig,
    LatentConfig,
    ModelConfig,
    ObjectiveConfig,
    Preset,
    QuantizerConfig,
    SamplerConfig,
    StageConfig,
    TrainConfig,
)

__all__ = ["LRS3", "LRS3_TINY"]

LATENT_DIFFUSION = DiffusionConfig(sigma_data=0.5, p_mean=-0.4, p_std=1.0)
"""Not in the paper: EDM2's constants for latents of an SD autoencoder, standardised to 0.5 (Karras et al. 2024)."""

LRS3 = Preset(
    summary="Table A7: T5 12x512, DiT-B/4 on SD 2.0 latents, 64 x 32 codes, 160 bits per frame; for GPUs",
    model=ModelConfig(
        frame_size=(256, 256),
        channels=4,
        latent=LatentConfig(vae="sd2-vae"),
        resize=True,
        encoder=EncoderConfig(layers=12, width=512, heads=8, feed_forward=2048, content_tokens=32),
        quantizer=QuantizerConfig(
            groups=64, entries=32, dim=16, distance="scaled", tau_start=1.5, tau_end=0.1, tau_decay=0.9999972
        ),
        decoder=DecoderConfig(
            depth=12, width=768, heads=12, patch=4, temporal_blocks=(0, 2, 4, 6, 8, 10), time_positions="rotary"
        ),
        diffusion=LATENT_DIFFUSION,
    ),
    objective=ObjectiveConfig(rate_weight=0.04, target_bits=160.0, condition_drop=0.1),
    sampler=SamplerConfig(name="heun", steps=128, guidance=1.5),
    train=TrainConfig(
        suite="lrs3-cross",
        stages=(
            StageConfig(name="frames", epochs=30, temporal=False, lr=2e-4, encoder_lr=0.5),
            StageConfig(name="video", epochs=15, temporal=True, lr=2e-4, encoder_lr=0.25),
        ),
        clip_frames=50,
        frame_step=2,
        batch=32,
        order="epochs",
        direction="forward",
        lr=2e-4,
        encoder_lr=0.5,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        warmup=1000,
        ema=0.9999,
        compile="auto",
        log_every=50,
        checkpoint_every=2000,
        grid_every=10_000,
    ),
)
"""Warm-up and averaging are not in the paper; neither are alpha and the number of content tokens."""

LRS3_TINY = Preset(
    summary="a 7 M model on latents of the tiny autoencoder: the path of `lrs3` in minutes on a CPU; no good pictures",
    model=ModelConfig(
        frame_size=(128, 128),
        channels=32,
        latent=LatentConfig(vae="taef2"),
        resize=True,
        encoder=EncoderConfig(layers=2, width=128, heads=4, feed_forward=512, content_tokens=64),
        quantizer=QuantizerConfig(groups=16, entries=32, dim=8, tau_start=1.5, tau_end=0.35),
        decoder=DecoderConfig(
            depth=4, width=192, heads=4, patch=2, temporal_blocks=(0, 2), content="channels", time_positions="rotary"
        ),
        diffusion=DiffusionConfig(sigma_data=0.5, p_mean=0.4, p_std=1.4, weight_max=30.0),
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
        direction="random",
        lr=1e-3,
        warmup=20,
        ema=0.98,
        log_every=10,
        checkpoint_every=50,
        grid_every=100,
    ),
)
