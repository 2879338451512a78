"""Pictures of swaps: one block a pair, rows of content reference, motion reference and result."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcd_bench_bcd.configs import SamplerConfig
from bcd_bench_bcd.latents import FrameCodec
from bcd_bench_bcd.model import BCD

__all__ = ["swap_grid"]


def swap_grid(
    model: BCD,
    codec: FrameCodec,
    content: Tensor,
    motion: Tensor,
    sampler: SamplerConfig,
    generator: torch.Generator,
) -> Image.Image:
    """Transfer the motion of training clips onto `content`, [B, T, …] each as `BCD.values` takes them; all three laid
    out, frames side by side."""
    content, motion = model.values(content), model.values(motion)
    encoded = model.encode(content)
    driving = model.encode_motion(motion).motion
    noise = torch.randn((len(content), *model.noise_shape(driving.shape[1])), generator=generator).to(driving)
    result = model.decode(encoded.content, driving, sampler, noise)
    rows = []
    for block in zip(*(codec.frames(values).cpu() for values in (content, motion, result)), strict=True):
        rows += [torch.cat(list(clip), 1) for clip in block]
        rows.append(torch.full((4, rows[-1].shape[1], 3), 128, dtype=torch.uint8))
    return Image.fromarray(np.ascontiguousarray(torch.cat(rows).numpy()))
