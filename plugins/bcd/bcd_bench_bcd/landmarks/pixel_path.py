"""The pixel path of other weights, for a motion code that it was not trained with."""

from __future__ import annotations

import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.weights import Description

__all__ = ["linear_map", "source_of_pixel_path", "with_pixel_path"]

CONDITION = "fusion.condition.0"
"""The only layer of the pixel path that reads the motion code."""


def source_of_pixel_path(weights: str, landmarks: int) -> ExtendedBCD:
    """The model of `weights`, whose pixel path can be used with another code of the same `landmarks`.

    Raises `UsageError` for weights without `landmark_motion` and `pixel_path`, or with other landmarks.
    """
    model = BCD.from_pretrained(weights).model
    if not isinstance(model, ExtendedBCD) or model.landmarks is None or model.pixels is None:
        raise UsageError(
            f"--set pixel_path={weights}: the weights lack landmark_motion or pixel_path",
            hint="use --set pixel_path=heads-landmarks",
        )
    found = model.landmarks.settings.landmarks
    if found != landmarks:
        raise UsageError(f"--set pixel_path={weights}: was trained with {found} landmarks, not {landmarks}")
    model.cpu().eval()
    return model


@torch.no_grad()
def with_pixel_path(model: ExtendedBCD, source: ExtendedBCD, points: Tensor) -> tuple[ExtendedBCD, float]:
    """`model` with the pixel path of `source`.

    The layer that reads the code is composed with the linear map that predicts the code of `source` from that of
    `model` best, for the landmarks `points` [N, T, L, 2] of N clips. Nothing is trained. Returns the new model, and the
    share of the variance of the code of `source` that the map leaves.
    """
    assert source.pixels is not None
    weight, bias, left = linear_map(quantized(model, points), quantized(source, points))
    extended = Description(
        model=model.config,
        extensions=Extensions([*model.extensions, source.pixels.settings]),
        active_patches=model.active_patches,
    ).build()
    assert isinstance(extended, ExtendedBCD)
    assert extended.pixels is not None
    extended.load_state_dict(model.state_dict(), strict=False)
    state = source.pixels.state_dict()
    reads = state[f"{CONDITION}.weight"]
    state[f"{CONDITION}.bias"] = state[f"{CONDITION}.bias"] + reads @ bias
    state[f"{CONDITION}.weight"] = reads @ weight
    extended.pixels.load_state_dict(state)
    extended.eval()
    return extended, left


def quantized(model: ExtendedBCD, points: Tensor) -> Tensor:
    """The quantised motion [N * T, C] of landmarks [N, T, L, 2]."""
    network = model.landmarks
    assert network is not None
    offsets = network.offsets(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    return model.quantizer(network.encoder(offsets)[0]).motion.flatten(0, 1)


def linear_map(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, float]:
    """Least squares: weight [C', C] and bias [C'] that map `given` [N, C] to `wanted` [N, C'], and the share of the
    variance of `wanted` that is left."""
    inputs = torch.cat([given, torch.ones(len(given), 1)], 1).double()
    # Codes that are never used leave columns without values, so the smallest solution is taken.
    solution = torch.linalg.lstsq(inputs, wanted.double(), driver="gelsd").solution
    left = (inputs @ solution - wanted).square().mean() / (wanted - wanted.mean(0)).double().square().mean()
    solution = solution.float().mT
    return solution[:, :-1].contiguous(), solution[:, -1].contiguous(), float(left)
