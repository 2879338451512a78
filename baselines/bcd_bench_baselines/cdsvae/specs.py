"""C-DSVAE as a method with shipped weights, and as something to train."""

from __future__ import annotations

from bcd_bench import MethodSpec, TrainableSpec, Weights

__all__ = ["METHODS", "SHIPPED", "TRAINABLES"]

SHIPPED: tuple[Weights, ...] = ()

METHODS = (
    MethodSpec(
        name="cdsvae",
        version="1",
        summary="C-DSVAE: a sequential VAE with one static code a clip and one dynamic code a frame, kept apart "
        "by contrastive terms",
        factory="bcd_bench_baselines.cdsvae.method:CDSVAEMethod",
        licence="Apache-2.0",
        paper="Contrastively Disentangled Sequential Variational Autoencoder",
        config={"f": "posterior", "z": "posterior"},
        weights=SHIPPED,
        batch_size=16,
    ),
)

TRAINABLES = (
    TrainableSpec(
        name="cdsvae",
        version="1",
        summary="C-DSVAE from scratch on the training split of a suite",
        factory="bcd_bench_baselines.cdsvae.train:train",
        presets={
            "sprites-procedural": "the embedded procedural Sprites; no files needed",
            "sprites": "LPC Sprites (asset sprites-art)",
        },
        default_preset="sprites-procedural",
    ),
)
