"""Bitrate-Controlled Diffusion (Sec. 3): encoder, quantiser and decoder together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcd_bench_bcd.paper import edm
from bcd_bench_bcd.paper.config import ModelConfig, SamplerConfig
from bcd_bench_bcd.paper.decoder import VideoDiT
from bcd_bench_bcd.paper.encoder import Encoder
from bcd_bench_bcd.paper.quantizer import GroupVectorQuantizer, Quantized

__all__ = ["BCD"]


class BCD(nn.Module):
    """Separate clips into content c and quantised motion m-hat, and sample clips from both.

    Clips are values z, float32 [B, T, C, h, w]: pixels in [-1, 1], or an autoencoder's latents, see `values`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._build()
        if config.latent is not None:
            for name, value in (("latent_mean", 0.0), ("latent_std", 1.0)):
                self.register_buffer(name, torch.full((config.channels, 1, 1), value))

    def _build(self) -> None:
        config = self.config
        self.encoder: nn.Module = Encoder(config.encoder, config.channels, config.grid)
        self.quantizer = GroupVectorQuantizer(config.quantizer, config.encoder.width)
        self.decoder = VideoDiT(config, config.encoder.width, self.quantizer.out_width)

    def values(self, clips: Tensor) -> Tensor:
        """z of uint8 frames [B, T, H, W, 3], in [-1, 1], or of an autoencoder's latents [B, T, C, h, w], standardised
        per channel over the training set to a standard deviation of sigma_data.
        """
        if self.config.latent is None:
            return clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        return (clips.float() - self.latent_mean) / self.latent_std * self.config.edm.sigma_data

    def latents(self, values: Tensor) -> Tensor:
        """The inverse of `values` for a model of latents."""
        return values.float() / self.config.edm.sigma_data * self.latent_std + self.latent_mean

    def set_latent_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Set mean and standard deviation of the latents' channels over the training set."""
        for name, measured in (("latent_mean", mean), ("latent_std", std)):
            buffer = getattr(self, name)
            buffer.copy_(torch.tensor(measured).view(-1, 1, 1))

    def encode(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """z -> content c [B, K, C_c] and continuous motion m [B, T, C_m] (Sec. 3.1)."""
        content, motion = self.encoder(self.standardized(values))
        return content, motion

    def standardized(self, values: Tensor) -> Tensor:
        """z standardised to a mean of about 0 and a standard deviation of about 1, for the encoder."""
        if self.config.latent is not None:
            return values / self.config.edm.sigma_data
        return (values - self.config.pixel_mean) / self.config.pixel_std

    def encode_content(self, values: Tensor) -> Tensor:
        """z -> content c [B, K, C_c], float32."""
        return self.encode(values)[0].float()

    def encode_motion(self, values: Tensor) -> Quantized:
        """z -> quantised motion (Sec. 3.2); requires eval mode."""
        quantized: Quantized = self.quantizer(self.latents_of_motion(values))
        return quantized

    def latents_of_motion(self, values: Tensor) -> Tensor:
        """z -> continuous motion m [B, T, C_m] alone."""
        return self.encode(values)[1]

    def denoise(
        self,
        patches: Tensor,
        sigma: Tensor,
        content: Tensor,
        motion: Tensor,
        drop_content: Tensor | None = None,
        drop_motion: Tensor | None = None,
    ) -> Tensor:
        """D_theta(x; sigma, m-hat, c): noisy patches [B, T, S, values] -> clean ones. `sigma` and the masks are [B]."""

        def network(x: Tensor, noise: Tensor) -> Tensor:
            out: Tensor = self.decoder(x, noise, content, motion, drop_content, drop_motion)
            return out

        return edm.precondition(network, patches, sigma, self.config.edm)

    def guided(self, x: Tensor, sigma: Tensor, content: Tensor, motion: Tensor, guidance: float) -> Tensor:
        """D_null + w (D_cond - D_null) with w = `guidance`, both in one batch."""
        if guidance == 1.0:
            return self.denoise(x, sigma, content, motion)
        keep = torch.zeros(len(content), dtype=torch.bool, device=content.device)
        drop = torch.cat([keep, ~keep])
        both = self.denoise(
            x.repeat(2, 1, 1, 1), sigma.repeat(2), content.repeat(2, 1, 1), motion.repeat(2, 1, 1), drop, drop
        )
        conditional, null = both.chunk(2)
        return null + guidance * (conditional - null)

    @torch.no_grad()
    def sample(self, content: Tensor, motion: Tensor, sampler: SamplerConfig, noise: Tensor) -> Tensor:
        """Sample z for content c [B, K, C_c] and motion m-hat [B, T, C_m]; `noise` is unit normal [B, T, S, values]."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return self.guided(x, sigma, content, motion, sampler.guidance)

        return self.decoder.unpatchify(edm.sample(denoise, noise, sampler))

    def noise_shape(self, frames: int) -> tuple[int, int, int]:
        """Shape of one clip's noise for `sample`: [T, S, values]."""
        return frames, self.decoder.patch_count, self.decoder.patch_values
