"""Ours: content on a canvas, which motion moves.

The paper's decoder gets content as tokens and works out by attention alone what has moved where, which takes thousands
of GPU hours to learn. Here content is also a picture of features, the canvas: the encoder moves every content frame
onto it by a field of displacements that it reads from the frame's own motion, and the decoder moves it to where the
driver is by another one, read from the code. So what turns is moved, and what comes into sight is drawn by the
transformer. That features are moved by learned fields is the idea of FOMM (Siarohin et al. 2019) and LIA (Wang et al.
2022); here one canvas stands for all content frames, and all that is known of the driver is the code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcd_bench_bcd.configs import CanvasConfig

__all__ = ["CanvasReader", "CanvasWriter", "Displacements", "moved", "off_guide"]


def moved(picture: Tensor, displacement: Tensor) -> Tensor:
    """`picture` [N, C, h, w] looked up, bilinearly, at every place plus its `displacement` [N, 2, r, c] (x, y; 2 is a
    whole side), which is spread to the picture's grid; float32 [N, C, h, w]. Beyond the border stands the border.
    """
    height, width = picture.shape[-2:]
    field = nn.functional.interpolate(displacement.float(), (height, width), mode="bilinear")
    ys = (torch.arange(height, device=picture.device) + 0.5) * 2 / height - 1
    xs = (torch.arange(width, device=picture.device) + 0.5) * 2 / width - 1
    places = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)
    grid = places + field.permute(0, 2, 3, 1)
    return nn.functional.grid_sample(picture.float(), grid, padding_mode="border", align_corners=False)


class Displacements(nn.Module):
    """What a motion says of where things are: a coarse field of displacements. Nothing has moved at first."""

    def __init__(self, inputs: int, hidden: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2 * side**2)
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, motion: Tensor) -> Tensor:
        """[.., inputs] -> [N, 2, side, side], N for all leading dimensions together."""
        return self.layers(motion).reshape(-1, 2, self.side, self.side)


def off_guide(displacement: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Mean distance (0-dim; 2 is a whole side) by which `displacement` [N, 2, r, c] misses `there` [N, P, 2] from
    `here` [N, P, 2], both x and y in -1..1. Points that are NaN in either are left out.
    """
    known = (here + there).isfinite().all(-1)
    start = here.nan_to_num(0.0)
    # Between its places the field is what `moved` takes it for.
    said = nn.functional.grid_sample(displacement.float(), start[:, None], padding_mode="border", align_corners=False)
    missed = start + said[:, :, 0].transpose(1, 2) - there.nan_to_num(0.0)
    return ((missed.square().sum(-1) + 1e-6).sqrt() * known).sum() / known.sum().clamp_min(1)


class CanvasWriter(nn.Module):
    """Frames, their features and motion -> the canvas, as one vector for every place of the grid of features."""

    def __init__(self, config: CanvasConfig, channels: int, shrink: int, width: int) -> None:
        super().__init__()
        self.config, self.shrink = config, shrink
        cell = config.cell
        self.fold = nn.PixelUnshuffle(cell)
        self.context = nn.Conv2d(width, config.hidden, 1)
        self.spread = nn.Upsample(scale_factor=shrink // cell, mode="bilinear")
        self.first = nn.Conv2d(channels * cell**2, config.hidden, 3, padding=1)
        self.fine = nn.Sequential(nn.GELU(), nn.Conv2d(config.hidden, config.fine + 1, 1))
        self.coarse = nn.Conv2d(width, config.coarse + 1, 1)
        self.displacements = Displacements(width, config.field_hidden, config.field)

    def forward(self, frames: Tensor, features: Tensor, motion: Tensor) -> Tensor:
        """`frames` [B, T, C, H, W], `features` [B, T, S, width], `motion` [B, T, width] -> [B, S, canvas width]."""
        batch, length, _, height, across = frames.shape
        rows, columns = height // self.shrink, across // self.shrink
        grid = features.flatten(0, 1).transpose(1, 2).reshape(batch * length, -1, rows, columns)
        fine = self.first(self.fold(frames.flatten(0, 1))) + self.spread(self.context(grid))
        field = self.displacements(motion)
        fine = self._together(self.fine(fine), field, batch)
        coarse = self._together(self.coarse(grid), field, batch)
        folded = nn.functional.pixel_unshuffle(fine, self.shrink // self.config.cell)
        return torch.cat([coarse, folded], 1).flatten(2).transpose(1, 2)

    @staticmethod
    def _together(maps: Tensor, field: Tensor, batch: int) -> Tensor:
        """Maps of all frames, the last channel of which says how much to trust them, moved and averaged."""
        there = moved(maps, field).unflatten(0, (batch, -1))
        trust = there[:, :, -1:].softmax(1)
        return (there[:, :, :-1] * trust).sum(1)


class CanvasReader(nn.Module):
    """The canvas, moved by the motion of every frame: features for the transformer, and a picture."""

    def __init__(
        self, config: CanvasConfig, channels: int, motion: int, content: int, places: tuple[int, int], patch: int
    ) -> None:
        super().__init__()
        self.config, self.places = config, places
        self.ratio = patch // config.cell
        self.width = config.coarse + config.fine * self.ratio**2
        self.who = nn.Sequential(nn.Linear(content, 8), nn.Flatten(), nn.Linear(8 * places[0] * places[1], 64))
        self.displacements = Displacements(motion + 64, config.field_hidden, config.field)
        self.picture = nn.Sequential(nn.Conv2d(config.fine, channels * config.cell**2, 1), nn.PixelShuffle(config.cell))

    def field(self, content: Tensor, motion: Tensor) -> Tensor:
        """Where on the canvas the places of every frame look, [B * T, 2, side, side] as displacements."""
        who = self.who(content)[:, None].expand(-1, motion.shape[1], -1)
        return self.displacements(torch.cat([motion.to(who.dtype), who], -1))

    def forward(self, canvas: Tensor, content: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """`canvas` [B, S, width], `content` [B, S, content], `motion` [B, T, motion] -> moved [B, T, S, width],
        picture [B, T, C, H, W].
        """
        batch, length = motion.shape[:2]
        field = self.field(content, motion)
        grid = canvas.transpose(1, 2).unflatten(2, self.places)
        coarse, folded = grid.split([self.config.coarse, grid.shape[1] - self.config.coarse], 1)
        fine = nn.functional.pixel_shuffle(folded, self.ratio)

        def everywhere(maps: Tensor) -> Tensor:
            return moved(maps[:, None].expand(-1, length, -1, -1, -1).flatten(0, 1), field)

        coarse, fine = everywhere(coarse), everywhere(fine)
        picture = self.picture(fine).unflatten(0, (batch, length))
        features = torch.cat([coarse, nn.functional.pixel_unshuffle(fine, self.ratio)], 1)
        return features.flatten(2).transpose(1, 2).unflatten(0, (batch, length)), picture
