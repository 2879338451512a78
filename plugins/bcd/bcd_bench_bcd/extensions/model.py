"""BCD with extensions: the paper's model with parts replaced or added."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.canonical_features import CanonicalEncoder, CanonicalFeatures, Warped
from bcd_bench_bcd.extensions.content_bottleneck import Bottleneck, ContentBottleneck
from bcd_bench_bcd.extensions.conv_stem import ConvEncoder, ConvStem
from bcd_bench_bcd.extensions.decoder import ExtendedDiT
from bcd_bench_bcd.extensions.expression_gain import ExpressionGain
from bcd_bench_bcd.extensions.field_smoothing import FieldSmoothing, smoothed
from bcd_bench_bcd.extensions.fusion_damping import FusionDamping
from bcd_bench_bcd.extensions.landmark_motion import LandmarkMotion, LandmarkNetwork
from bcd_bench_bcd.extensions.latent_gradient import LatentGradient
from bcd_bench_bcd.extensions.motion_smoothing import MotionSmoothing, smoothed_over_time
from bcd_bench_bcd.extensions.pixel_path import GRID, Geometry, PixelNetwork, PixelPath
from bcd_bench_bcd.extensions.quantizer import ExtendedQuantizer
from bcd_bench_bcd.extensions.standardized_latents import StandardizedLatents
from bcd_bench_bcd.extensions.steady_sources import SteadySources
from bcd_bench_bcd.extensions.x_prediction import XPrediction, precondition_x
from bcd_bench_bcd.paper import edm
from bcd_bench_bcd.paper.config import ModelConfig
from bcd_bench_bcd.paper.encoder import Encoder
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.paper.quantizer import GroupVectorQuantizer

__all__ = ["ExtendedBCD", "build_model", "landmarks_of"]


def build_model(config: ModelConfig, extensions: Extensions, active_patches: tuple[int, ...] | None = None) -> BCD:
    """The paper's model if there are no extensions, else an extended one. Raises `ValueError` if they do not fit."""
    return ExtendedBCD(config, extensions, active_patches) if len(extensions) else BCD(config)


def landmarks_of(model: BCD) -> LandmarkNetwork | None:
    """The networks of `landmark_motion`, or None if the model reads motion from pixels."""
    return model.landmarks if isinstance(model, ExtendedBCD) else None


class ExtendedBCD(BCD):
    """BCD with extensions. Channels of the canonical map, if there is one, follow those of the content tokens."""

    quantizer: GroupVectorQuantizer
    decoder: ExtendedDiT

    def __init__(
        self, config: ModelConfig, extensions: Extensions, active_patches: tuple[int, ...] | None = None
    ) -> None:
        self.extensions = extensions
        self.active_patches = active_patches
        super().__init__(config)

    def _build(self) -> None:
        config, extensions = self.config, self.extensions
        stem, canonical = extensions.get(ConvStem), extensions.get(CanonicalFeatures)
        self.has_canonical = canonical is not None
        if stem is None:
            self.encoder = Encoder(config.encoder, config.channels, config.grid)
        else:
            width, stride = config.encoder.width, stem.stride
            canonical_encoder = None if canonical is None else lambda: CanonicalEncoder(config.channels, stride, width)
            self.encoder = ConvEncoder(config.encoder, config.channels, config.grid, stride, canonical_encoder)
        content_bottleneck = extensions.get(ContentBottleneck)
        self.content_width = config.encoder.width if content_bottleneck is None else content_bottleneck.dim
        """Channels of the content tokens, before those of the canonical map."""
        self.bottleneck: Bottleneck | None = None
        if content_bottleneck is not None:
            self.bottleneck = Bottleneck(config.encoder.content_tokens, config.encoder.width, content_bottleneck.dim)
        self.quantizer = ExtendedQuantizer(
            config.quantizer,
            config.encoder.width,
            standardize=extensions.get(StandardizedLatents) is not None,
            latent_gradient=extensions.get(LatentGradient) is not None,
        )
        self.decoder = ExtendedDiT(
            config, self.content_width, self.quantizer.out_width, extensions, self.active_patches
        )
        landmark_motion = extensions.get(LandmarkMotion)
        self.landmarks: LandmarkNetwork | None = None
        if landmark_motion is not None:
            gain, steady = extensions.get(ExpressionGain), extensions.get(SteadySources)
            self.landmarks = LandmarkNetwork(
                landmark_motion,
                transformer=self.quantizer.out_width,
                expression_gain=1.0 if gain is None else gain.factor,
                steady_window=1 if steady is None else steady.window,
            )
            self.quantizer = GroupVectorQuantizer(
                landmark_motion.quantizer, landmark_motion.groups * landmark_motion.dim
            )
        pixel_path = extensions.get(PixelPath)
        self.pixels: PixelNetwork | None = None
        if pixel_path is not None:
            self.pixels = PixelNetwork(
                pixel_path,
                latent=config.encoder.width,
                motion=self.quantizer.out_width,
                content=self.content_width,
                patches=config.encoder.content_tokens,
                flows=landmark_motion is None,
                damping=extensions.get(FusionDamping),
            )
        self.precondition = edm.precondition if extensions.get(XPrediction) is None else precondition_x

    def encode(self, values: Tensor, *, canonical: bool = True) -> tuple[Tensor, Tensor]:
        """As `BCD.encode`, but without the channels of the canonical map if `canonical` is false."""
        values = self.standardized(values)
        if self.has_canonical:
            content, motion = self.encoder(values, canonical=canonical)
        else:
            content, motion = self.encoder(values)
        return content, motion

    def encode_content(self, values: Tensor) -> Tensor:
        """z -> content [B, K, C_c], float32, as the decoder gets it at inference."""
        return self.rounded(self.content_mean(values))

    def content_mean(self, values: Tensor) -> Tensor:
        """Content as in `encode_content`, before it is rounded."""
        tokens = self.encode(values)[0]
        return tokens.float() if self.bottleneck is None else self.bottleneck.mean(tokens)

    def rounded(self, content: Tensor) -> Tensor:
        """Content rounded to the bottleneck's grid, if there is one."""
        return content if self.bottleneck is None else self.bottleneck.rounded(content)

    def latents_of_motion(self, values: Tensor) -> Tensor:
        """As `BCD.latents_of_motion`, without computing a canonical map. Raises `ValueError` for `landmark_motion`."""
        if self.landmarks is not None:
            raise ValueError("weights with landmark_motion read motion from landmarks, see Pipeline.motion_latents")
        return self.encode(values, canonical=False)[1]

    def denoise(
        self,
        patches: Tensor,
        sigma: Tensor,
        content: Tensor,
        motion: Tensor,
        drop_content: Tensor | None = None,
        drop_motion: Tensor | None = None,
        patch_index: Tensor | None = None,
        warped: Warped | None = None,
    ) -> Tensor:
        """As `BCD.denoise`, for the active patches or those at `patch_index` (int [S]). `warped` is the result of
        `warp` for the same content and motion, if already computed.
        """
        if warped is None:
            warped = self.warp(content, motion)
        motion = self._for_transformer(motion)
        tokens = content[..., : self.content_width]

        def network(x: Tensor, noise: Tensor) -> Tensor:
            out: Tensor = self.decoder(x, noise, tokens, motion, drop_content, drop_motion, patch_index, warped)
            return out

        return self.precondition(network, patches, sigma, self.config.edm)

    def warp(self, content: Tensor, motion: Tensor) -> Warped | None:
        """Warp the canonical map in the content [B, K, C_c] by motion [B, T, C_m]; None for models without one."""
        if not self.has_canonical:
            return None
        motion = self._for_transformer(motion)
        return self.decoder.warp(content[..., self.content_width :], content[..., : self.content_width], motion)

    def geometry(
        self, network: PixelNetwork, tokens: Tensor, pose: Tensor, motion: Tensor, turn: Tensor | None = None
    ) -> Geometry:
        """As `PixelNetwork.geometry`. `pose` is that of the content frames: motion latents [S, width], or landmarks [S,
        N, 2] with `landmark_motion`, whose pose `turn` [3, 3] corrects."""
        smoothing = self.extensions.get(FieldSmoothing)
        if self.landmarks is None:
            geometry = network.geometry(tokens, pose, motion)
        else:
            with torch.no_grad():  # nothing of it is trained with the pixel path
                geometry = self.landmarks.geometry(pose, motion, network.settings, GRID, turn)
        if smoothing is None:
            return geometry
        return replace(geometry, displacements=smoothed(geometry.displacements, smoothing.window))

    def motion_to_carry(self, motion: Tensor) -> Tensor:
        """The quantised motion [T, C_m] of a clip by which its pixels are carried: smoothed by `motion_smoothing`."""
        smoothing = self.extensions.get(MotionSmoothing)
        return motion if smoothing is None else smoothed_over_time(motion, smoothing.window)

    def for_fusion(self, motion: Tensor) -> Tensor:
        """Motion [..., C_m] as the pixel path's network gets it."""
        return motion if self.landmarks is None else self.landmarks.standardized(motion)

    def _for_transformer(self, motion: Tensor) -> Tensor:
        """Motion as the transformer was trained with."""
        if self.landmarks is None:
            return motion
        return self.landmarks.translated(motion.float())

    @torch.no_grad()
    def calibrate(self, tokens: Tensor) -> None:
        """Fit the rounding grid of content to the content tokens [B, K, width] of many clips."""
        if self.bottleneck is not None:
            self.bottleneck.calibrate(tokens)
