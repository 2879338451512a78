"""The state a training run continues from, and whether a checkpoint belongs to the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bcd_bench.errors import UsageError
from bcd_bench.identity import sha256_file
from bcd_bench_bcd.inference.weights import Description, LoadedModel, load_model
from bcd_bench_bcd.paper.model import BCD

__all__ = ["CHECKPOINT", "LOG", "WEIGHTS", "first_difference", "read_checkpoint", "start_from"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"
LOG = "log.jsonl"
NEW_BLOCKS = "decoder.temporal."
"""Parameters that a later stage may have and its start may lack: such blocks begin as the identity."""


def read_checkpoint(path: Path, device: torch.device, run: dict[str, Any]) -> dict[str, Any]:
    """The state in `path`, if it is of the run that `run` (preset, model, stage, precision) describes.

    Raises `UsageError` for a file that is damaged, of another stage or recipe, or made with other settings.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        old = json.loads(json.dumps(state["run"]))
    except Exception as error:  # noqa: BLE001 (torch raises many kinds for a damaged file)
        raise UsageError(
            f"{path}: cannot be read ({str(error).splitlines()[0]})", hint="train again with another --out"
        ) from None
    new = json.loads(json.dumps(run))
    if old.get("stage") != new["stage"]:
        raise UsageError(
            f"{path}: is a checkpoint of stage {old.get('stage') or 'none'!r}, not of {new['stage'] or 'none'!r}",
            hint="resume with the --out it was started with; the stages follow each other by themselves",
        )
    for tree in (old, new):
        tree["preset"]["train"].pop("init", None)  # where it lies may change
    recipes = [list(tree["preset"]["extensions"]) or ["paper"] for tree in (old, new)]
    if recipes[0] != recipes[1]:
        lacks = [name for name in recipes[0] if name not in recipes[1]]
        more = [name for name in recipes[1] if name not in recipes[0]]
        said = "; ".join(
            f"{what} {', '.join(names)}" for what, names in (("this run lacks", lacks), ("it lacks", more)) if names
        )
        raise UsageError(
            f"{path}: is a checkpoint of another recipe: {said}", hint="resume with the settings it was started with"
        )
    for part in ("preset", "model", "precision"):
        if old.get(part) != new[part]:
            raise UsageError(
                f"{path}: was made with another {part}: {first_difference(old.get(part), new[part])}",
                hint="resume with the settings it was started with (see config.json beside it)",
            )
    return state


def start_from(path: Path, model: BCD, description: Description, device: torch.device) -> dict[str, Any]:
    """Load the weights of an earlier run in `path` into `model`; returns their card with their hash.

    Temporal blocks that the earlier run lacked keep their start, the identity. Raises `UsageError` for weights that
    differ in anything else.
    """
    earlier: LoadedModel = load_model(path, str(device))
    old, new = architecture(earlier.description), architecture(description)
    if set(old["model"]["decoder"]["temporal_blocks"]) <= set(new["model"]["decoder"]["temporal_blocks"]):
        old["model"]["decoder"]["temporal_blocks"] = new["model"]["decoder"]["temporal_blocks"]
    if old != new:
        raise UsageError(f"{path}: weights of another architecture: {first_difference(old, new)}")
    missing, _ = model.load_state_dict(earlier.model.state_dict(), strict=False)
    assert all(name.startswith(NEW_BLOCKS) for name in missing)
    return {"sha256": sha256_file(path), **earlier.card}


ARCHITECTURE = (
    "conv_stem",
    "content_channels",
    "content_bottleneck",
    "standardized_latents",
    "spatial_motion",
    "canonical_features",
    "x_prediction",
)
"""Extensions that change what a model computes at inference."""
TRAINING_ONLY = {"content_bottleneck": {"kl_weight"}, "canonical_features": {"rgb_weight", "warp_start", "denoise_start"}}


def architecture(description: Description) -> dict[str, Any]:
    """A description without what only training looks at: noise levels, Gumbel temperature, weights of losses."""
    tree = description.model_dump(
        mode="json",
        include={"model", "extensions", "active_patches", "autoencoder_sha256"},
        exclude={"model": {"edm": {"p_mean", "p_std"}, "quantizer": {"tau_start", "tau_end", "tau_decay"}}},
    )
    kept = {name: settings for name, settings in tree["extensions"].items() if name in ARCHITECTURE}
    tree["extensions"] = {
        name: {key: value for key, value in settings.items() if key not in TRAINING_ONLY.get(name, ())}
        for name, settings in kept.items()
    }
    return tree


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """`train.lr was 0.1, is 0.2`: the first thing in which two trees of settings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    return f"{where} was {old!r}, is {new!r}" if where else f"{old!r} is not {new!r}"
