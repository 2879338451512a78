"""Translation of codes read from landmarks into the motion that the transformer was trained with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.util.progress import open_progress
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.landmarks import NoFaceError
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.landmarks.config import LandmarkTrainConfig

__all__ = ["translate"]

LR = 1e-3
HELD_OUT = 0.1
"""Last fraction of the clips, on which the error is measured."""


def translate(bcd: BCD, model: ExtendedBCD, clips: TrainingClips, config: LandmarkTrainConfig) -> float:
    """Train `model.landmarks.translation` on rendered clips: from the codes of `model` to the quantised motion of
    `bcd`.

    Returns the share of the variance of the latter that is left on held-out clips.
    """
    given, wanted = examples(bcd, model, clips, config.translation_clips)
    count = max(1, int(len(given) * HELD_OUT))
    assert model.landmarks is not None
    return fit(model.landmarks.translation, given[:-count], wanted[:-count], given[-count:], wanted[-count:], config)


@torch.inference_mode()
def examples(bcd: BCD, model: ExtendedBCD, clips: TrainingClips, count: int) -> tuple[Tensor, Tensor]:
    """Motion of `model` [N, C] and of `bcd` [N, C'] in the frames of the first `count` clips; clips without a face are
    left out."""
    assert model.landmarks is not None
    standardized = model.landmarks.standardized
    pipeline = Pipeline(model, bcd.description.inference.window)
    given, wanted = [], []
    with open_progress().task("translate codes", total=count, unit="clips") as task:
        for number in range(count):
            values = bcd.codec.values(torch.from_numpy(np.asarray(clips.clips([number]))))
            try:
                motion = pipeline.encode_motion(values).motion
            except NoFaceError:
                motion = None
            if motion is not None:
                given.append(standardized(motion[0].float()))
                wanted.append(bcd.pipeline.encode_motion(values).motion[0].float().cpu())
            task.advance()
    return torch.cat(given), torch.cat(wanted)


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
