"""Images of swaps: one block per pair, with rows for content clip, driving clip and result."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.latents.frame_codec import FrameCodec
from bcd_bench_bcd.paper.config import SamplerConfig

__all__ = ["swap_grid"]


def swap_grid(
    pipeline: Pipeline,
    codec: FrameCodec,
    content: Tensor,
    motion: Tensor,
    sampler: SamplerConfig,
    generator: torch.Generator,
) -> Image.Image:
    """Transfer the motion of training clips to `content`, [B, T, …] each as `BCD.values` takes them, and lay out all
    three with frames side by side."""
    model = pipeline.model
    content, motion = model.values(content), model.values(motion)
    encoded = pipeline.encode_content(content)
    driving = pipeline.encode_motion(motion).motion
    noise = torch.randn((len(content), *model.noise_shape(driving.shape[1])), generator=generator).to(driving)
    result = pipeline.sample(encoded, driving, sampler, noise)
    rows = []
    for block in zip(*(codec.frames(values).cpu() for values in (content, motion, result)), strict=True):
        rows += [torch.cat(list(clip), 1) for clip in block]
        rows.append(torch.full((4, rows[-1].shape[1], 3), 128, dtype=torch.uint8))
    return Image.fromarray(np.ascontiguousarray(torch.cat(rows).numpy()))
