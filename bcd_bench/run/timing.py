"""`timing.json` of a run: times and memory, separate from everything that two equal runs share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcd_bench.io.atomic import write_json_atomic
from bcd_bench.results.schema import TIMING_NAME

__all__ = ["note_timing", "note_workers", "read_timing"]


def read_timing(folder: Path) -> dict[str, Any]:
    """The content of `timing.json` in `folder`; empty if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):  # contains only times, so start over
        content = json.loads((folder / TIMING_NAME).read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def note_timing(folder: Path, key: str, value: Any) -> None:
    """Store a wall time; mappings are merged with the stored one."""
    timings = read_timing(folder)
    if isinstance(value, Mapping):
        value = {**timings.get(key, {}), **{name: round(seconds, 3) for name, seconds in value.items()}}
    write_json_atomic(folder / TIMING_NAME, {**timings, key: value})


def note_workers(folder: Path, stage: str, *, jobs: int, seconds: float, peak_memory: float) -> None:
    """Store under `workers` the number of workers of a stage ("generate", "score"), its wall time in seconds (a sum
    over interrupted sessions), and the largest memory of a worker in MiB."""
    timings = read_timing(folder)
    stages: dict[str, Any] = timings.get("workers", {})
    earlier: dict[str, Any] = stages.get(stage, {})
    stages[stage] = {
        "jobs": jobs,
        "wall_seconds": round(earlier.get("wall_seconds", 0.0) + seconds, 3),
        "peak_memory_mib": round(max(earlier.get("peak_memory_mib", 0.0), peak_memory), 1),
    }
    write_json_atomic(folder / TIMING_NAME, {**timings, "workers": stages})
