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
        sha256="d397660b871452370c74fef48e9660b3e8279c35094eda2808239e8b2af1f35d",
        assets=("face-landmarker",),
    ),
    Weights(
        name="heads-landmarks",
        suites=FACES,
        package="bcd_bench_bcd",
        path="weights/heads-landmarks.safetensors",
        sha256="deab9a1a6b951e67b5d9ceead58174452203347eb2e2f4aa32570bdc6cf600e8",
    ),
    Weights(
        name="heads-pixels",
        suites=(),
        package="bcd_bench_bcd",
        path="weights/heads-pixels.safetensors",
        sha256="2559060f796680336674ba7ed678a44a2795d4d510cd1ff1e3e104b42a8b8472",
    ),
)
