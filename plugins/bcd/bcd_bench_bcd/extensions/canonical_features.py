"""Content on a canonical feature map, which motion warps.

The paper's decoder gets content as tokens and has to find out by attention alone what moved where, which takes
thousands of GPU hours to learn: a model of the size of `heads-small` without this extension, trained on 173,000 clips,
put heads in the right place but with a blurred face. Here content is also a canonical feature map. The encoder warps
every content frame onto it by a flow field predicted from the frame's motion latent, and the decoder warps it to the
pose of the driving clip by another flow field, predicted from the code and the content tokens. The transformer gets the
warped features next to every noisy patch, and its output is blended with an RGB image of them by a mask. Warping
features by learned fields is the idea of FOMM (Siarohin et al. 2019) and LIA (Wang et al. 2022); here all content
frames share one map, and the code is the only information about the driving clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extension, Recipe, StepState
from bcd_bench_bcd.extensions.conv_stem import ConvStem

__all__ = ["CanonicalDecoder", "CanonicalEncoder", "CanonicalFeatures", "FlowField", "Warped", "keypoint_error", "warp"]

CELL = 2
"""The fine map has a value per CELL x CELL pixels; the coarse one has a value per patch."""
FINE, COARSE = 16, 64
"""Channels of both maps."""
HIDDEN = 24
"""Channels of the convolutions that compute the fine map."""
FIELD, FIELD_HIDDEN = 32, 256
"""Points along a side of a flow field, and units of the layers that predict it."""


class CanonicalFeatures(Extension):
    name: ClassVar[str] = "canonical_features"
    summary: ClassVar[str] = "content on a canonical feature map, warped by flow fields read from motion"
    logged: ClassVar[tuple[str, ...]] = ("canonical_rgb",)
    needs_pixels: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True
    training_only: ClassVar[frozenset[str]] = frozenset({"rgb_weight", "warp_start", "denoise_start"})

    rgb_weight: float = Field(default=1.0, ge=0)
    """Weight of the error of the warped map's RGB image."""
    warp_start: int = Field(default=0, ge=0)
    """First step that warps the map and learns its RGB image. Before it, only keypoint supervision trains the fields,
    at a small fraction of the cost of a step."""
    denoise_start: int = Field(default=0, ge=0)
    """First step that trains the transformer. Before it, only the RGB image of the warped map is learned, at half the
    cost of a step."""

    def check(self, preset: Recipe) -> None:
        names, stem = preset.extensions.names, preset.extensions.get(ConvStem)
        if stem is None:
            raise ValueError("canonical_features requires conv_stem")
        if "content_channels" not in names:
            raise ValueError("canonical_features requires content_channels")
        if stem.stride != preset.model.decoder.patch or preset.model.decoder.patch % CELL:
            raise ValueError(
                f"canonical_features requires conv_stem.stride = model.decoder.patch, a multiple of {CELL}"
            )
        if self.warp_start and "keypoint_supervision" not in names:
            raise ValueError(
                "canonical_features.warp_start requires keypoint_supervision: otherwise nothing is trained before it"
            )

    def average_restarts(self) -> tuple[int, ...]:
        return self.warp_start, self.denoise_start

    def augment(self, state: StepState) -> None:
        state.canonical = state.step >= self.warp_start
        state.denoising = state.canonical and state.step >= self.denoise_start

    def after_quantizer(self, state: StepState) -> None:
        if not state.canonical:
            return
        state.warped = state.model.warp(state.content, state.quantized.motion)
        rgb = state.model.config.edm.sigma_data * state.warped.rgb
        state.add("canonical_rgb", state.error(rgb - state.clean).mean(), self.rgb_weight)


def warp(maps: Tensor, flow: Tensor) -> Tensor:
    """Sample `maps` [N, C, h, w] bilinearly at every position plus its `flow` [N, 2, r, c] (x, y; 2 is a whole side),
    which is interpolated to the grid of the maps. Returns float32 [N, C, h, w]; values beyond the border repeat the
    border.
    """
    height, width = maps.shape[-2:]
    field = nn.functional.interpolate(flow.float(), (height, width), mode="bilinear")
    ys = (torch.arange(height, device=maps.device) + 0.5) * 2 / height - 1
    xs = (torch.arange(width, device=maps.device) + 0.5) * 2 / width - 1
    positions = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)
    grid = positions + field.permute(0, 2, 3, 1)
    return nn.functional.grid_sample(maps.float(), grid, padding_mode="border", align_corners=False)


def keypoint_error(flow: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Mean distance (0-dim; 2 is a whole side) between `here` [N, P, 2] moved by `flow` [N, 2, r, c] and `there` [N, P,
    2], all x and y in -1..1. Points that are NaN in either are ignored.
    """
    visible = (here + there).isfinite().all(-1)
    start = here.nan_to_num(0.0)
    # sampled in the same way as `warp` samples it
    sampled = nn.functional.grid_sample(flow.float(), start[:, None], padding_mode="border", align_corners=False)
    missed = start + sampled[:, :, 0].transpose(1, 2) - there.nan_to_num(0.0)
    return ((missed.square().sum(-1) + 1e-6).sqrt() * visible).sum() / visible.sum().clamp_min(1)


class FlowField(nn.Module):
    """A coarse flow field predicted from a vector; initially the identity."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, FIELD_HIDDEN),
            nn.SiLU(),
            nn.Linear(FIELD_HIDDEN, FIELD_HIDDEN),
            nn.SiLU(),
            nn.Linear(FIELD_HIDDEN, 2 * FIELD**2),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, motion: Tensor) -> Tensor:
        """[.., inputs] -> [N, 2, FIELD, FIELD]; N is the product of all leading dimensions."""
        flow: Tensor = self.layers(motion)
        return flow.reshape(-1, 2, FIELD, FIELD)


class CanonicalEncoder(nn.Module):
    """Frames, their features and motion -> the canonical feature map, one vector per position of the grid of
    features."""

    def __init__(self, channels: int, stride: int, width: int) -> None:
        super().__init__()
        self.stride = stride
        self.fold = nn.PixelUnshuffle(CELL)
        self.context = nn.Conv2d(width, HIDDEN, 1)
        self.spread = nn.Upsample(scale_factor=stride // CELL, mode="bilinear")
        self.first = nn.Conv2d(channels * CELL**2, HIDDEN, 3, padding=1)
        self.fine = nn.Sequential(nn.GELU(), nn.Conv2d(HIDDEN, FINE + 1, 1))
        self.coarse = nn.Conv2d(width, COARSE + 1, 1)
        self.flow = FlowField(width)

    def forward(self, frames: Tensor, features: Tensor, motion: Tensor) -> Tensor:
        """`frames` [B, T, C, H, W], `features` [B, T, S, width], `motion` [B, T, width] -> [B, S, map's width]."""
        batch, length, _, height, across = frames.shape
        rows, columns = height // self.stride, across // self.stride
        grid = features.flatten(0, 1).transpose(1, 2).reshape(batch * length, -1, rows, columns)
        fine = self.first(self.fold(frames.flatten(0, 1))) + self.spread(self.context(grid))
        flow = self.flow(motion)
        fine = self._merge(self.fine(fine), flow, batch)
        coarse = self._merge(self.coarse(grid), flow, batch)
        folded = nn.functional.pixel_unshuffle(fine, self.stride // CELL)
        return torch.cat([coarse, folded], 1).flatten(2).transpose(1, 2)

    @staticmethod
    def _merge(maps: Tensor, flow: Tensor, batch: int) -> Tensor:
        """Warp the maps of all frames and average them, weighted by the confidence in their last channel."""
        warped = warp(maps, flow).unflatten(0, (batch, -1))
        confidence = warped[:, :, -1:].softmax(1)
        return (warped[:, :, :-1] * confidence).sum(1)


@dataclass
class Warped:
    """The canonical map warped to the driving frames: `features` [B, T, S, map's width] and `rgb` [B, T, S, values] of
    the patches."""

    features: Tensor
    rgb: Tensor

    def at(self, patch_index: Tensor | None) -> Warped:
        """The warped features of these patches only."""
        return self if patch_index is None else Warped(self.features[:, :, patch_index], self.rgb[:, :, patch_index])

    def without(self, dropped: Tensor) -> Warped:
        """Set to zero in the clips where bool [B] is true."""
        keep = ~dropped[:, None, None, None]
        return Warped(self.features * keep, self.rgb * keep)


class CanonicalDecoder(nn.Module):
    """The canonical map, warped by the motion of every frame: features for the transformer, and an RGB image."""

    def __init__(self, channels: int, motion: int, content: int, grid: tuple[int, int], patch: int) -> None:
        super().__init__()
        self.grid = grid
        self.ratio = patch // CELL
        self.width = COARSE + FINE * self.ratio**2
        self.subject = nn.Sequential(nn.Linear(content, 8), nn.Flatten(), nn.Linear(8 * grid[0] * grid[1], 64))
        self.flow = FlowField(motion + 64)
        self.rgb = nn.Sequential(nn.Conv2d(FINE, channels * CELL**2, 1), nn.PixelShuffle(CELL))

    def flow_of(self, content: Tensor, motion: Tensor) -> Tensor:
        """Flow field from the positions of every frame to the canonical map, [B * T, 2, FIELD, FIELD]."""
        subject = self.subject(content)[:, None].expand(-1, motion.shape[1], -1)
        flow: Tensor = self.flow(torch.cat([motion.to(subject.dtype), subject], -1))
        return flow

    def forward(self, canonical: Tensor, content: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """`canonical` [B, S, width], `content` [B, S, C], `motion` [B, T, C_m] -> warped features [B, T, S, width] and
        RGB image [B, T, C, H, W].
        """
        batch, length = motion.shape[:2]
        flow = self.flow_of(content, motion)
        grid = canonical.transpose(1, 2).unflatten(2, self.grid)
        coarse, folded = grid.split([COARSE, grid.shape[1] - COARSE], 1)
        fine = nn.functional.pixel_shuffle(folded, self.ratio)

        def to_all_frames(maps: Tensor) -> Tensor:
            return warp(maps[:, None].expand(-1, length, -1, -1, -1).flatten(0, 1), flow)

        coarse, fine = to_all_frames(coarse), to_all_frames(fine)
        rgb = self.rgb(fine).unflatten(0, (batch, length))
        features = torch.cat([coarse, nn.functional.pixel_unshuffle(fine, self.ratio)], 1)
        return features.flatten(2).transpose(1, 2).unflatten(0, (batch, length)), rgb
