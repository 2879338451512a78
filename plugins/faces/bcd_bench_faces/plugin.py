"""What this plugin offers: specs only; everything heavy is imported by whoever uses it."""

from __future__ import annotations

from bcd_bench import AssetSpec, SuiteSpec, hookimpl
from bcd_bench_faces.assets import FACE_LANDMARKER


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return _HEADS


_HEADS = [
    SuiteSpec(
        name=name,
        version="1",
        summary=f"Rendered talking heads, {size}x{size}: transfers between people, with exact targets.",
        factory=f"bcd_bench_faces.heads:suite_{size}",
        training=f"bcd_bench_faces.heads:training_{size}",
        licence="Apache-2.0; head model CC0-1.0",
    )
    for name, size in (("heads-cross", 256), ("heads-cross-128", 128), ("heads-cross-64", 64))
]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [FACE_LANDMARKER]
