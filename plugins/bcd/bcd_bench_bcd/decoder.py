"""The denoising decoder (Sec. 3.3): a DiT over the patches of every frame, told noise level, motion and content.

Spatial blocks attend within a frame, temporal blocks over the frames at one place. Motion enters with the noise level
through adaptive layer norm (eq. 13), content by concatenation with the noisy input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bcd_bench_bcd.canvas import CanvasReader
from bcd_bench_bcd.configs import ModelConfig

__all__ = ["Placed", "VideoDiT"]


def sinusoid(positions: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sine-cosine features [..., width] of real positions [...]."""
    frequencies = torch.exp(-math.log(longest) * torch.arange(width // 2, device=positions.device) / (width // 2))
    angles = positions[..., None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D positions [rows * columns, width], half the channels for each axis."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([sinusoid(row.flatten(), width // 2), sinusoid(column.flatten(), width // 2)], -1)


def rotated(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): pairs of channels of x [..., L, width] turned by angles that grow along L."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    first, second, rest = x.float().split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], -1).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention. On CPUs and for short sequences, plain matrix products beat the fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, *, rotary: bool = False) -> Tensor:
        """`x` [B, L, width]. With `rotary`, attention depends on how far apart two places in L are."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if rotary:
            q, k = rotated(q), rotated(k)
        if x.device.type == "cpu" and length <= 128:
            weights = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
            y = weights.softmax(-1).to(v.dtype) @ v
        else:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class DiTBlock(nn.Module):
    """Attention and feed-forward, each modulated by the condition and gated (adaLN-Zero: it starts as the identity)."""

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
        """`x` [B, T, S, width], `condition` [B, T, width]. Attends over S, or over T at each of the S places."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, :, None].chunk(6, -1)
        h = self.norm1(x) * (1 + scale1) + shift1
        if over_time:
            h = h.transpose(1, 2)
        h = self.attention(h.flatten(0, 1), rotary=self.rotary).view(h.shape)
        if over_time:
            h = h.transpose(1, 2)
        x = x + gate1 * h
        return x + gate2 * self.feed_forward(self.norm2(x) * (1 + scale2) + shift2)


@dataclass
class Placed:
    """The canvas where a driver's frames want it: `features` [B, T, S, canvas width] of the drawn patches, and their
    `picture` [B, T, S, values]."""

    features: Tensor
    picture: Tensor

    def at(self, places: Tensor | None) -> Placed:
        """Of these of the drawn patches alone."""
        return self if places is None else Placed(self.features[:, :, places], self.picture[:, :, places])

    def without(self, dropped: Tensor) -> Placed:
        """Nothing where the bool [B] is true."""
        keep = ~dropped[:, None, None, None]
        return Placed(self.features * keep, self.picture * keep)


class VideoDiT(nn.Module):
    """F_theta(x; c_noise, m-hat, c) in EDM's notation."""

    def __init__(self, config: ModelConfig, content_width: int, motion_width: int) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        """Compute blocks again in the backward pass instead of keeping them: a third more work, far less memory."""
        decoder, (height, width) = config.decoder, config.grid
        self.rows, self.columns = height // decoder.patch, width // decoder.patch
        values = config.channels * decoder.patch**2
        d = decoder.width
        drawn = config.drawn_patches if config.drawn_patches is not None else range(self.rows * self.columns)
        self.register_buffer("drawn", torch.tensor(list(drawn)), persistent=False)
        self.register_buffer("positions", grid_positions(self.rows, self.columns, d)[self.drawn], persistent=False)
        self.canvas = None
        if config.canvas is not None:
            places = self.rows, self.columns
            self.canvas = CanvasReader(
                config.canvas, config.channels, motion_width, content_width, places, decoder.patch
            )
            self.canvas_in = nn.Linear(self.canvas.width, d, bias=False)
        # Null conditions for classifier-free guidance.
        self.null_content = nn.Parameter(torch.randn(config.encoder.content_tokens, content_width) * 0.02)
        self.null_motion = nn.Parameter(torch.randn(motion_width) * 0.02)
        if decoder.content == "channels":
            if config.encoder.content_tokens != len(self.drawn):
                raise ValueError(
                    f"content='channels' needs one content token per drawn patch: {len(self.drawn)}, "
                    f"not {config.encoder.content_tokens}"
                )
            self.patch_in = nn.Linear(values + content_width + decoder.motion_map, d)
        else:
            self.patch_in = nn.Linear(values + decoder.motion_map, d)
            self.content_in = nn.Linear(content_width, d)
            self.content_type = nn.Parameter(torch.randn(config.encoder.content_tokens, d) * 0.1)
        self.noise_in = nn.Sequential(nn.Linear(128, d), nn.SiLU(), nn.Linear(d, d))
        self.motion_in = nn.Linear(motion_width, d)
        self.motion_map = None
        if decoder.motion_map:
            self.motion_map = nn.Linear(motion_width, len(self.drawn) * decoder.motion_map)
        self.blocks = nn.ModuleList([DiTBlock(d, decoder.heads) for _ in range(decoder.depth)])
        rotary = decoder.time_positions == "rotary"
        self.temporal = nn.ModuleDict(
            {str(i): DiTBlock(d, decoder.heads, rotary=rotary) for i in decoder.temporal_blocks}
        )
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(d, 2 * d)
        self.patch_out = nn.Linear(d, values + (decoder.patch**2 if self.canvas is not None else 0))
        for layer in (self.modulation, self.patch_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _run(self, block: nn.Module, x: Tensor, condition: Tensor, *, over_time: bool = False) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            kept: Tensor = checkpoint(block, x, condition, over_time=over_time, use_reentrant=False)
            return kept
        result: Tensor = block(x, condition, over_time=over_time)
        return result

    def patchify(self, frames: Tensor) -> Tensor:
        """[B, T, C, H, W] -> the drawn patches [B, T, S, C * p * p]."""
        (b, t, c), p = frames.shape[:3], self.config.decoder.patch
        patches = frames.reshape(b, t, c, self.rows, p, self.columns, p).permute(0, 1, 3, 5, 2, 4, 6)
        return patches.reshape(b, t, self.rows * self.columns, c * p * p)[:, :, self.drawn]

    def unpatchify(self, patches: Tensor, background: float) -> Tensor:
        """The inverse of `patchify`; places that are not drawn become `background`."""
        (b, t), p, c = patches.shape[:2], self.config.decoder.patch, self.config.channels
        whole = patches.new_full((b, t, self.rows * self.columns, c * p * p), background)
        whole[:, :, self.drawn] = patches
        whole = whole.view(b, t, self.rows, self.columns, c, p, p).permute(0, 1, 4, 2, 5, 3, 6)
        return whole.reshape(b, t, c, self.rows * p, self.columns * p)

    def place(self, canvas: Tensor, content: Tensor, motion: Tensor) -> Placed:
        """The canvas [B, K, canvas width], moved by the motion [B, T, motion_width] of every frame."""
        assert self.canvas is not None
        features, picture = self.canvas(canvas, content, motion)
        return Placed(features[:, :, self.drawn], self.patchify(picture))

    def forward(
        self,
        patches: Tensor,
        noise: Tensor,
        content: Tensor,
        motion: Tensor,
        drop_content: Tensor | None = None,
        drop_motion: Tensor | None = None,
        places: Tensor | None = None,
        placed: Placed | None = None,
    ) -> Tensor:
        """Scaled noisy patches [B, T, S, values] -> network output of the same shape.

        `noise` is c_noise [B]; `content` [B, K, content_width]; `motion` [B, T, motion_width]; the bool masks [B]
        replace a sample's condition by the learned null. With `places` (int [S]), `patches` holds only these of the
        drawn patches. A model with a canvas wants it `placed`, for all drawn patches.
        """
        if placed is not None:
            placed = placed.at(places)
            for drop in (drop_content, drop_motion):
                placed = placed if drop is None else placed.without(drop)
        if drop_content is not None:
            content = torch.where(drop_content[:, None, None], self.null_content.to(content.dtype), content)
        if drop_motion is not None:
            motion = torch.where(drop_motion[:, None, None], self.null_motion.to(motion.dtype), motion)
        condition = self.noise_in(sinusoid(100.0 * noise, 128))[:, None] + self.motion_in(motion)
        condition = nn.functional.silu(condition)  # [B, T, d]
        frames = patches.shape[1]
        positions = self.positions if places is None else self.positions[places]
        inputs = [patches.to(content.dtype)]
        if self.config.decoder.content == "channels":
            own = content if places is None else content[:, places]
            inputs.append(own[:, None].expand(-1, frames, -1, -1))
        if self.motion_map is not None:
            mapped = self.motion_map(motion).view(*motion.shape[:2], len(self.drawn), -1)
            inputs.append((mapped if places is None else mapped[:, :, places]).to(content.dtype))
        h = self.patch_in(torch.cat(inputs, -1))
        h = h + positions.to(h.dtype)
        if placed is not None:
            h = h + self.canvas_in(placed.features)
        if self.config.decoder.content == "tokens":
            tokens = (self.content_in(content) + self.content_type).to(h.dtype)
            h = torch.cat([tokens[:, None].expand(-1, frames, -1, -1), h], 2)
        extra = h.shape[2] - patches.shape[2]
        for index, block in enumerate(self.blocks):
            h = self._run(block, h, condition)
            if str(index) in self.temporal:
                drawn = self._run(self.temporal[str(index)], h[:, :, extra:], condition, over_time=True)
                h = torch.cat([h[:, :, :extra], drawn], 2) if extra else drawn
        shift, scale = self.modulation(condition)[:, :, None].chunk(2, -1)
        out = self.patch_out(self.norm(h[:, :, extra:]) * (1 + scale) + shift)
        if placed is None:
            return out
        out, shown = out.float().split([patches.shape[-1], out.shape[-1] - patches.shape[-1]], -1)
        # An untrained transformer shows the picture as it is (98 %) and adds nothing.
        return out + (shown + 4).sigmoid().repeat(1, 1, 1, self.config.channels) * placed.picture
