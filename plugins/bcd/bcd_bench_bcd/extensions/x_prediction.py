"""x-prediction: the network outputs the clean frames, not EDM's mixture of clean frames and noise.

With 192 values per patch and a width of 192, the small network is better at predicting frames than noise (cf. Li and He
2025, "Back to basics: let denoising generative models denoise").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension
from bcd_bench_bcd.paper.config import EDMConfig

__all__ = ["XPrediction", "precondition_x"]


class XPrediction(Extension):
    name: ClassVar[str] = "x_prediction"
    summary: ClassVar[str] = "the network predicts the clean frames"
    changes_model: ClassVar[bool] = True


def precondition_x(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, config: EDMConfig) -> Tensor:
    """D(x; sigma) = sigma_data F(c_in x; c_noise) for `network` F."""
    s, d = sigma.view(-1, *[1] * (x.ndim - 1)), config.sigma_data
    c_in = 1 / (s**2 + d**2).sqrt()
    return d * network(c_in * x, sigma.log() / 4).float()
