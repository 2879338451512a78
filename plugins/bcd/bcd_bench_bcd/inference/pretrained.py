"""The weights in this package: name, suite and hash. Apart from the model, so that naming them imports no torch."""

from __future__ import annotations

from bcd_bench import Weights

__all__ = ["SHIPPED"]

SHIPPED = (
    Weights(
        name="sprites-procedural-small",
        suites=("sprites-procedural",),
        package="bcd_bench_bcd",
        path="weights/sprites-procedural-small.safetensors",
        sha256="cc94923f38a4c4b4f04cdc802073a73c3560691a1504bd798bedb1b9fa284bc1",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites",),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="702dc7b99ed4170c9be60c6b93b776d2b99f00ef4b87f72ca23ad945bd4c9f6d",
    ),
    Weights(
        name="heads-small",
        suites=(
            "heads-cross",
            "heads-cross-128",
            "heads-cross-64",
            "clips-cross",
            "clips-self",
            "lrs3-self",
            "lrs3-cross",
            "lrs3-cross-content1",
            "lrs3-cross-content5",
            "lrs3-cross-content15",
            "lrs3-cross-content20",
        ),
        package="bcd_bench_bcd",
        path="weights/heads-small.safetensors",
        sha256="ae9b71e27438efb67646e91b753f65c41993b07a4ed3a08f2fac73d373717a2d",
    ),
)
