"""The weights shipped in this package: name, suites and hash. Separate from the model, so that torch is not
imported."""

from __future__ import annotations

from bcd_bench import Weights

__all__ = ["FACES", "HEADS", "REAL_FACES", "SHIPPED"]

HEADS = (
    "heads-cross",
    "heads-cross-128",
    "heads-cross-64",
    "heads-self-128",
)
"""Suites of rendered heads."""

REAL_FACES = (
    "clips-cross",
    "clips-self",
    "lrs3-self",
    "lrs3-cross",
    "lrs3-cross-content1",
    "lrs3-cross-content5",
    "lrs3-cross-content15",
    "lrs3-cross-content20",
)
"""Suites of real people."""

FACES = (*HEADS, *REAL_FACES)
"""Suites of faces."""

SHIPPED = (
    Weights(
        name="sprites-procedural-small",
        suites=("sprites-procedural", "sprites-procedural-self"),
        package="bcd_bench_bcd",
        path="weights/sprites-procedural-small.safetensors",
        sha256="24fc6d377e9e795c362af12c8179e22a184ee2a123b977c7a3595deaa7b02211",
    ),
    Weights(
        name="sprites-procedural-paper-small",
        suites=(),
        package="bcd_bench_bcd",
        path="weights/sprites-procedural-paper-small.safetensors",
        sha256="d0750525afbf2b406116bf41e19c106a77d7c43729dd19de3e4b3d29766e387e",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites", "sprites-self"),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="196dc217c20b9eabb56febdc7443027379311eadc1d731877ee87154b77dcb69",
    ),
    Weights(
        name="heads-small",
        suites=(),
        package="bcd_bench_bcd",
        path="weights/heads-small.safetensors",
        sha256="ae1992eebb572eaad18f0adc9305194a33f5a894d3019c8c7f3565618099ade8",
    ),
    Weights(
        name="faces-landmarks",
        suites=REAL_FACES,
        package="bcd_bench_bcd",
        path="weights/faces-landmarks.safetensors",
        sha256="ca81dbdfbf8a743c38f3e45e5df2a8846bb7807d4eade9eeb7410a17cd2ce188",
        assets=("face-landmarker",),
    ),
    Weights(
        name="heads-landmarks",
        suites=FACES,
        package="bcd_bench_bcd",
        path="weights/heads-landmarks.safetensors",
        sha256="f65dd2f1650d07c6e83db43b0e6c5333109035638e57d30bcf0fca1beb669f6e",
    ),
    Weights(
        name="heads-pixels",
        suites=(),
        package="bcd_bench_bcd",
        path="weights/heads-pixels.safetensors",
        sha256="2559060f796680336674ba7ed678a44a2795d4d510cd1ff1e3e104b42a8b8472",
    ),
)
