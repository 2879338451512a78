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
        sha256="edb263525b4263af0e941fdcb4f6402ff944f54128d9ef1205ac5c37c18e6ad7",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites",),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="57e15213e2340e6ffa395d88eacb1317f8a8c3ac9e38c9bc1deac6a0ebc69e8c",
    ),
)
