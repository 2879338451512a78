"""Checks of the checkpoint that a run resumes from, and of the weights that it is initialised with."""

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
"""Parameters that a later stage may add: such blocks begin as the identity."""


def matching_checkpoint(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The state in `path`, if it belongs to the run described by `run` (recipe, preset, model, stage, precision).

    Raises `UsageError` for a file that is damaged, of another stage or recipe, or written with other settings.
    """
    state = read_checkpoint(path, what=WHAT)
    saved: dict[str, Any] = state["description"]
    if saved.get("stage") != run["stage"]:
        raise UsageError(
            f"{path}: is a checkpoint of stage {saved.get('stage') or 'none'!r}, not of {run['stage'] or 'none'!r}",
            hint="resume with the --out of the original run; stages follow each other automatically",
        )
    old, new = (list(tree.get("recipe", ())) for tree in (saved, run))
    if old != new:
        missing = [name for name in old if name not in new]
        added = [name for name in new if name not in old]
        differences = [
            f"{source} {', '.join(names)}"
            for source, names in (("it has", missing), ("this command has", added))
            if names
        ]
        raise UsageError(
            f"{path}: is a checkpoint of another recipe: {'; '.join(differences)}",
            hint="resume with the settings of the original run (see config.json next to it)",
        )
    check_settings(path, saved, run, ("preset", "model", "latents", "precision"))
    return state


def start_from(path: Path, model: BCD, description: Description, device: torch.device) -> dict[str, Any]:
    """Load the weights of an earlier run in `path` into `model`; returns their card and hash.

    Temporal blocks that the earlier run lacked keep their initialisation, the identity. Raises `UsageError` for any
    other difference in architecture.
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
    """A description without settings that only training uses: noise levels, Gumbel temperature, loss weights."""
    tree = description.model_dump(
        mode="json",
        include={"model", "active_patches", "autoencoder_sha256"},
        exclude={"model": {"edm": {"p_mean", "p_std"}, "quantizer": {"tau_start", "tau_end", "tau_decay"}}},
    )
    shaping = (extension for extension in description.extensions if extension.changes_model)
    tree["extensions"] = {
        extension.name: extension.model_dump(mode="json", exclude=set(extension.training_only)) for extension in shaping
    }
    return tree
