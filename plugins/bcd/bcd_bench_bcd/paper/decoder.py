"""The denoising decoder F (Sec. 3.3): a diffusion transformer over the patches of every frame.

Spatial blocks attend within a frame, temporal blocks over the frames at one position. Motion enters with the noise
level through adaptive layer norm (eq. 13), content by concatenation with the noisy input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bcd_bench_bcd.paper.config import ModelConfig

__all__ = ["VideoDiT", "grid_positions", "rotate", "sinusoid"]


def sinusoid(positions: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sine-cosine features [..., width] of real positions [...]."""
    frequencies = torch.exp(-math.log(longest) * torch.arange(width // 2, device=positions.device) / (width // 2))
    angles = positions[..., None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D position encoding [rows * columns, width], half of the channels per axis."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([sinusoid(row.flatten(), width // 2), sinusoid(column.flatten(), width // 2)], -1)


def rotate(x: Tensor) -> Tensor:
    """Rotary position encoding (Su et al. 2021): rotate pairs of channels of x [..., L, width] by angles growing along
    L."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    first, second, remainder = x.float().split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos, remainder], -1).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention. On CPUs, for short sequences, plain matrix products are faster than the fused
    kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, *, rotary: bool = False) -> Tensor:
        """`x` [B, L, width]. With `rotary`, attention depends on the distance between two positions in L."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if rotary:
            q, k = rotate(q), rotate(k)
        if x.device.type == "cpu" and length <= 128:
            weights = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
            y = weights.softmax(-1).to(v.dtype) @ v
        else:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, width))
        return out


class DiTBlock(nn.Module):
    """Attention and feed-forward, each modulated by the condition and gated (adaLN-Zero: initially the identity)."""

    def __init__(self, width: int, heads: int, *, rotary: bool = False) -> None:
        super().__init__()
        self.rotary = rotary
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, *, over_time: bool = False) -> Tensor:
        """`x` [B, T, S, width], `condition` [B, T, width]. Attends over S, or over T at each of the S positions."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, :, None].chunk(6, -1)
        h = self.norm1(x) * (1 + scale1) + shift1  # (13): scale and shift of noise level and motion
        if over_time:
            h = h.transpose(1, 2)
        h = self.attention(h.flatten(0, 1), rotary=self.rotary).view(h.shape)
        if over_time:
            h = h.transpose(1, 2)
        x = x + gate1 * h
        out: Tensor = x + gate2 * self.feed_forward(self.norm2(x) * (1 + scale2) + shift2)
        return out


class VideoDiT(nn.Module):
    """F_theta(x; c_noise, m-hat, c) in EDM's notation."""

    positions: Tensor

    def __init__(self, config: ModelConfig, content_width: int, motion_width: int) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        """Recompute blocks in the backward pass instead of keeping their activations."""
        decoder, (height, width), d = config.decoder, config.grid, config.decoder.width
        self.rows, self.columns = height // decoder.patch, width // decoder.patch
        self.patch_values = config.channels * decoder.patch**2
        self.register_buffer("positions", grid_positions(self.rows, self.columns, d), persistent=False)
        # null conditions of classifier-free guidance
        self.null_content = nn.Parameter(torch.randn(config.encoder.content_tokens, content_width) * 0.02)
        self.null_motion = nn.Parameter(torch.randn(motion_width) * 0.02)
        self._build_inputs(content_width)
        self.noise_in = nn.Sequential(nn.Linear(128, d), nn.SiLU(), nn.Linear(d, d))
        self.motion_in = nn.Linear(motion_width, d)
        self._build_transformer(self.patch_values)

    def _build_inputs(self, content_width: int) -> None:
        """Build the layers that embed patches and content tokens."""
        d = self.config.decoder.width
        self.patch_in = nn.Linear(self.patch_values, d)
        self.content_in = nn.Linear(content_width, d)
        self.content_type = nn.Parameter(torch.randn(self.config.encoder.content_tokens, d) * 0.1)

    def _build_transformer(self, outputs: int) -> None:
        """Build the blocks, and the projection to `outputs` values per patch."""
        config, d = self.config.decoder, self.config.decoder.width
        rotary = config.time_positions == "rotary"
        self.blocks = nn.ModuleList([DiTBlock(d, config.heads) for _ in range(config.depth)])
        self.temporal = nn.ModuleDict(
            {str(i): DiTBlock(d, config.heads, rotary=rotary) for i in config.temporal_blocks}
        )
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(d, 2 * d)
        self.patch_out = nn.Linear(d, outputs)
        for layer in (self.modulation, self.patch_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def patch_count(self) -> int:
        """S, the patches of a frame."""
        return self.rows * self.columns

    def patchify(self, frames: Tensor) -> Tensor:
        """[B, T, C, H, W] -> patches [B, T, S, C * p * p], row by row."""
        (b, t, c), p = frames.shape[:3], self.config.decoder.patch
        patches = frames.reshape(b, t, c, self.rows, p, self.columns, p).permute(0, 1, 3, 5, 2, 4, 6)
        return patches.reshape(b, t, self.rows * self.columns, c * p * p)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """The inverse of `patchify`."""
        (b, t), p, c = patches.shape[:2], self.config.decoder.patch, self.config.channels
        frames = patches.view(b, t, self.rows, self.columns, c, p, p).permute(0, 1, 4, 2, 5, 3, 6)
        return frames.reshape(b, t, c, self.rows * p, self.columns * p)

    def forward(
        self,
        patches: Tensor,
        noise: Tensor,
        content: Tensor,
        motion: Tensor,
        drop_content: Tensor | None = None,
        drop_motion: Tensor | None = None,
    ) -> Tensor:
        """Scaled noisy patches [B, T, S, values] -> network output of the same shape.

        `noise` is c_noise [B]; `content` [B, K, content_width]; `motion` [B, T, motion_width]; the bool masks [B]
        replace a clip's condition by the learned null.
        """
        content, motion = self._or_null(content, motion, drop_content, drop_motion)
        condition = self._condition(noise, motion)
        h = self.patch_in(patches.to(content.dtype))
        h = h + self.positions.to(h.dtype)
        tokens = (self.content_in(content) + self.content_type).to(h.dtype)
        h = torch.cat([tokens[:, None].expand(-1, h.shape[1], -1, -1), h], 2)  # content concatenated with noisy input
        return self._output(self._transform(h, condition, tokens.shape[1]), condition)

    def _or_null(
        self, content: Tensor, motion: Tensor, drop_content: Tensor | None, drop_motion: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The conditions, replaced by the learned nulls in the clips whose mask is true."""
        if drop_content is not None:
            content = torch.where(drop_content[:, None, None], self.null_content.to(content.dtype), content)
        if drop_motion is not None:
            motion = torch.where(drop_motion[:, None, None], self.null_motion.to(motion.dtype), motion)
        return content, motion

    def _condition(self, noise: Tensor, motion: Tensor) -> Tensor:
        """SiLU(emb(c_noise) + W m-hat_t) [B, T, d]: motion added to the embedding of the noise level (Sec. 3.3)."""
        condition = self.noise_in(sinusoid(100.0 * noise, 128))[:, None] + self.motion_in(motion)
        return nn.functional.silu(condition)

    def _transform(self, h: Tensor, condition: Tensor, tokens: int) -> Tensor:
        """Apply all blocks to h [B, T, tokens + S, d]; returns the features of the patches alone, [B, T, S, d].

        Temporal blocks process the patches alone: content tokens are the same in every frame.
        """
        for index, block in enumerate(self.blocks):
            h = self._run(block, h, condition)
            if str(index) in self.temporal:
                patches = self._run(self.temporal[str(index)], h[:, :, tokens:], condition, over_time=True)
                h = torch.cat([h[:, :, :tokens], patches], 2) if tokens else patches
        return h[:, :, tokens:]

    def _output(self, h: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition)[:, :, None].chunk(2, -1)
        out: Tensor = self.patch_out(self.norm(h) * (1 + scale) + shift)
        return out

    def _run(self, block: nn.Module, x: Tensor, condition: Tensor, *, over_time: bool = False) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            checkpointed: Tensor = checkpoint(block, x, condition, over_time=over_time, use_reentrant=False)
            return checkpointed
        result: Tensor = block(x, condition, over_time=over_time)
        return result

    def transformer_blocks(self) -> Iterable[nn.Module]:
        """All spatial and temporal blocks, to be compiled one by one."""
        return (*self.blocks, *self.temporal.values())
