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
        sha256="263d05ad843122846fb1a0a6ce113de1daf4f485fd86c80280727a2e7bd538e6",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites",),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="09b01483f55041b4d1147b6750d706a123e2266d07e3ae2658e8469f202980f2",
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
        sha256="d1f69d70e773f316db2a202695b7b979aaf39ba4a23303ab1ad4f2e97e629784",
    ),
)
