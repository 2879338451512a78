"""What a training run keeps to go on from, and whether what it finds is its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bcd_bench.errors import UsageError
from bcd_bench.identity import sha256_file
from bcd_bench_bcd.configs import ModelConfig, Preset
from bcd_bench_bcd.model import BCD, load_model

__all__ = ["CHECKPOINT", "LOG", "WEIGHTS", "read_checkpoint", "start_from"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"
LOG = "log.jsonl"
NEW_BLOCKS = "decoder.temporal."
"""Parameters that a later stage may have and its start may lack: such blocks begin as the identity."""


def read_checkpoint(path: Path, device: torch.device, description: dict[str, Any]) -> dict[str, Any]:
    """The state in `path`, if it is of the run that `description` (preset, model, precision) tells of.

    Raises `UsageError` for a file that is damaged, of another stage, or made with other settings.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        found = state["description"]
        # Through the classes, so that settings which are newer than the checkpoint get their defaults.
        preset = Preset.model_validate(found["preset"])
        model = ModelConfig.model_validate(found["model"])
    except Exception as error:  # noqa: BLE001 (torch raises many kinds for a damaged file)
        raise UsageError(
            f"{path}: cannot be read ({str(error).splitlines()[0]})", hint="train again with another --out"
        ) from None
    wanted = json.loads(json.dumps(description))
    stage = wanted["preset"]["train"].get("stage", "")
    if preset.train.stage != stage:
        raise UsageError(
            f"{path}: is a checkpoint of stage {preset.train.stage or 'none'!r}, not of {stage or 'none'!r}",
            hint="resume with the --out it was started with; the stages follow each other by themselves",
        )
    old = {"preset": preset.model_dump(mode="json"), "model": model.model_dump(mode="json")}
    old["precision"] = found["precision"]
    for part in (old, wanted):
        part["preset"]["train"].pop("init")  # where it lies may change
    for part, value in old.items():
        if value != wanted[part]:
            raise UsageError(
                f"{path}: was made with another {part}: {first_difference(value, wanted[part])}",
                hint="resume with the settings it was started with (see config.json beside it)",
            )
    return state


def start_from(path: Path, model: BCD, device: torch.device) -> dict[str, Any]:
    """Give `model` the weights of an earlier stage in `path`; returns their card with their hash.

    Temporal blocks that the earlier stage lacked stay as they are made: the identity. Raises `UsageError` for weights
    that differ in anything else.
    """
    earlier, card = load_model(path, str(device))
    old, new = (architecture(m.config) for m in (earlier, model))
    if set(old["decoder"]["temporal_blocks"]) <= set(new["decoder"]["temporal_blocks"]):
        old["decoder"]["temporal_blocks"] = new["decoder"]["temporal_blocks"]
    if old != new:
        raise UsageError(f"{path}: weights of another architecture: {first_difference(old, new)}")
    missing, _ = model.load_state_dict(earlier.state_dict(), strict=False)
    assert all(name.startswith(NEW_BLOCKS) for name in missing)
    return {"sha256": sha256_file(path), **card}


def architecture(config: ModelConfig) -> dict[str, Any]:
    """The configuration without what only training looks at: noise levels, loss weight, Gumbel temperature."""
    only_training = {
        "diffusion": {"p_mean", "p_std", "weight_max"},
        "quantizer": {"tau_start", "tau_end", "tau_decay", "straight_through"},
    }
    return config.model_dump(mode="json", exclude=only_training)


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """`train.lr was 0.1, is 0.2`: the first thing in which two trees of settings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    return f"{where} was {old!r}, is {new!r}" if where else f"{old!r} is not {new!r}"
