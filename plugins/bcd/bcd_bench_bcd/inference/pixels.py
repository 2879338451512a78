"""The extension `pixel_path` at inference: whole clips, at their own size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.io.video import resize_frame
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.pixel_path import scaled
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.latents.frame_codec import to_frames
from bcd_bench_bcd.paper.model import BCD

__all__ = ["candidates", "carries_pixels", "carry_pixels", "pixel_values", "resized", "shown_size"]

Frames = npt.NDArray[np.uint8]
CANDIDATES = 16
"""Content frames among which those to carry are selected, if landmarks have to be read for each."""
CHUNK = 16
"""Frames that are fused at once."""


def carries_pixels(model: BCD) -> bool:
    """Whether the weights have the extension `pixel_path`."""
    return isinstance(model, ExtendedBCD) and model.pixels is not None


def shown_size(model: BCD) -> tuple[int, int]:
    """Height and width in pixels at which clips are shown by default: those of the model; with `pixel_path` twice as
    many, because it shows the content's pixels at the size of the clip."""
    scale = 2 if carries_pixels(model) else 1
    height, width = model.config.frame_size
    return scale * height, scale * width


@torch.inference_mode()
def carry_pixels(
    pipeline: Pipeline, frames: Frames, values: Tensor, content: Tensor, motion: Tensor, own: Frames
) -> Frames:
    """Show the content's own pixels where they can be carried: uint8 [T, H, W, 3] of one clip.

    `frames` uint8 [S, H, W, 3] are the content frames at the size of the result, `values` [1, S, C, h, w] the model's
    input of them, `content` [K, C] the content tokens, `motion` [T, C_m] the quantised motion and `own` uint8 [T, h, w,
    3] what the transformer draws. Raises `ValueError` for weights without the extension.
    """
    model = pipeline.model
    if not isinstance(model, ExtendedBCD) or model.pixels is None:
        raise ValueError("the weights have no pixel path")
    network, device = model.pixels, motion.device
    turns = None
    if model.landmarks is None:
        pose = pipeline.motion_latents(values)[0]
    else:
        chosen = candidates(values.shape[1])
        known = pipeline.landmarks(values[:, chosen])[0]
        pose = known.new_full((values.shape[1], *known.shape[1:]), torch.nan)
        pose[chosen] = known
        turns = pipeline.turns(values[:, chosen])
    clip, drawn = (pixel_values(torch.tensor(part)).to(device) for part in (frames, own))
    tokens, motion = content[:, : model.content_width].float(), model.motion_to_carry(motion.float())
    geometry = model.geometry(network, tokens, pose.float(), motion, None if turns is None else turns[0])
    occupied = geometry.occupied
    condition = model.for_fusion(motion)
    reduced = scaled(clip, drawn.shape[-2:])
    pictures = []
    for part in torch.arange(len(motion), device=device).split(CHUNK):
        fused = network.fuse(
            [clip],
            [geometry.sources[part]],
            geometry.displacements[part],
            condition[part],
            drawn[part],
            None if occupied is None else occupied[part],
            [reduced],
        )
        pictures.append(to_frames(fused.picture[None])[0])
    shown: Frames = torch.cat(pictures).cpu().numpy()
    return shown


def candidates(frames: int) -> Tensor:
    """Numbers of the content frames, spread over the clip, whose landmarks are read: others are not carried."""
    return torch.linspace(0, frames - 1, min(frames, CANDIDATES)).round().long()


def resized(frames: Frames, size: tuple[int, ...]) -> Frames:
    """A clip uint8 [T, H, W, 3] resized to `size` (height, width)."""
    height, width = size
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([resize_frame(frame, (height, width)) for frame in frames])


def pixel_values(frames: Tensor) -> Tensor:
    """uint8 [T, H, W, 3] -> float32 [T, 3, H, W] in -1..1."""
    return frames.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
