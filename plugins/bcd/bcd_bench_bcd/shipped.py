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
        sha256="b8c906f9e98ecb7917dadc7ba15ec5a141664de23076ad9c524b26df6cf08ee0",
    ),
    Weights(
        name="sprites-small",
        suites=("sprites",),
        package="bcd_bench_bcd",
        path="weights/sprites-small.safetensors",
        sha256="559d9442c82e3884166c156ff46421d0469419e1f0541f203c6337fd2095f96d",
    ),
)
