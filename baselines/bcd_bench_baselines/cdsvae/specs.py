"""Specs of C-DSVAE: a method with shipped weights, and a trainable."""

from __future__ import annotations

from bcd_bench import MethodSpec, TrainableSpec, Weights

__all__ = ["METHODS", "SHIPPED", "TRAINABLES"]

SHIPPED = tuple(
    Weights(
        name=f"cdsvae-{suite}",
        suites=(suite,),
        package="bcd_bench_baselines",
        path=f"cdsvae/weights/{suite}.safetensors",
        sha256=sha256,
    )
    for suite, sha256 in (
        ("sprites-procedural", "70c5b8c0f24889723ecb0c23d6d8b579a19dcb9490037103b7832f298087a4c5"),
        ("sprites", "a34c172b5722613c67c9410928e84fde1054d7abef4a38f144ef9ce04ac86828"),
    )
)

METHODS = (
    MethodSpec(
        name="cdsvae",
        version="1",
        summary="C-DSVAE: a sequential VAE with a static code per clip and a dynamic code per frame, separated by "
        "contrastive terms",
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
        summary="C-DSVAE trained from scratch on the training split of a suite",
        factory="bcd_bench_baselines.cdsvae.train:train",
        presets={
            "sprites-procedural": "the embedded procedural Sprites; no files needed",
            "sprites": "LPC Sprites (asset sprites-art)",
        },
        default_preset="sprites-procedural",
    ),
)
