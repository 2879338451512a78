"""FOMM as a bcd-bench method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from bcd_bench_baselines.common.first_order_method import FirstOrderConfig, FirstOrderMethod
from bcd_bench_baselines.common.frame_method import CommonConfig
from bcd_bench_baselines.common.keypoints import Keypoints
from bcd_bench_baselines.fomm.networks import KEYPOINTS, Generator
from bcd_bench_baselines.fomm.specs import HOW_TO

__all__ = ["FOMM", "FOMMConfig"]


class FOMMConfig(FirstOrderConfig):
    """Settings specific to FOMM."""

    align_corners: bool = False
    """Whether to sample images as in torch up to 1.2, with which the published weights may have been trained."""


class FOMM(FirstOrderMethod):
    """The first-order motion model, vox-256 (Siarohin et al., 2019)."""

    Config: ClassVar[type[CommonConfig]] = FOMMConfig
    config: FOMMConfig
    name = "fomm"
    how_to = HOW_TO
    keypoints = KEYPOINTS
    generator: Generator

    def make_generator(self) -> Generator:
        return Generator(self.keypoints)

    def encode(self, image: Tensor, source: Keypoints) -> Sequence[Tensor]:
        """The features, and the small image for dense motion."""
        del source
        return self.generator.encode(image), self.generator.dense_motion_network.down(image)

    def decode(self, encoded: Sequence[Tensor], source: Keypoints, target: Keypoints) -> Tensor:
        features, small = encoded
        poses = (source.value, source.jacobian), (target.value, target.jacobian)
        motion = self.generator.dense_motion_network(small, *poses, self.config.align_corners)
        return self.generator.decode(features, motion, self.config.align_corners)
