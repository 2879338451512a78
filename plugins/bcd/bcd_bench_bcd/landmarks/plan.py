"""What `train bcd-landmarks --dry-run` prints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bcd_bench.training import seconds_per_step
from bcd_bench_bcd.landmarks.config import LandmarkPreset

__all__ = ["plan", "shortened"]


def shortened(preset: LandmarkPreset) -> LandmarkPreset:
    """The preset for two batches of people: enough to measure a step."""
    train = preset.train
    return preset.model_copy(
        update={"train": train.model_copy(update={"people": 2 * train.batch, "held_out": train.batch})}
    )


def plan(preset: LandmarkPreset, train_step: Callable[[int], Any], parameters: int, device: str) -> str:
    """Parameters, people and an estimate of the time from real steps on this device; writes nothing."""
    train, code = preset.train, preset.landmarks
    seconds = seconds_per_step(train_step)
    bits = code.groups * math.log2(code.entries)
    return "\n".join(
        [
            f"suite: {train.suite} ({train.people} people, {train.held_out} of them held out)",
            f"parameters: {parameters / 1e6:.2f} M",
            f"code: {code.groups} groups of {code.entries} entries, at most {bits:.0f} bits per frame",
            f"work: {train.steps} steps of {train.batch} people in {train.frames} frames each, "
            f"{train.free_steps} of them without quantiser",
            f"speed here ({device}): {seconds:.2f} s per step, {seconds * train.steps / 3600:.2f} h in total",
        ]
    )
