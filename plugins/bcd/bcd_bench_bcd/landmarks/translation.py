"""Translation of codes read from landmarks into the motion that the transformer was trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.landmarks import NoFaceError
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.landmarks.config import LandmarkTrainConfig
from bcd_bench_bcd.landmarks.prepared import prepared

__all__ = ["FILE", "Examples", "compute_examples", "fit", "prepare_examples", "translate"]

FILE = "translation.safetensors"
FORMAT = "bcd-translation-1"
LR = 1e-3
HELD_OUT = 0.1
"""Last fraction of the clips, on which the error is measured."""


@dataclass
class Examples:
    """Frames of N rendered clips of T frames, in both forms that a translation needs."""

    landmarks: Tensor
    """float32 [N, T, landmarks, 2], x and y in -1..1."""
    motion: Tensor
    """Their motion as the transformer was trained with, float32 [N, T, C]."""


def translate(model: ExtendedBCD, examples: Examples, config: LandmarkTrainConfig) -> float:
    """Train `model.landmarks.translation`, from the codes of `model` to the motion that its transformer was trained
    with.

    Returns the share of the variance of the latter that is left on held-out clips.
    """
    assert model.landmarks is not None
    with torch.no_grad():
        given = model.landmarks.standardized(model.quantizer(model.landmarks.encode(examples.landmarks)[0]).motion)
    count = max(1, int(len(given) * HELD_OUT))
    parts = given[:-count], examples.motion[:-count], given[-count:], examples.motion[-count:]
    first, wanted, test, truth = (part.flatten(0, 1) for part in parts)
    return fit(model.landmarks.translation, first, wanted, test, truth, config)


def prepare_examples(
    bcd: BCD, model: ExtendedBCD, clips: TrainingClips, config: LandmarkTrainConfig, folder: Path,
    others: Sequence[Path] = (),
) -> Examples:  # fmt: skip
    """Compute examples from the first clips, or read those of an earlier call from `folder`, or of a training in one of
    `others`. Clips without a face are left out.

    Raises `UsageError` for a file of other settings, and if no clip shows a face.
    """
    assert model.landmarks is not None
    about = {
        "suite": config.suite, "clips": config.translation_clips, "bcd": bcd.loaded.sha256,
        "landmarks": model.landmarks.settings.network,
    }  # fmt: skip
    header = {"format": FORMAT, "data": json.dumps(about)}

    def compute() -> dict[str, Tensor]:
        examples = compute_examples(bcd, model, clips, config.translation_clips)
        return {"landmarks": examples.landmarks, "motion": examples.motion}

    return Examples(**prepared(folder / FILE, header, "examples of the translation", compute, others))


@torch.inference_mode()
def compute_examples(bcd: BCD, model: ExtendedBCD, clips: TrainingClips, count: int) -> Examples:
    """Landmarks that are detected in the first `count` clips, and the quantised motion of `bcd`."""
    pipeline = Pipeline(model, bcd.description.inference.window)
    landmarks, motion = [], []
    with open_progress().task("translate codes", total=count, unit="clips") as task:
        for number in range(count):
            values = bcd.codec.values(torch.from_numpy(np.asarray(clips.clips([number]))))
            try:
                found = pipeline.landmarks(values)
            except NoFaceError:
                found = None
            if found is not None:
                landmarks.append(found[0].float().cpu())
                motion.append(bcd.pipeline.encode_motion(values).motion[0].float().cpu())
            task.advance()
    if len(landmarks) < 2:
        raise UsageError(f"{len(landmarks)} of {count} training clips show a face, two are needed")
    return Examples(torch.stack(landmarks), torch.stack(motion))


def fit(
    network: nn.Module, given: Tensor, wanted: Tensor, test: Tensor, truth: Tensor, config: LandmarkTrainConfig
) -> float:
    """Least squares; returns the share of the variance that is left for `test`."""
    given, wanted, test, truth = (part.clone() for part in (given, wanted, test, truth))
    network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.translation_steps, LR / 50)
    for _ in range(config.translation_steps):
        loss = (network(given) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        left = (network(test) - truth).square().mean() / (truth - wanted.mean(0)).square().mean()
    return float(left)
