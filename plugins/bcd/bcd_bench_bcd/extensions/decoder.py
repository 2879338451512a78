"""The paper's decoder with the hooks that `content_channels`, `spatial_motion`, `canonical_features` and
`patch_skipping` need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.canonical_features import CanonicalDecoder, CanonicalFeatures, Warped
from bcd_bench_bcd.extensions.content_channels import ContentChannels
from bcd_bench_bcd.extensions.spatial_motion import SpatialMotion
from bcd_bench_bcd.paper.config import ModelConfig
from bcd_bench_bcd.paper.decoder import VideoDiT

__all__ = ["BACKGROUND", "ExtendedDiT"]

BACKGROUND = -1.0
"""The value of patches that are not computed: black."""


class ExtendedDiT(VideoDiT):
    """`VideoDiT` over the active patches, with additional inputs per patch and a warped canonical map."""

    active: Tensor

    def __init__(
        self,
        config: ModelConfig,
        content_width: int,
        motion_width: int,
        extensions: Extensions,
        active_patches: tuple[int, ...] | None = None,
    ) -> None:
        # Settings that the builders below read; the order of modules fixes the order of random initialisation.
        spatial = extensions.get(SpatialMotion)
        self.content_channels = extensions.get(ContentChannels) is not None
        self.motion_channels = 0 if spatial is None else spatial.channels
        self.motion_width = motion_width
        rows, columns = (side // config.decoder.patch for side in config.grid)
        self.active_patches = tuple(range(rows * columns)) if active_patches is None else active_patches
        canonical = canonical_in = None
        if extensions.get(CanonicalFeatures) is not None:
            canonical = CanonicalDecoder(
                config.channels, motion_width, content_width, (rows, columns), config.decoder.patch
            )
            canonical_in = nn.Linear(canonical.width, config.decoder.width, bias=False)
        self.has_canonical = canonical is not None
        super().__init__(config, content_width, motion_width)
        self.canonical, self.canonical_in = canonical, canonical_in
        self.register_buffer("active", torch.tensor(self.active_patches), persistent=False)
        self.positions = self.positions[self.active]

    def _build_inputs(self, content_width: int) -> None:
        if not self.content_channels:
            super()._build_inputs(content_width)
            if self.motion_channels:
                raise ValueError("spatial_motion requires content_channels")
            return
        tokens = self.config.encoder.content_tokens
        if tokens != len(self.active_patches):
            raise ValueError(
                f"content_channels requires {len(self.active_patches)} content tokens, one per patch, not {tokens}"
            )
        inputs = self.patch_values + content_width + self.motion_channels
        self.patch_in = nn.Linear(inputs, self.config.decoder.width)

    def _build_transformer(self, outputs: int) -> None:
        self.motion_map = None
        if self.motion_channels:
            self.motion_map = nn.Linear(self.motion_width, len(self.active_patches) * self.motion_channels)
        mask = self.config.decoder.patch**2 if self.has_canonical else 0
        super()._build_transformer(outputs + mask)

    @property
    def patch_count(self) -> int:
        return len(self.active_patches)

    def patchify(self, frames: Tensor) -> Tensor:
        """[B, T, C, H, W] -> the active patches [B, T, S, C * p * p]."""
        return super().patchify(frames)[:, :, self.active]

    def unpatchify(self, patches: Tensor) -> Tensor:
        """The inverse of `patchify`; patches that are not active are black."""
        if self.patch_count < self.rows * self.columns:
            b, t, _, values = patches.shape
            all_patches = patches.new_full((b, t, self.rows * self.columns, values), BACKGROUND)
            all_patches[:, :, self.active] = patches
            patches = all_patches
        return super().unpatchify(patches)

    def warp(self, canonical: Tensor, content: Tensor, motion: Tensor) -> Warped:
        """Warp the canonical map [B, K, map's width] by the motion [B, T, motion_width] of every frame."""
        assert self.canonical is not None
        features, rgb = self.canonical(canonical, content, motion)
        return Warped(features[:, :, self.active], self.patchify(rgb))

    def forward(
        self,
        patches: Tensor,
        noise: Tensor,
        content: Tensor,
        motion: Tensor,
        drop_content: Tensor | None = None,
        drop_motion: Tensor | None = None,
        patch_index: Tensor | None = None,
        warped: Warped | None = None,
    ) -> Tensor:
        """As `VideoDiT.forward`. With `patch_index` (int [S]), `patches` holds only these of the active patches. A
        model with a canonical map requires `warped`, the warped map for all active patches.
        """
        if warped is not None:
            warped = warped.at(patch_index)
            for drop in (drop_content, drop_motion):
                warped = warped if drop is None else warped.without(drop)
        content, motion = self._or_null(content, motion, drop_content, drop_motion)
        condition = self._condition(noise, motion)
        frames = patches.shape[1]
        inputs = [patches.to(content.dtype)]
        if self.content_channels:
            patch_content = content if patch_index is None else content[:, patch_index]
            inputs.append(patch_content[:, None].expand(-1, frames, -1, -1))
        if self.motion_map is not None:
            mapped = self.motion_map(motion).view(*motion.shape[:2], self.patch_count, -1)
            inputs.append((mapped if patch_index is None else mapped[:, :, patch_index]).to(content.dtype))
        h = self.patch_in(torch.cat(inputs, -1))
        h = h + (self.positions if patch_index is None else self.positions[patch_index]).to(h.dtype)
        if warped is not None:
            assert self.canonical_in is not None
            h = h + self.canonical_in(warped.features)
        tokens = 0
        if not self.content_channels:
            embedded = (self.content_in(content) + self.content_type).to(h.dtype)
            h = torch.cat([embedded[:, None].expand(-1, frames, -1, -1), h], 2)
            tokens = embedded.shape[1]
        out = self._output(self._transform(h, condition, tokens), condition)
        if warped is None:
            return out
        out, mask = out.float().split([self.patch_values, out.shape[-1] - self.patch_values], -1)
        # initially, the output is the warped RGB image at 98 % and the transformer adds nothing
        blended: Tensor = out + (mask + 4).sigmoid().repeat(1, 1, 1, self.config.channels) * warped.rgb
        return blended
