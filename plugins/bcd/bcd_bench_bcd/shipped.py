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
        sha256="577c718747cfa3a28e16949cacd2f6e35049a35a28874d12e7809cc314fbf736",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites",),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="34471d9a960f8557ce5fe41065e963a5b8a60ac0868fec4caa118b3bf18d605c",
    ),
)
