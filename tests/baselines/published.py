"""Seeded checkpoints as files, and features as the reference outputs sum them up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.baselines.parity import Reference

__all__ = ["statistics", "write_published"]


def write_published(parity: Reference, name: str, path: Path) -> Path:
    """The file `name` as published, at `path`; its weights have the recorded checksums."""
    content = parity.checkpoint(name)
    entry = parity.manifest["files"][name]
    sections = content if entry["layout"] == "sections" else {next(iter(entry["sections"])): content}
    for section, state in sections.items():
        np.testing.assert_allclose(parity.seeding.checksum(state), parity.arrays[f"check_{section}"], rtol=1e-9)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def statistics(features: Tensor) -> Tensor:
    """Mean and deviation of each channel of [1, C, ...]: [2, C]."""
    flat = features[0].flatten(1)
    return torch.stack([flat.mean(1), flat.std(1, unbiased=False)])
