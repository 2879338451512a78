"""The metrics `target-psnr` and `target-ssim`: an output against the ground-truth target, if the suite has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.pixels import PSNR_CAP, SSIM_WINDOW, psnr, ssim

__all__ = ["TargetPSNR", "TargetSSIM"]


class _AgainstTarget(PairMetric):
    """One number per output from its frames and those of its target."""

    columns: Sequence[Column]

    def load(self, device: str) -> None:
        """Do nothing: pixels are compared on the CPU."""

    def _compare(self, item: Scored, measure: Callable[[Clip, Clip], float | Failed]) -> Mapping[str, Any] | Failed:
        if item.pair.target is None:
            return Failed("the suite has no target for this pair")
        target = item.pair.target.load()
        if item.output.frames.shape != target.frames.shape:
            output_shape, target_shape = list(item.output.frames.shape), list(target.frames.shape)
            return Failed(f"the output has shape {output_shape}, its target {target_shape}")
        value = measure(item.output, target)
        return value if isinstance(value, Failed) else {self.columns[0].name: value}


class TargetPSNR(_AgainstTarget):
    """Peak signal-to-noise ratio against the target."""

    columns: Sequence[Column] = (
        Column(
            "target-psnr",
            "dB",
            True,
            "10 log10(255^2 / MSE) against the target, the MSE over all pixels, channels and frames of the clip, at "
            f"most {PSNR_CAP:g} dB.",
        ),
    )

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` if it has no target or its shape differs from that of its target."""
        return [self._compare(item, lambda output, target: psnr(output.frames, target.frames)) for item in items]


class TargetSSIM(_AgainstTarget):
    """Structural similarity to the target."""

    columns: Sequence[Column] = (
        Column(
            "target-ssim",
            "",
            True,
            "Structural similarity to the target (Wang et al. 2004: Gaussian window of 11 x 11 pixels, sigma 1.5, "
            "windows within the picture), averaged over colour channels and frames.",
            decimals=4,
        ),
    )

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` as for `target-psnr`, and for frames smaller than the window."""
        return [self._compare(item, _ssim) for item in items]


def _ssim(output: Clip, target: Clip) -> float | Failed:
    height, width = output.frames.shape[1:3]
    if min(height, width) < SSIM_WINDOW:
        return Failed(f"frames of {height} x {width} are smaller than the window of {SSIM_WINDOW} x {SSIM_WINDOW}")
    return ssim(output.frames, target.frames)
