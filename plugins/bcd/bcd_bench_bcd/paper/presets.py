"""The paper's recipes: Table A7 (LRS3) and Table A8 (Sprites)."""

from __future__ import annotations

from dataclasses import dataclass

from bcd_bench_bcd.paper.config import (
    DecoderConfig,
    EDMConfig,
    EncoderConfig,
    LatentConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    QuantizerConfig,
    SamplerConfig,
    StageConfig,
)

__all__ = ["TABLE_A7", "TABLE_A8", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """The settings of one of the paper's tables, and our choices for those it does not state."""

    model: ModelConfig
    objective: ObjectiveConfig
    sampler: SamplerConfig
    optimization: OptimizationConfig


TABLE_A7 = Recipe(
    model=ModelConfig(
        frame_size=(256, 256),
        channels=4,
        latent=LatentConfig(vae="sd2-vae"),
        encoder=EncoderConfig(layers=12, width=512, heads=8, feed_forward=2048, content_tokens=32),
        quantizer=QuantizerConfig(
            groups=64, entries=32, dim=16, distance="scaled", tau_start=1.5, tau_end=0.1, tau_decay=0.9999972
        ),
        decoder=DecoderConfig(
            depth=12, width=768, heads=12, patch=4, temporal_blocks=(0, 2, 4, 6, 8, 10), time_positions="rotary"
        ),
        # EDM2's constants for latents of an SD autoencoder, standardised to 0.5 (Karras et al. 2024)
        edm=EDMConfig(sigma_data=0.5, p_mean=-0.4, p_std=1.0),
    ),
    objective=ObjectiveConfig(rate_weight=0.04, target_bits=160.0, condition_drop=0.1),
    sampler=SamplerConfig(name="heun", steps=128, guidance=1.5),
    optimization=OptimizationConfig(
        stages=(
            StageConfig(name="frames", epochs=30, temporal=False, lr=2e-4, encoder_lr=0.5),
            StageConfig(name="video", epochs=15, temporal=True, lr=2e-4, encoder_lr=0.25),
        ),
        clip_frames=50,
        frame_step=2,
        batch=32,
        lr=2e-4,
        encoder_lr=0.5,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        warmup=1000,
        ema=0.9999,
    ),
)

TABLE_A8 = Recipe(
    model=ModelConfig(
        frame_size=(64, 64),
        encoder=EncoderConfig(layers=12, width=384, heads=6, feed_forward=1536, content_tokens=8),
        quantizer=QuantizerConfig(
            groups=1,
            entries=64,
            dim=384,
            distance="scaled",
            tau_start=2.0,
            tau_end=0.5,
            tau_decay=0.9999972,
            codes_from_data=True,
        ),
        decoder=DecoderConfig(
            depth=12, width=384, heads=6, patch=8, temporal_blocks=(0, 2, 4, 6, 8, 10), time_positions="rotary"
        ),
        edm=EDMConfig(sigma_data=0.5, p_mean=-1.2, p_std=1.2),
    ),
    objective=ObjectiveConfig(rate_weight=0.04, target_bits=6.0, condition_drop=0.1),
    sampler=SamplerConfig(name="heun", steps=50, guidance=1.5),
    optimization=OptimizationConfig(
        steps=100_000, batch=128, lr=5e-5, betas=(0.9, 0.999), weight_decay=0.01, warmup=1000, ema=0.9999
    ),
)
