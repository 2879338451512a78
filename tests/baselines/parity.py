"""Reference outputs of the original code, where they are at hand: beside the folder of `BCD_BENCH_ASSETS`."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

__all__ = ["Reference", "close", "reference"]


@dataclass(frozen=True)
class Reference:
    """Of one model: the table of its published files, recorded arrays, and seeded checkpoints in the same layout."""

    folder: Path
    seeding: Any

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return _arrays(self.folder)

    @property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = self.seeding.load_manifest(self.folder / "manifest.json")
        return manifest

    def checkpoint(self, name: str, *, with_prefix: bool = True) -> dict[str, Any]:
        """What the published file `name` would hold, with the weights that made the arrays."""
        seed = int(self.arrays["seed"])
        made: dict[str, Any] = self.seeding.build_file(self.manifest, name, seed, with_prefix=with_prefix)
        return made


def reference(model: str) -> Reference:
    """The reference of `model`; skips the test where it is not on this machine."""
    places = [
        Path(place).parent / "parity" for place in os.environ.get("BCD_BENCH_ASSETS", "").split(os.pathsep) if place
    ]
    for place in places:
        if (place / model / "golden.npz").is_file():
            return Reference(place / model, _module(place / "seeded_state.py"))
    pytest.skip(f"no parity/{model} beside the folder of BCD_BENCH_ASSETS")


def close(found: Any, wanted: npt.NDArray[Any], *, most: float, mean: float) -> None:
    """Assert that the largest and the mean absolute difference are within limits."""
    values = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    assert values.shape == wanted.shape
    difference = np.abs(values.astype(np.float64) - wanted)
    assert difference.max() <= most, f"largest difference {difference.max():.3g}, allowed {most:g}"
    assert difference.mean() <= mean, f"mean difference {difference.mean():.3g}, allowed {mean:g}"


@lru_cache(maxsize=1)
def _arrays(folder: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(folder / "golden.npz") as stored:
        return dict(stored)


@lru_cache(maxsize=1)
def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("parity_seeded_state", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
