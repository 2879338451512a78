"""Where the training of the pixel path starts: from the pixel path of other weights."""

from __future__ import annotations

import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.pixel_path import Fusion
from bcd_bench_bcd.inference.bcd import BCD

__all__ = ["continue_from", "with_mirror_image"]

UNUSED = -2.0
"""Logit with which mirror images begin."""


def continue_from(model: ExtendedBCD, path: str) -> None:
    """Load the pixel path of the weights `path` into `model`, except tensors of another shape, as weights for another
    motion code have. If only `model` has mirror images, its network begins without using them.

    Raises `UsageError` if the weights have no pixel path, or one with other settings.
    """
    loaded = BCD.from_pretrained(path).model
    assert model.pixels is not None
    trained = loaded.pixels if isinstance(loaded, ExtendedBCD) else None
    settings = model.pixels.settings
    if trained is None or trained.settings not in (settings, settings.model_copy(update={"mirrored": False})):
        raise UsageError(f"--set train.init={path}: the weights have no pixel path with the same settings")
    state = model.pixels.state_dict()
    given = trained.state_dict()
    if settings != trained.settings:
        given = {f"fusion.{name}": value for name, value in with_mirror_image(trained.fusion).items()}
    fitting = {name: value for name, value in given.items() if name in state and value.shape == state[name].shape}
    model.pixels.load_state_dict(state | fitting)


def with_mirror_image(fusion: Fusion) -> dict[str, Tensor]:
    """The parameters of `fusion` for one more picture, before the content frame as it is. It has no influence on the
    others, and hardly any weight."""
    new = fusion.pictures - 1
    state: dict[str, Tensor] = fusion.state_dict()

    def inserted(name: str, size: int, axis: int, start: int, value: float = 0.0) -> None:
        old = state[name]
        shape = list(old.shape)
        shape[axis] = size
        before, after = old.split([start, old.shape[axis] - start], axis)
        state[name] = torch.cat([before, old.new_full(shape, value), after], axis)

    pixels = 4 * 3  # of every picture, in which 2 x 2 pixels are channels
    inserted("down.0.first.weight", pixels, 1, pixels * new)
    inserted("down.0.first.weight", 3, 1, pixels * (fusion.pictures + 2) + 3 * new)
    for name in ("weight", "bias"):
        inserted(f"fields.{name}", 2, 0, 2 * new)
        inserted(f"blend.{name}", 4, 0, 4 * new, UNUSED if name == "bias" else 0.0)
    return state
