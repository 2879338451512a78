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
        sha256="5e625dcc8682dd0435aaf35474f4dca97e29b3c4b43d9b1ac687dae5fab82a68",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites",),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="09b01483f55041b4d1147b6750d706a123e2266d07e3ae2658e8469f202980f2",
    ),
)
