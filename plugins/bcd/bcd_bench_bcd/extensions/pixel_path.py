"""The content's own pixels, carried to the pose of the driving clip.

A transformer of the size that a CPU can train draws a blurred face. But `canonical_features` already knows where every
position of a driving frame is in the content: its flow field of the driving frame leads to the canonical map, and that
of a content frame from there into the content frame. Here the pixels themselves are looked up along this way, at the
resolution of the clip, in the content frames that have to move least. A small convolutional network compares these
carried pictures with the picture that the transformer draws, corrects the fields where they need detail (eyelids,
lips), and decides per pixel which of them to show: what is hidden, torn or new is drawn. The nearest content frame is
among them once more as it is, for the background, which does not move with the head.

The motion code remains the only information about the driving clip. The network works on pictures of the size of the
model; for larger clips its fields and weights are enlarged, and the pixels are looked up in the large frames. Blending
warped sources by predicted masks is the idea of first-order motion models (Siarohin et al. 2019) and of their
successors with several sources.

The extension is added to trained weights by `bcd-bench train bcd-pixels`, which trains it on rendered heads with their
exact targets and the positions of their points, hence with labels.

Measured on the first 60 pairs of heads-cross-128, beside the same weights without it: csim 0.85 instead of 0.46, shape
error 2.7 instead of 4.7 mm^2; motion and cross errors do not differ, expressions are 0.9 mm^2 worse, and frames flicker
0.3 grey levels more.

Mirror images (`mirrored`), which the shipped weights do not have: if the best picture could be chosen for every 8 x 8
pixels of 64 held-out frames (values in -1..1), the mean absolute error would be 0.0415 with them, and 0.0432 without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extension, Recipe
from bcd_bench_bcd.extensions.canonical_features import FlowField
from bcd_bench_bcd.extensions.fusion_damping import FusionDamping

__all__ = ["Carried", "Fusion", "Geometry", "PixelNetwork", "PixelPath", "grid_positions", "look_up", "select_frames"]

GRID = 64
"""Points along a side of the fields that the network corrects."""
SEARCH = 16
"""Points along a side at which the displacement of content frames is compared."""
WIDTHS = (40, 72, 104)
"""Channels of the network at half, a quarter and an eighth of the model's size."""
CONDITION = 96
"""Channels of the embedded motion."""
OCCUPIED = 12.0
"""How much the logit of the content frame as it is falls where its own head is."""
CORRECTION = 0.1
"""Displacement (2 is a whole side) that one unit of the network's correction means."""


class PixelPath(Extension):
    name: ClassVar[str] = "pixel_path"
    summary: ClassVar[str] = "content pixels carried by the flow fields, fused with what the transformer draws"
    labels: ClassVar[bool] = True
    needs_pixels: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True

    sources: int = Field(default=2, ge=1, le=4)
    """Content frames that are carried for every driving frame."""
    gap: int = Field(default=6, ge=1)
    """Least distance in frames between two of them, so that they differ."""
    mirrored: bool = False
    """Whether a content frame is also carried as its mirror image, for the side of the face that no content frame
    shows. Requires `landmark_motion`."""

    def check(self, preset: Recipe) -> None:
        raise ValueError("pixel_path is added to trained weights, by bcd-bench train bcd-pixels")


def grid_positions(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Centres of the pixels of a picture, float32 [2, height, width]: x and y in -1..1 from border to border."""
    ys = (torch.arange(height, device=device) + 0.5) * 2 / height - 1
    xs = (torch.arange(width, device=device) + 0.5) * 2 / width - 1
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1])


def look_up(maps: Tensor, where: Tensor) -> Tensor:
    """Values of `maps` [N, C, h, w] at the positions `where` [N, 2, H, W], bilinear: [N, C, H, W]. Values beyond the
    border repeat the border."""
    grid = where.permute(0, 2, 3, 1)
    return nn.functional.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def scaled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """`maps` [N, C, h, w] at another `size` (H, W): averaged if it is smaller, else bilinear."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.shape[-1] > size[1]:
        return nn.functional.interpolate(maps, tuple(size), mode="area")
    return nn.functional.interpolate(maps, tuple(size), mode="bilinear")


def select_frames(cost: Tensor, sources: int, gap: int, number: Tensor) -> Tensor:
    """The cheapest of the content frames with these numbers [S], as indices int64 [T, sources], for `cost` [T, S].

    Each is at least `gap` frames from those before; if there are none, the first is repeated.
    """
    selected = [cost.argmin(1)]
    for _ in range(sources - 1):
        cost = cost.masked_fill((number - number[selected[-1]][:, None]).abs() < gap, torch.inf)
        selected.append(torch.where(cost.isfinite().any(1), cost.argmin(1), selected[0]))
    return torch.stack(selected, 1)


def _frames_at(clip: Tensor, index: Tensor) -> Tensor:
    """Frames of a clip [S, 3, h, w] by number [N]: number S + n is the mirror image of frame n."""
    selected = clip[index % len(clip)]
    mirrored = index >= len(clip)
    return torch.where(mirrored[:, None, None, None], selected.flip(-1), selected) if mirrored.any() else selected


@dataclass
class Geometry:
    """Where the pictures of T frames come from."""

    sources: Tensor
    """Content frames that are carried, int64 [T, pictures]; the last is the first once more, for the background. Of S
    content frames, number S + n is the mirror image of frame n."""
    displacements: Tensor
    """From every position of a frame to its place in them, [T, pictures, 2, GRID, GRID]; 0 for the last."""
    occupied: Tensor | None = None
    """Where the last picture shows the content's own head, which is not background, [T, GRID, GRID] in 0..1."""


@dataclass
class Carried:
    """The result of `PixelNetwork.fuse` for N frames, and its parts at the size of the model."""

    picture: Tensor
    """[N, 3, H, W], at the size of the content."""
    displacements: Tensor
    """From every position of a frame to its place in the content frames, corrected: [N, pictures, 2, GRID, GRID]."""
    weights: Tensor
    """Of the carried pictures and, last, of the drawn one: [N, pictures + 1, h, w], with sum 1."""
    first: Tensor
    """The picture carried from the first content frame, [N, 3, h, w]."""
    drawn: Tensor
    """The transformer's picture, corrected: [N, 3, h, w]."""


def _joined(*maps: Tensor) -> Tensor:
    """The channels of all `maps`, channels last in memory: convolutions on CPUs take a third less time."""
    return torch.cat(maps, 1).contiguous(memory_format=torch.channels_last)


class _Block(nn.Module):
    """Two convolutions with a skip connection; the motion scales and shifts the second."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.modulation = nn.Linear(CONDITION, 2 * outputs)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = nn.functional.silu(self.first(x))
        scale, shift = self.modulation(condition)[..., None, None].chunk(2, 1)
        out: Tensor = x + nn.functional.silu(self.second(x) * (1 + scale) + shift)
        return out


class Fusion(nn.Module):
    """A U-Net over the carried pictures (the last is the content frame as it is) and the transformer's picture.

    Initially it changes no field, shows the first carried picture almost everywhere and draws what the transformer
    draws.
    """

    def __init__(self, motion: int, pictures: int) -> None:
        super().__init__()
        self.pictures = pictures
        half, quarter, eighth = WIDTHS
        self.condition = nn.Sequential(nn.Linear(motion, CONDITION), nn.SiLU())
        self.down = nn.ModuleList(
            [_Block(4 * 3 * (pictures + 1) + 3 * pictures, half), _Block(half, quarter, 2), _Block(quarter, eighth, 2)]
        )
        self.up = nn.ModuleList([_Block(eighth + quarter, quarter), _Block(quarter + half, half)])
        self.fields = nn.Conv2d(half, 2 * pictures, 3, padding=1)
        self.blend = nn.Conv2d(half, 4 * (pictures + 1), 3, padding=1)
        self.detail = nn.Conv2d(half // 4 + 6, 16, 3, padding=1)
        self.residual = nn.Conv2d(16, 3, 3, padding=1)
        for layer in (self.fields, self.blend, self.residual):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        preference = torch.zeros(pictures + 1, 4)
        preference[0], preference[-2:] = 2, -1
        self.blend.bias.data.copy_(preference.flatten())

    def forward(self, carried: Tensor, displacements: Tensor, own: Tensor, motion: Tensor) -> tuple[Tensor, ...]:
        """`carried` [N, pictures, 3, h, w], `displacements` [N, pictures, 2, GRID, GRID], the transformer's picture
        `own` [N, 3, h, w], `motion` [N, C_m] -> corrections of the displacements, logits of the weights [N, pictures +
        1, h, w], and features for `draw`."""
        condition = self.condition(motion)
        folded = nn.functional.pixel_unshuffle(torch.cat([carried.flatten(1, 2), own], 1), 2)
        geometry = scaled(self._geometry(displacements), folded.shape[-2:])
        fine = self.down[0](_joined(folded, geometry), condition)
        middle = self.down[1](fine, condition)
        coarse = self.down[2](middle, condition)
        middle = self.up[0](_joined(scaled(coarse, middle.shape[-2:]), middle), condition)
        fine = self.up[1](_joined(scaled(middle, fine.shape[-2:]), fine), condition)
        corrections = scaled(self.fields(fine), (GRID, GRID)).unflatten(1, (self.pictures, 2)) * CORRECTION
        return corrections, nn.functional.pixel_shuffle(self.blend(fine), 2), fine

    def draw(self, features: Tensor, fused: Tensor, own: Tensor) -> Tensor:
        """The transformer's picture `own` [N, 3, h, w] with details, given a first fused picture."""
        inputs = _joined(nn.functional.pixel_shuffle(features, 2), fused, own)
        drawn: Tensor = own + self.residual(nn.functional.silu(self.detail(inputs)))
        return drawn

    def _geometry(self, displacements: Tensor) -> Tensor:
        """Displacements, and how much area a place of the content covers (1: as much; 0 or less: folded),
        [N, 3 * pictures, GRID, GRID]."""
        fields = displacements.flatten(0, 1)
        across = nn.functional.pad(fields[..., :, 1:] - fields[..., :, :-1], (0, 1)) * (GRID / 2)
        along = nn.functional.pad(fields[..., 1:, :] - fields[..., :-1, :], (0, 0, 0, 1)) * (GRID / 2)
        area = (1 + across[:, :1]) * (1 + along[:, 1:]) - across[:, 1:] * along[:, :1]
        both = torch.cat([2 * fields, area.clamp(-2, 4) - 1], 1)
        return both.unflatten(0, (-1, self.pictures)).flatten(1, 2)


class PixelNetwork(nn.Module):
    """The fields of content and driving frames, and the fusion of the pictures that they carry."""

    def __init__(
        self,
        settings: PixelPath,
        *,
        latent: int,
        motion: int,
        content: int,
        patches: int,
        flows: bool = True,
        damping: FusionDamping | None = None,
    ) -> None:
        """`latent` and `motion` are the channels of motion before and after the quantiser, `content` those of the
        content tokens, of which there are `patches`. Without `flows`, displacements come from `landmark_motion`.
        `damping` are the settings of `fusion_damping`, if the weights have it."""
        super().__init__()
        self.settings, self.damping = settings, damping
        if flows:
            self.content_flow = FlowField(latent)
            self.subject = nn.Sequential(nn.Linear(content, 8), nn.Flatten(), nn.Linear(8 * patches, 64))
            self.driving_flow = FlowField(motion + 64)
        self.fusion = Fusion(motion, settings.sources + settings.mirrored + 1)

    def forward(self, frames: Tensor, tokens: Tensor, latents: Tensor, motion: Tensor, own: Tensor) -> Tensor:
        """The pictures [T, 3, H, W] of one clip.

        `frames` [S, 3, H, W] are the content frames in -1..1, `latents` [S, width] their motion latents, `tokens` [K,
        C] the content tokens, `motion` [T, C_m] the quantised motion, and `own` [T, 3, h, w] the transformer's
        pictures, at the size of the model.
        """
        geometry = self.geometry(tokens, latents, motion)
        return self.fuse([frames], [geometry.sources], geometry.displacements, motion, own).picture

    def geometry(self, tokens: Tensor, latents: Tensor, motion: Tensor) -> Geometry:
        """The geometry of one clip, by the flow fields; arguments as for `forward`."""
        subject = self.subject(tokens[None]).expand(len(motion), -1)
        to_canonical = self.driving_flow(torch.cat([motion, subject], -1))
        to_content = self.content_flow(latents)
        sources = self._select(to_canonical, to_content)
        here = grid_positions(GRID, GRID, motion.device)[None]
        canonical = here + scaled(to_canonical, (GRID, GRID))
        ways = [canonical + look_up(to_content[one], canonical) - here for one in sources.unbind(1)]
        ways.append(torch.zeros_like(ways[0]))
        return Geometry(torch.cat([sources, sources[:, :1]], 1), torch.stack(ways, 1))

    @torch.no_grad()
    def _select(self, to_canonical: Tensor, to_content: Tensor) -> Tensor:
        """The content frames that move least, each at least `gap` frames from those before; if there are none, the
        first is repeated."""
        here = grid_positions(SEARCH, SEARCH, to_content.device)[None]
        canonical = here + scaled(to_canonical, (SEARCH, SEARCH))
        where = canonical.repeat(len(to_content), 1, 1, 1)
        fields = to_content.repeat_interleave(len(canonical), 0)
        moves = (where + look_up(fields, where) - here).abs().mean((1, 2, 3)).view(len(to_content), -1).T
        return select_frames(
            moves, self.settings.sources, self.settings.gap, torch.arange(len(to_content)).to(moves.device)
        )

    def fuse(
        self,
        frames: Sequence[Tensor],
        sources: Sequence[Tensor],
        displacements: Tensor,
        motion: Tensor,
        own: Tensor,
        occupied: Tensor | None = None,
        reduced: Sequence[Tensor] | None = None,
    ) -> Carried:
        """Carry and fuse. `frames` [S, 3, H, W] and `sources` [T, pictures] those of every clip, all of one size;
        the rest holds the frames of all clips, one after the other. Where `occupied`, the content frame as it is is
        not shown. `reduced` are the frames at the size of the model, if they are known."""
        small, large = own.shape[-2:], frames[0].shape[-2:]

        def carry(clips: Sequence[Tensor], fields: Tensor) -> Iterator[Tensor]:
            """The pictures [T, 3, h, w] that are carried, one after the other."""
            size = clips[0].shape[-2:]
            here = grid_positions(size[0], size[1], own.device)[None]
            lengths = [len(one) for one in sources]
            for number, field in enumerate(fields.unbind(1)):
                parts = zip(clips, sources, field.split(lengths), strict=True)
                found = [
                    look_up(_frames_at(clip, selected[:, number]), here + scaled(part, size))
                    for clip, selected, part in parts
                ]
                yield found[0] if len(found) == 1 else torch.cat(found)

        if reduced is None:
            reduced = [scaled(clip, small) for clip in frames]
        carried = torch.stack([*carry(reduced, displacements)], 1)
        corrections, logits, features = self.fusion(carried, displacements, own, motion)
        if self.damping is not None:
            corrections = self.damping.corrections * corrections
            logits = torch.cat([logits[:, :-1], logits[:, -1:] + self.damping.drawn], 1)
        if occupied is not None:
            logits = logits - OCCUPIED * nn.functional.pad(
                scaled(occupied[:, None], small), (0, 0, 0, 0, sources[0].shape[1] - 1, 1)
            )
        corrected = displacements + corrections
        if self.damping is None or self.damping.corrections:
            carried = torch.stack([*carry(reduced, corrected)], 1)
        weights = logits.softmax(1)
        fused = (carried * weights[:, :-1, None]).sum(1) + own * weights[:, -1:]
        drawn = self.fusion.draw(features, fused, own)
        at_size: Iterable[Tensor]
        if small == large:
            at_size, shown = carried.unbind(1), weights
        else:
            at_size, shown = carry(frames, corrected), scaled(logits, large).softmax(1)
        parts = zip(chain(at_size, [scaled(drawn, large)]), shown.unbind(1), strict=True)
        picture = reduce(torch.add, (one * weight[:, None] for one, weight in parts))
        return Carried(picture, corrected, weights, carried[:, 0], drawn)
