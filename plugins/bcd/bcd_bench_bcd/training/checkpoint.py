"""Which checkpoint a run continues from, and which weights it may start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.training import check_settings, first_difference, read_checkpoint
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.inference.weights import Description, LoadedModel, load_model
from bcd_bench_bcd.paper.model import BCD

__all__ = ["WHAT", "matching_checkpoint", "start_from"]

WHAT = "BCD training run"
NEW_BLOCKS = "decoder.temporal."
"""Parameters that a later stage may have and its start may lack: such blocks begin as the identity."""


def matching_checkpoint(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The state in `path`, if it is of the run that `run` (recipe, preset, model, stage, precision) describes.

    Raises `UsageError` for a file that is damaged, of another stage or recipe, or made with other settings.
    """
    state = read_checkpoint(path, what=WHAT)
    saved: dict[str, Any] = state["description"]
    if saved.get("stage") != run["stage"]:
        raise UsageError(
            f"{path}: is a checkpoint of stage {saved.get('stage') or 'none'!r}, not of {run['stage'] or 'none'!r}",
            hint="resume with the --out it was started with; the stages follow each other by themselves",
        )
    old, new = (list(tree.get("recipe", ())) for tree in (saved, run))
    if old != new:
        missing = [name for name in old if name not in new]
        more = [name for name in new if name not in old]
        differences = [
            f"{what} {', '.join(names)}" for what, names in (("it has", missing), ("this command has", more)) if names
        ]
        raise UsageError(
            f"{path}: is a checkpoint of another recipe: {'; '.join(differences)}",
            hint="resume with the settings it was started with (see config.json beside it)",
        )
    check_settings(path, saved, run, ("preset", "model", "latents", "precision"))
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


def architecture(description: Description) -> dict[str, Any]:
    """A description without what only training looks at: noise levels, Gumbel temperature, weights of losses."""
    tree = description.model_dump(
        mode="json",
        include={"model", "active_patches", "autoencoder_sha256"},
        exclude={"model": {"edm": {"p_mean", "p_std"}, "quantizer": {"tau_start", "tau_end", "tau_decay"}}},
    )
    shaping = (extension for extension in description.extensions if extension.changes_model)
    tree["extensions"] = {one.name: one.model_dump(mode="json", exclude=set(one.training_only)) for one in shaping}
    return tree
