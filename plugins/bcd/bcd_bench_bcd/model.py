"""BCD: encoder, quantiser and decoder together; encode, transfer, reconstruct; save and load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcd_bench.errors import UsageError
from bcd_bench.training import save_tensors
from bcd_bench.weight_files import read_weight_file
from bcd_bench_bcd.configs import ModelConfig, SamplerConfig
from bcd_bench_bcd.decoder import Placed, VideoDiT
from bcd_bench_bcd.diffusion import precondition, sample
from bcd_bench_bcd.encoder import DisentangleEncoder
from bcd_bench_bcd.quantizer import GroupVectorQuantizer, Quantized
from bcd_bench_bcd.randomness import Source, as_draws
from bcd_bench_bcd.windows import blended, shares

__all__ = ["BACKGROUND", "BCD", "Encoding", "load_model", "save_model", "to_frames", "to_unit"]

FORMAT = "bcd-1"
PIXEL_MEAN, PIXEL_STD = -0.8, 0.45
"""About the mean and spread of sprite pixels in [-1, 1]; the linear map behind absorbs the rest."""
BACKGROUND = -1.0
"""The value of patches that are not drawn: black."""

STEP = 1.0
"""Grid of rounded content, in standard deviations of its channel: rounding errs by a twelfth of the noise power."""


def to_unit(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] -> float32 [B, T, 3, H, W] in [-1, 1]."""
    return frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1


def to_frames(values: Tensor) -> Tensor:
    """float [B, T, 3, H, W] in [-1, 1] -> uint8 [B, T, H, W, 3], rounded and clipped."""
    return ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 1, 3, 4, 2)


@dataclass
class Encoding:
    """A clip taken apart: content [B, K, C_c], motion latents [B, T, C_m] before quantisation, and quantised motion."""

    content: Tensor
    latents: Tensor
    quantized: Quantized


class ContentBottleneck(nn.Module):
    """Ours: content tokens as Gaussians of few channels, whose information has a price (Alemi et al. 2017).

    Both halves of a clip show the same action, so nothing in the paper's loss stops content from naming it too. A
    price on content does: what the motion code says for free is not paid for twice.
    """

    def __init__(self, tokens: int, width: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 2 * dim)
        nn.init.zeros_(self.head.weight[dim:])
        nn.init.constant_(self.head.bias[dim:], -4.0)  # starts nearly noiseless, so that content is learned first
        self.register_buffer("center", torch.zeros(tokens, dim))
        self.register_buffer("step", torch.zeros(tokens, dim))

    def mean(self, tokens: Tensor) -> Tensor:
        """[B, K, width] -> float32 [B, K, dim]."""
        return self.gaussian(tokens)[0]

    def rounded(self, mean: Tensor) -> Tensor:
        """Means [B, K, dim] on the grid that `calibrate` has set; as they are before that.

        What lies below the noise that the decoder was trained with is no information it paid for, yet a classifier
        could read it. Channels that carry nothing fall on their center.
        """
        levels = ((mean - self.center) / self.step.clamp_min(1e-12)).round()
        return torch.where(self.step > 0, self.center + self.step * levels, mean)

    @torch.no_grad()
    def calibrate(self, tokens: Tensor) -> None:
        """Set the grid from the content of many clips, [B, K, width]: steps of `STEP` mean standard deviations."""
        mean, log_variance = self.gaussian(tokens)
        self.center.copy_(mean.mean(0))
        self.step.copy_(STEP * (0.5 * log_variance).exp().mean(0))

    def gaussian(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the channels, float32 [B, K, dim] each."""
        mean, log_variance = self.head(tokens).float().chunk(2, -1)
        return mean, log_variance.clamp(-10, 4)

    def sample(self, tokens: Tensor, draws: Source) -> tuple[Tensor, Tensor]:
        """A sample [B, K, dim], and its rate: KL to the unit normal in nats, mean over clips."""
        mean, log_variance = self.gaussian(tokens)
        noise = as_draws(draws).normal(*mean.shape, device=mean.device).to(mean)
        nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2)).mean()
        return mean + (0.5 * log_variance).exp() * noise, nats


class BCD(nn.Module):
    """Bitrate-Controlled Diffusion (Sec. 3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = DisentangleEncoder(config.encoder, config.channels, config.grid, config.canvas)
        self.bottleneck = None
        content_width = config.encoder.width
        if config.encoder.content_dim is not None:
            content_width = config.encoder.content_dim
            self.bottleneck = ContentBottleneck(config.encoder.content_tokens, config.encoder.width, content_width)
        self.content_width = content_width
        """Channels of the content tokens, before those of the canvas."""
        self.quantizer = GroupVectorQuantizer(config.quantizer, config.encoder.width)
        self.decoder = VideoDiT(config, content_width, self.quantizer.out_width)

        if config.latent is not None:
            measured = (config.latent.mean or (0.0,) * config.channels, config.latent.std or (1.0,) * config.channels)
            for name, values in zip(("latent_mean", "latent_std"), measured, strict=True):
                self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def values(self, clips: Tensor) -> Tensor:
        """What the model works on, float32 [B, T, C, h, w]: uint8 frames [B, T, H, W, 3] in [-1, 1], or an
        autoencoder's latents [B, T, C, h, w] standardised to a spread of sigma_data.
        """
        if self.config.latent is None:
            return to_unit(clips)
        return (clips.float() - self.latent_mean) / self.latent_std * self.config.diffusion.sigma_data

    def latents(self, values: Tensor) -> Tensor:
        """The inverse of `values` for a model of latents."""
        return values.float() / self.config.diffusion.sigma_data * self.latent_std + self.latent_mean

    def features(self, values: Tensor, *, canvas: bool = True) -> tuple[Tensor, Tensor]:
        """`values` [B, T, C, h, w] of clips -> content tokens [B, K, width] and continuous motion [B, T, C_m].

        Where there is a canvas, its channels follow those of the tokens, unless it is not wanted.
        """
        if self.config.latent is not None:
            return self.encoder(values / self.config.diffusion.sigma_data, canvas=canvas)
        return self.encoder((values - PIXEL_MEAN) / PIXEL_STD, canvas=canvas)

    def encode(self, values: Tensor) -> Encoding:
        """Take clips (as `values` gives them) apart with the codes inference uses (call in eval mode).

        Any number of frames: with a `window`, motion of longer clips comes from overlapping windows, and content is the
        mean over shares of the frames.
        """
        if self._windowed(values):
            content, latents = self._mean_content(values), self._latents(values)
        else:
            tokens, latents = self.features(values)
            content = self._content(tokens)
        if self.bottleneck is not None:
            content = self.bottleneck.rounded(content)
        return Encoding(content, latents.float(), self.quantizer(latents))

    def encode_content(self, frames: Tensor) -> Tensor:
        """The content of `encode` alone, [B, K, C_c], where motion is not wanted."""
        content = self._mean_content(frames)
        return content if self.bottleneck is None else self.bottleneck.rounded(content)

    def encode_motion(self, values: Tensor) -> Quantized:
        """The quantised motion of `encode` alone, where content is not wanted."""
        return self.quantizer(self._latents(values))

    def _windowed(self, values: Tensor) -> bool:
        return self.config.window is not None and values.shape[1] > self.config.window

    def _latents(self, values: Tensor) -> Tensor:
        """Continuous motion [B, T, C_m] of clips of any length."""
        if not self._windowed(values):
            return self.features(values, canvas=False)[1]
        assert self.config.window is not None
        return blended(
            values.shape[1], self.config.window, lambda here: self.features(values[:, here], canvas=False)[1]
        )

    def _content(self, tokens: Tensor) -> Tensor:
        return tokens.float() if self.bottleneck is None else self.bottleneck.mean(tokens)

    def _mean_content(self, frames: Tensor) -> Tensor:
        """Content before rounding, the mean over shares of the frames, each by its number of frames."""
        total, count = frames.new_zeros(()), frames.shape[1]
        for share in shares(count, self.config.window):
            some = frames[:, share]
            total = total + self._content(self.features(some)[0]) * (some.shape[1] / count)
        return total

    def denoise(
        self,
        patches: Tensor,
        sigma: Tensor,
        content: Tensor,
        motion: Tensor,
        drop_content: Tensor | None = None,
        drop_motion: Tensor | None = None,
        places: Tensor | None = None,
        placed: Placed | None = None,
    ) -> Tensor:
        """D_theta(x; sigma, m-hat, c) on the drawn patches [B, T, S, values], or on those at `places` (int [S]).

        `placed` is what `place` says of the same content and motion, where it is at hand.
        """
        if placed is None:
            placed = self.place(content, motion)
        tokens = content[..., : self.content_width]

        def network(x: Tensor, noise: Tensor) -> Tensor:
            return self.decoder(x, noise, tokens, motion, drop_content, drop_motion, places, placed)

        return precondition(network, patches, sigma, self.config.diffusion)

    def place(self, content: Tensor, motion: Tensor) -> Placed | None:
        """The canvas in the content [B, K, C_c], moved by motion [B, T, C_m]; None for models without."""
        if self.config.canvas is None:
            return None
        return self.decoder.place(content[..., self.content_width :], content[..., : self.content_width], motion)

    @torch.no_grad()
    def decode(self, content: Tensor, motion: Tensor, sampler: SamplerConfig, noise: Tensor) -> Tensor:
        """Sample values [B, T, C, h, w] for content [B, K, C_c] and quantised motion [B, T, C_m].

        `noise` is unit normal [B, T, S, values]; with guidance w, D = D_null + w (D_cond - D_null), both in one batch.
        Clips longer than the model's `window` are denoised in overlapping windows, blended at every evaluation.
        """
        keep = torch.zeros(len(content), dtype=torch.bool, device=content.device)

        def guided(x: Tensor, sigma: Tensor, motion: Tensor) -> Tensor:
            if sampler.guidance == 1.0:
                return self.denoise(x, sigma, content, motion)
            drop = torch.cat([keep, ~keep])
            both = self.denoise(
                x.repeat(2, 1, 1, 1), sigma.repeat(2), content.repeat(2, 1, 1), motion.repeat(2, 1, 1), drop, drop
            )
            conditional, null = both.chunk(2)
            return null + sampler.guidance * (conditional - null)

        def whole(x: Tensor, sigma: Tensor) -> Tensor:
            # One estimate of the clean clip from all windows: the sampler never sees a window's border.
            return blended(x.shape[1], self.config.window, lambda here: guided(x[:, here], sigma, motion[:, here]))

        patches = sample(whole, noise, sampler)
        return self.decoder.unpatchify(patches, BACKGROUND)

    def noise_shape(self, frames: int) -> tuple[int, int, int]:
        """Shape of one clip's noise for `decode`: [T, S, values]."""
        values = self.config.channels * self.config.decoder.patch**2
        return frames, len(self.decoder.drawn), values


SCALE = ".int8_scale"
"""Suffix under which the row scales of a compressed matrix are stored."""


def save_model(path: Path, model: BCD, extra: dict[str, Any], *, compress: bool = False) -> None:
    """Write `path` (safetensors) with the config and `extra` as JSON in its header, atomically.

    `compress` stores every matrix as int8 with one scale a row, for shipping: a quarter of the size, and an error of
    at most 1/254 of the row's largest weight.
    """
    state = {}
    for name, value in model.state_dict().items():
        if compress and value.is_floating_point() and value.ndim >= 2:
            row = (1, 2, 3) if value.ndim == 4 else (-1,)  # of a convolution: what makes one output channel
            scale = value.float().abs().amax(row, keepdim=True).clamp_min(1e-12) / 127
            state[name] = (value.float() / scale).round().to(torch.int8)
            state[name + SCALE] = scale
        else:
            state[name] = value.contiguous()
    metadata = {"format": FORMAT, "config": model.config.model_dump_json(), "extra": json.dumps(extra, sort_keys=True)}
    save_tensors(path, state, metadata)


def load_model(path: Path, device: str = "cpu") -> tuple[BCD, dict[str, Any]]:
    """Read a file written by `save_model`: the model in eval mode and its `extra`.

    Raises `UsageError` for anything that is not such a file (truncated, a pickle, another architecture).
    """
    from pydantic import ValidationError

    metadata, found = read_weight_file(path, form=FORMAT, what="BCD", maker="bcd-bench train bcd")
    stored = {name: value.float() for name, value in found.items()}
    scales = {name: stored.pop(name) for name in list(stored) if name.endswith(SCALE)}
    state = {name: value * scales[name + SCALE] if name + SCALE in scales else value for name, value in stored.items()}
    try:
        model = BCD(ModelConfig.model_validate_json(metadata["config"]))
        model.load_state_dict(state)
    except (KeyError, ValidationError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{path.name}: weights and configuration do not fit: {line}") from None
    return model.to(device).eval(), json.loads(metadata.get("extra", "{}"))
