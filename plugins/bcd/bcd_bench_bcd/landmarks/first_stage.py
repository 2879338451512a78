"""The stage without quantiser: trainings that differ only in the code share it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.training import LOG, TrainingLoop, save_tensors
from bcd_bench_bcd.extensions.landmark_motion import LandmarkNetwork
from bcd_bench_bcd.landmarks.config import LandmarkPreset
from bcd_bench_bcd.landmarks.prepared import MAKER, found

__all__ = ["FILE", "FirstStage"]

FILE = "first-stage.safetensors"
FORMAT = "bcd-landmarks-first-stage-1"
WHAT = "the stage without quantiser"
CODE: dict[str, Any] = {
    "summary": True,
    "bcd": True,
    "pixel_path": True,
    "landmarks": {"groups", "entries", "dim"},
    "train": {
        "steps", "commitment", "code_memory", "translation_clips", "translation_steps", "tracker", "checkpoint_every"
    },
}  # fmt: skip
"""Settings that do not affect the first stage."""


class FirstStage:
    """The file with the network at the end of the stage, in the folder of a training."""

    def __init__(self, preset: LandmarkPreset, landmarks: int, device: torch.device, folder: Path) -> None:
        """`landmarks` are the points that the network reads per frame."""
        settings = {**preset.model_dump(mode="json", exclude=CODE), "points": landmarks, "device": device.type}
        self._header = {"format": FORMAT, "settings": json.dumps(settings, sort_keys=True)}
        self._path = folder / FILE

    def save(self, network: LandmarkNetwork, loop: TrainingLoop) -> None:
        """Write the network and the progress of the loop."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        save_tensors(self._path, tensors, {**self._header, "loop": json.dumps(loop.state_dict())})

    def take_over(self, network: LandmarkNetwork, loop: TrainingLoop, others: Sequence[Path]) -> Path | None:
        """Continue at the end of the same stage of a training in one of the folders `others`, with its log.

        Returns this folder, or None if there is none; then nothing changes.
        """
        other = found(FILE, self._header, WHAT, others)
        if other is None:
            return None
        header, tensors = read_weight_file(other, form=FORMAT, what=WHAT, maker=MAKER)
        network.load_state_dict(tensors)
        shutil.copyfile(other.with_name(LOG), loop.log.path)
        loop.load_state_dict(json.loads(header["loop"]))  # drops the lines of later steps
        return other.parent
