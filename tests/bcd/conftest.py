"""A tiny BCD and tiny clips, so that every test of the plugin takes seconds on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench.specs import TrainRequest

TINY: dict[str, Any] = {
    "train.batch": 4,
    "train.steps": 8,
    "train.log_every": 3,
    "train.checkpoint_every": 3,
    "train.grid_every": 8,
    "train.warmup": 2,
    "model.frame_size": [32, 32],
    "model.encoder.width": 32,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "model.encoder.feed_forward": 64,
    "model.decoder.width": 32,
    "model.decoder.heads": 2,
    "model.decoder.depth": 2,
    "model.decoder.temporal_blocks": [1],
    "model.quantizer.dim": 32,
    "model.quantizer.entries": 8,
    "objective.target_bits": 3,
}


class BlockClips:
    """48 clips of a coloured square (content) that walks along a row (motion); black elsewhere."""

    fps = 8.0

    def __len__(self) -> int:
        return 48

    def clips(self, indices: Any) -> np.ndarray:
        frames = np.zeros((len(indices), 8, 32, 32, 3), np.uint8)
        for row, index in enumerate(indices):
            colour = np.array([(index % 4) * 60 + 60, (index // 4 % 4) * 60 + 60, 90])
            for t in range(8):
                x = (t * (1 + index // 16)) % 3 * 8
                frames[row, t, 8:16, x : x + 8] = colour
        return frames


class TwoTakes(BlockClips):
    """Block clips with takes: the same colour at another pace."""

    def takes(self, indices: Any, frames: int, stride: int) -> np.ndarray:
        whole = self.clips([(index + shift) % 48 for index in indices for shift in (0, 16)])
        return whole[:, ::stride][:, :frames].reshape(len(indices), 2 * frames, 32, 32, 3)


def take_step(trainer: Any) -> dict[str, float]:
    """The next step of a trainer, without its loop; the losses by name."""
    values: dict[str, float] = trainer.train_step(trainer.loop.step)
    trainer.loop.step += 1
    return values


@pytest.fixture
def clips() -> BlockClips:
    return BlockClips()


@pytest.fixture
def request_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `TrainRequest`s of the tiny model on block clips, into folders of the test."""
    import bcd_bench_bcd.training.trainer

    monkeypatch.setattr(bcd_bench_bcd.training.trainer, "open_training_clips", lambda suite, request: BlockClips())

    def make(name: str = "run", **changes: Any) -> TrainRequest:
        overrides = {**TINY, **changes.pop("overrides", {})}
        fields: dict[str, Any] = {
            "preset": "sprites-small",
            "overrides": overrides,
            "out": tmp_path / name,
            "resume": False,
            "max_steps": None,
            "max_minutes": None,
            "device": "cpu",
            "data": {},
            "plan_only": False,
        }
        return TrainRequest(**{**fields, **changes})

    return make
