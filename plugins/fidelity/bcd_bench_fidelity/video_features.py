"""The extractor `i3d-kinetics400`: windows of clips through I3D, for the metric `fvd`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench.util.devices import resolve_device
from bcd_bench_fidelity.backbones import I3D_KINETICS, WINDOW
from bcd_bench_fidelity.fuse_batchnorm import read_weights
from bcd_bench_fidelity.i3d import LEAST_FRAMES, i3d_network

__all__ = ["I3DFeatures", "windows"]

SIDE: Final = 224


def windows(frames: int) -> list[tuple[int, int]]:
    """First frame, and the frame after the last, of every window of a clip: 16 frames each, without overlap; a
    remainder is left out. A clip of 9 to 15 frames is one window. Shorter clips have none."""
    if LEAST_FRAMES <= frames < WINDOW:
        return [(0, frames)]
    return [(start, start + WINDOW) for start in range(0, frames - WINDOW + 1, WINDOW)]


class I3DFeatures:
    """Clip -> `features` float32[W, 400]: the logits of every window; `Failed` for clips of fewer than 9 frames."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._network: nn.Module | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Cache key: the weights and the preprocessing; the version of the extractor is in its spec."""
        return {"weights": I3D_KINETICS.sha256, "preprocessing": I3D_KINETICS.preprocessing}

    def load(self, device: str) -> None:
        """Read the weights. Raises `MissingAssetError` or `UsageError`."""
        self.load_from(I3D_KINETICS.weights(), device)

    def load_from(self, path: Path, device: str = "cpu") -> None:
        """Read the weights from a given file, such as one for a test."""
        self._device = resolve_device(device)
        self._network = i3d_network(read_weights(path)).to(self._device)

    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any] | Failed]:
        """`features` of every clip, in order; one window per pass, so that they do not depend on other clips."""
        return [self._clip(clip) for clip in clips]

    def _clip(self, clip: Clip) -> Mapping[str, Any] | Failed:
        spans = windows(len(clip))
        if not spans:
            return Failed(f"the clip has {len(clip)} frames; I3D needs at least {LEAST_FRAMES}")
        return {"features": np.concatenate([self._infer(clip.frames[start:stop]) for start, stop in spans])}

    def _infer(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits float32[1, 400] of frames uint8[T, H, W, 3]."""
        assert self._network is not None, "load comes before extract"
        # TF32 would change distances by more than the guaranteed parity.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            pixels = torch.tensor(frames).to(self._device).permute(0, 3, 1, 2).float()
            resized = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False)
            batch = (2 * resized / 255 - 1).permute(1, 0, 2, 3)[None]
            logits: npt.NDArray[np.float32] = self._network(batch).float().cpu().numpy()
        return logits
