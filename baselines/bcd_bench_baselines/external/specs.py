"""Specs of this package; lightweight."""

from __future__ import annotations

from bcd_bench import MethodSpec

METHODS = (
    MethodSpec(
        name="external",
        version="2",
        summary='Any command that communicates by JSON lines: --set cmd="python my_method.py".',
        factory="bcd_bench_baselines.external.method:External",
        licence="that of the command",
        config={"cmd": "", "name": "", "cwd": "", "files": [], "frames": "png", "timeout": 300},
        batch_size=1,
        identify="bcd_bench_baselines.external.method:identify",
    ),
)
