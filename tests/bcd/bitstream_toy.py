"""Tiny BCD weights on disk, and a toy motion model, for the tests of bitstreams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.weights import save_model
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.presets.base import InferenceConfig
from tests.bcd.conftest import BlockClips, description_of, tiny_model


def tiny_method(folder: Path, *, grid: bool = True, window: int | None = None, **settings: Any) -> BCDMethod:
    """A method with tiny weights, whose content is rounded to a grid or not."""
    path = folder / f"tiny-{grid}-{window}.safetensors"
    if not path.exists():
        model = tiny_model(**({} if grid else {"extensions.content_bottleneck": None, "extensions.swap_cycle": None}))
        if model.bottleneck is not None:
            model.calibrate(model.encode(model.values(torch.from_numpy(BlockClips().clips(range(16)))))[0])
        description = description_of(
            model,
            sampler=SamplerConfig(name="euler", steps=2, guidance=1.0),
            inference=InferenceConfig(window=window),
        )
        save_model(path, model, description, {})
    method = BCDMethod(settings)
    method.load(path, "cpu")
    return method


def driving(length: int) -> np.ndarray:
    """A clip uint8 [length, 32, 32, 3] of a square that walks back and forth."""
    walk = BlockClips().clips([20])[0]
    return np.concatenate([walk, walk[::-1]] * (length // 16 + 1))[:length]


class ToyMotionModel:
    """Predicts that a code repeats, with a strength that depends on the content; its logits can be disturbed."""

    sha256 = "ab" * 32

    def __init__(self, method: BCDMethod, disturbance: float = 0.0) -> None:
        self.bcd_sha256 = method.loaded.sha256
        quantizer = method.description.model.quantizer
        self.counts = torch.arange(quantizer.groups * quantizer.entries).view(quantizer.groups, quantizer.entries)
        self.disturbance = disturbance

    def coder(self, content: torch.Tensor) -> ToyCoder:
        return ToyCoder(self, 2 + float(content.double().mean().tanh()))


class ToyCoder:
    def __init__(self, model: ToyMotionModel, strength: float) -> None:
        self.model, self.strength = model, strength
        self.codes: torch.Tensor | None = None

    def logits(self) -> torch.Tensor:
        logits = torch.zeros(self.model.counts.shape, dtype=torch.float64)
        if self.codes is not None:
            logits[torch.arange(len(logits)), self.codes] = self.strength * 0.7718281828
        return logits + self.model.disturbance

    def push(self, codes: torch.Tensor) -> None:
        self.codes = codes
