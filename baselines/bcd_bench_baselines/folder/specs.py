"""Specs of this package; lightweight."""

from __future__ import annotations

from bcd_bench import MethodSpec

METHODS = (
    MethodSpec(
        name="folder",
        version="2",
        summary="Existing videos, named after the pairs: --set path=FOLDER.",
        factory="bcd_bench_baselines.folder.method:Folder",
        licence="that of the videos",
        config={"path": "", "name": "", "resize": False},
        batch_size=4,
        identify="bcd_bench_baselines.folder.method:identify",
    ),
)
