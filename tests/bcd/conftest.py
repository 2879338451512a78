"""A tiny BCD and tiny clips, so that every test of the plugin takes seconds on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench_bcd.extensions.base import Extension, Extensions
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.weights import Description, save_model
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training import trainer
from bcd_bench_bcd.training.data import Fitted, fit_to_data, needs_patch_occupancy, patch_occupancy
from bcd_bench_bcd.training.stages import Stage

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


# ---- tiny models ---------------------------------------------------------------------------------------------------
def tiny_preset(**changes: Any) -> Preset:
    return resolve_preset("sprites-small", {**TINY, **changes})


def tiny_fit(**changes: Any) -> Fitted:
    preset = tiny_preset(**changes)
    return fit_to_data(preset, patch_occupancy(BlockClips(), 8) if needs_patch_occupancy(preset) else None)


def tiny_model(**changes: Any) -> ExtendedBCD:
    torch.manual_seed(7)
    model = tiny_fit(**changes).build().eval()
    assert isinstance(model, ExtendedBCD)
    for parameter in model.decoder.parameters():  # leave the identity that adaLN-Zero starts from
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def description_of(model: ExtendedBCD, **fields: Any) -> Description:
    return Description(model=model.config, extensions=model.extensions, active_patches=model.active_patches, **fields)


def with_only(model: ExtendedBCD, *more: Extension) -> Extensions:
    """The extensions that the model is built of, and `more` in place of all others of its recipe."""
    kept = ("latent_gradient", "loss_weight_clamp")
    shaping = [one for one in model.extensions if one.changes_model or one.name in kept]
    return Extensions([*shaping, *more])


def frames(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(BlockClips().clips(range(count)))


# ---- tiny runs -----------------------------------------------------------------------------------------------------
@pytest.fixture
def clips() -> BlockClips:
    return BlockClips()


@pytest.fixture
def request_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `TrainRequest`s of the tiny model on block clips, into folders of the test."""
    monkeypatch.setattr(trainer, "open_training_clips", lambda preset, request: BlockClips())

    def make(name: str = "run", **changes: Any) -> TrainRequest:
        overrides = {**TINY, **changes.pop("overrides", {})}
        fields = {"preset": "sprites-small", "overrides": overrides, "out": tmp_path / name}
        return train_request(**{**fields, **changes})

    return make


def train_request(preset: str, overrides: dict[str, Any], out: Path, **changes: Any) -> TrainRequest:
    """A request as `bcd-bench train` makes it without options."""
    fields: dict[str, Any] = {
        "preset": preset, "overrides": overrides, "out": out, "resume": False, "max_steps": None, "max_minutes": None,
        "device": "cpu", "data": {}, "plan_only": False,
    }  # fmt: skip
    return TrainRequest(**{**fields, **changes})


def saved_weights(model: Any, folder: Path) -> Path:
    """The file of weights of a model of block clips."""
    path = folder / "bcd.safetensors"
    save_model(path, model, description_of(model), {"suite": "blocks"})
    return path


def trainer_of(request: TrainRequest, clips: Any = None) -> trainer.Trainer:
    """The trainer of the only stage of a request."""
    preset = resolve_preset(request.preset, dict(request.overrides))
    return trainer.Trainer(Stage(preset, request.out), clips or BlockClips(), request.device)


@pytest.fixture
def block_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landmarks of block clips instead of those of faces."""
    from bcd_bench_bcd.inference import landmarks as reading
    from tests.bcd.landmark_toy import BlockLandmarks

    monkeypatch.setattr(reading, "_extractor", BlockLandmarks)
    reading.landmark_reader.cache_clear()
