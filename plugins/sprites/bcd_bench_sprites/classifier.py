"""The classifier: a small network that predicts the motion and the four attributes of a Sprites clip."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from bcd_bench.types.errors import UsageError
from bcd_bench_sprites.factors import ATTRIBUTES, MOTIONS, VALUES
from bcd_bench_sprites.pretrained import SHIPPED, shipped_weights

__all__ = [
    "HEADS",
    "Judge",
    "JudgeConfig",
    "Judgement",
    "judge_clips",
    "load_judge",
    "shipped_judge",
    "to_input",
]

HEADS: Mapping[str, int] = {"motion": MOTIONS, **dict.fromkeys(ATTRIBUTES, VALUES)}
"""Head -> number of classes; the motion head has the literature's nine classes (3 actions x 3 directions)."""


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of the network."""

    channels: tuple[int, int, int, int] = (24, 48, 64, 64)
    features: int = 96
    groups: int = 8


class Judge(nn.Module):
    """Per-frame CNN (64 -> 16 -> 8 -> 4 -> 2), a GRU over the frames, and five linear heads.

    Colours are visible in every frame, motion only between frames: the heads use the mean frame feature and the GRU's
    last output.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or JudgeConfig()
        layers: list[nn.Module] = []
        before = 3
        for number, channels in enumerate(config.channels):
            kernel, stride, padding = (4, 4, 0) if number == 0 else (3, 2, 1)
            layers += [
                nn.Conv2d(before, channels, kernel, stride, padding),
                nn.ReLU(),
                nn.GroupNorm(config.groups, channels),
            ]
            before = channels
        self.frame = nn.Sequential(*layers)
        self.project = nn.Linear(4 * before, config.features)
        self.time = nn.GRU(config.features, config.features, batch_first=True)
        self.heads = nn.ModuleDict({name: nn.Linear(2 * config.features, classes) for name, classes in HEADS.items()})

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Logits [B, classes] of every head for clips [B, T, 3, 64, 64] in [-1, 1]."""
        frames = self.frame(clips.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        features = functional.relu(self.project(frames.flatten(1))).view(*clips.shape[:2], -1)
        over_time, _ = self.time(features)
        summary = torch.cat([features.mean(1), over_time[:, -1]], dim=-1)
        return {name: head(summary) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Judgement:
    """Predictions of a classifier for B clips: class per head, and the probabilities of the motion head."""

    classes: Mapping[str, npt.NDArray[np.int64]]
    """Head -> int64[B]."""
    motion_probabilities: npt.NDArray[np.float64]
    """float64[B, 9], rows sum to 1."""


def to_input(frames: npt.NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """uint8[B, T, 64, 64, 3] as the network's input [B, T, 3, 64, 64] in [-1, 1]."""
    return torch.tensor(frames).to(device).permute(0, 1, 4, 2, 3).float() / 127.5 - 1


@torch.inference_mode()
def judge_clips(judge: Judge, frames: npt.NDArray[np.uint8], *, batch: int = 16) -> Judgement:
    """Classify clips uint8[B, T, 64, 64, 3], `batch` at a time."""
    device = str(next(judge.parameters()).device)
    predictions: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in HEADS}
    probabilities = []
    for start in range(0, len(frames), batch):
        logits = judge(to_input(frames[start : start + batch], device))
        for name, values in logits.items():
            predictions[name].append(values.argmax(-1).cpu().numpy())
        probabilities.append(logits["motion"].double().softmax(-1).cpu().numpy())
    return Judgement(
        {name: np.concatenate(parts) if parts else np.empty(0, np.int64) for name, parts in predictions.items()},
        np.concatenate(probabilities) if probabilities else np.empty((0, MOTIONS)),
    )


def load_judge(weights: Path, *, expected: str | None = None, device: str = "cpu") -> Judge:
    """Load a trained classifier from `weights` (safetensors) and the JSON config next to it, ready for inference.

    Raises `UsageError` if a file is missing, its sha256 is not `expected`, or it holds a different network.
    """
    import safetensors.torch

    config_path = weights.with_suffix(".json")
    try:
        data, config = weights.read_bytes(), json.loads(config_path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"classifier weights {weights.name}: {error}") from error
    actual = sha256(data).hexdigest()
    for promised in (expected, config.get("sha256")):
        if promised is not None and promised != actual:
            raise UsageError(
                f"classifier weights {weights.name} were modified (sha256 {actual[:12]}, expected {promised[:12]})"
            )
    try:
        shape: dict[str, Any] = dict(config["network"])
        judge = Judge(JudgeConfig(**{**shape, "channels": tuple(shape["channels"])}))
        judge.load_state_dict({name: value.float() for name, value in safetensors.torch.load(data).items()})
    except (KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"classifier weights {weights.name} do not fit this network: {reason}") from error
    judge.to(device).eval()
    return judge


def shipped_judge(suite: str, device: str = "cpu") -> Judge:
    """The classifier of a suite shipped with this package, verified against `SHIPPED`."""
    return load_judge(shipped_weights(suite), expected=SHIPPED[suite], device=device)


def network_json(judge: Judge) -> dict[str, Any]:
    """The network's sizes as plain JSON, as read by `load_judge`."""
    return json.loads(json.dumps(asdict(judge.config)))  # type: ignore[no-any-return]
