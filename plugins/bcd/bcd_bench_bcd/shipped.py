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
        sha256="6b62190a13fd67a936448ce3024e1869fed4cfd050acef4ef387a03f6c93fa36",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites",),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="e254e076f167b66bfe0c349a79e88d4450078c463bc798bbcc5ba7bafd96a11a",
    ),
)
