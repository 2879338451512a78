"""MCNET as a bcd-bench method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bcd_bench_baselines.common.first_order_method import FirstOrderConfig, FirstOrderMethod
from bcd_bench_baselines.common.frame_method import CommonConfig
from bcd_bench_baselines.common.keypoints import Keypoints
from bcd_bench_baselines.mcnet.memory import SCALES, SIDE
from bcd_bench_baselines.mcnet.networks import KEYPOINTS, Generator
from bcd_bench_baselines.mcnet.specs import HOW_TO

__all__ = ["MCNET", "MCNETConfig"]


class MCNETConfig(FirstOrderConfig):
    """Settings specific to MCNET."""

    noise_seed: int | None = Field(None, ge=0)
    """Seed of the memory's noise, which is then the same for every frame; None omits it. The original samples new noise
    for every frame."""


class MCNET(FirstOrderMethod):
    """The memory compensation network with implicit identity representation (Hong and Xu, 2023)."""

    Config: ClassVar[type[CommonConfig]] = MCNETConfig
    config: MCNETConfig
    name = "mcnet"
    how_to = HOW_TO
    keypoints = KEYPOINTS
    generator: Generator

    def make_generator(self) -> Generator:
        return Generator(self.keypoints)

    def noise(self) -> tuple[Tensor, ...]:
        """A map float32[1, 1, 32, 32] for each scale of the memory unit, or an empty tuple."""
        if self.config.noise_seed is None:
            return ()
        draw = torch.Generator().manual_seed(self.config.noise_seed)
        maps = torch.randn(len(SCALES), 1, 1, SIDE, SIDE, generator=draw).to(self.device)
        return tuple(maps.unbind())

    def encode(self, image: Tensor, source: Keypoints) -> Sequence[Tensor]:
        """The image, the small image for dense motion, four levels of features, and the noise."""
        del source
        small = self.generator.dense_motion_network.down(image)
        return [image, small, *self.generator.encode(image), *self.noise()]

    def decode(self, encoded: Sequence[Tensor], source: Keypoints, target: Keypoints) -> Tensor:
        image, small, levels, noise = encoded[0], encoded[1], encoded[2:6], encoded[6:]
        poses = (source.value, source.jacobian), (target.value, target.jacobian)
        motion = self.generator.dense_motion_network(small, *poses)
        return self.generator.decode(image, levels, source.value, motion, noise or None)
