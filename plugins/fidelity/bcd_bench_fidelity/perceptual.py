"""The metrics `lpips` and `st-lpips`: perceptual distance of an output from the ground-truth target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.perceptual_weights import (
    ALEXNET_WEIGHTS,
    LPIPS_HEADS_SHA256,
    ST_LPIPS_WEIGHTS,
    lpips_heads,
)
from bcd_bench_fidelity.weight_files import asset_file

if TYPE_CHECKING:
    import torch

    from bcd_bench_fidelity.perceptual_network import PerceptualDistance

__all__ = ["LPIPS", "SMALLEST", "STLPIPS"]

SMALLEST = 32
"""Minimum height and width of frames: of smaller ones AlexNet's last layers have nothing left."""


class _Perceptual(PairMetric):
    """The mean distance over frames, one frame at a time, so that it does not depend on the batch."""

    columns: Sequence[Column]

    def __init__(self) -> None:
        self._network: PerceptualDistance | None = None
        self._device: torch.device | None = None

    def load(self, device: str) -> None:
        """Read the weights. Raises `MissingAssetError`, `MissingDependencyError` or `UsageError`."""
        from bcd_bench.util.devices import resolve_device

        self._device = resolve_device(device)
        self._network = self._build().to(self._device)

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` if it has no target, another shape, or frames below 32 x 32 pixels."""
        return [self._row(item) for item in items]

    @abstractmethod
    def _build(self) -> PerceptualDistance: ...

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        if item.pair.target is None:
            return Failed("the suite has no target for this pair")
        output, target = item.output.frames, item.pair.target.load().frames
        if output.shape != target.shape:
            return Failed(f"the output has shape {list(output.shape)}, its target {list(target.shape)}")
        if min(output.shape[1:3]) < SMALLEST:
            return Failed(f"frames of {output.shape[1]} x {output.shape[2]} are smaller than {SMALLEST} x {SMALLEST}")
        return {self.columns[0].name: float(np.mean(self.distances(output, target)))}

    def distances(self, output: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """The distance float64[T] of every frame of two uint8[T, H, W, 3]."""
        import torch

        network, device = self._network, self._device
        assert network is not None, "load comes before score"
        assert device is not None, "load comes before score"

        def picture(frame: npt.NDArray[np.uint8]) -> torch.Tensor:
            return torch.tensor(frame).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1

        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            found = [network(picture(a), picture(b)).item() for a, b in zip(output, target, strict=True)]
        return np.array(found, np.float64)


def _column(name: str, network: str) -> Column:
    return Column(
        name,
        "",
        False,
        f"{network}, between each frame and that of the target, at the size of the frames and with pixels in -1..1, "
        "averaged over frames.",
        decimals=4,
    )


class LPIPS(_Perceptual):
    """Learned perceptual image patch similarity."""

    columns = (
        _column(
            "lpips",
            f"LPIPS v0.1 on AlexNet (Zhang et al. 2018; backbone sha256 {ALEXNET_WEIGHTS.sha256[:8]}, "
            f"heads {LPIPS_HEADS_SHA256[:8]})",
        ),
    )

    def _build(self) -> PerceptualDistance:
        from bcd_bench_fidelity.fuse_batchnorm import read_weights
        from bcd_bench_fidelity.perceptual_network import lpips_network

        backbone = asset_file(ALEXNET_WEIGHTS)
        return lpips_network(read_weights(backbone), read_weights(lpips_heads()))


class STLPIPS(_Perceptual):
    """The shift-tolerant variant. Its scale differs from that of LPIPS, and it is never reported as LPIPS."""

    columns = (
        _column(
            "st-lpips",
            "Shift-tolerant LPIPS on an AlexNet with blurred strides (Ghildyal and Liu 2022; "
            f"sha256 {ST_LPIPS_WEIGHTS.sha256[:8]}; not LPIPS)",
        ),
    )

    def _build(self) -> PerceptualDistance:
        from bcd_bench_fidelity.fuse_batchnorm import read_weights
        from bcd_bench_fidelity.perceptual_network import st_lpips_network

        return st_lpips_network(read_weights(asset_file(ST_LPIPS_WEIGHTS)))
