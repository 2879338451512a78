"""What this plugin offers: specs only; everything heavy is imported by whoever uses it."""

from __future__ import annotations

from bcd_bench import AssetSpec, hookimpl
from bcd_bench_faces.assets import FACE_LANDMARKER


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [FACE_LANDMARKER]
