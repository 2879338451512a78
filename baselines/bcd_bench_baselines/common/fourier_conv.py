"""A convolution with a large kernel, by Fourier transforms of overlapping tiles ("overlap-save")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FourierConv3d"]

TILE = 22
"""Rows and columns of a tile; with a kernel of 7 each tile has 16 output rows, so that 64 rows need four tiles."""


class FourierConv3d(nn.Conv3d):
    """A convolution of volumes [B, C_in, D, H, W] with a cubic kernel and the same output size, in float32 from the sum
    on.

    When folded on a CPU, products are computed between spectra: with a kernel of 7 x 7 x 7 and many channels this takes
    a small fraction of the 343 products per value, with float32 rounding. The depth is transformed as a whole, rows and
    columns in tiles.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2)
        self.reach = kernel // 2
        self.spectra: dict[int, Tensor] | None = None

    def fold(self) -> None:
        """Enable the Fourier transform; the kernel's spectrum is cached for every depth."""
        self.spectra = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.spectra is None or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x).float()
        with torch.autocast("cpu", enabled=False):
            return torch.stack([self._convolved(volume) for volume in x.float()])  # one by one: tiles are large

    def _convolved(self, volume: Tensor) -> Tensor:
        """[C_in, D, H, W] -> [C_out, D, H, W]."""
        depth, height, width = volume.shape[1:]
        step, long = TILE - 2 * self.reach, depth + 2 * self.reach
        rows, columns = -(-height // step), -(-width // step)
        right, below = columns * step - width, rows * step - height
        reach = self.reach
        padded = F.pad(volume, (reach, reach + right, reach, reach + below, reach, reach))
        tiles = padded.unfold(2, TILE, step).unfold(3, TILE, step).permute(2, 3, 0, 1, 4, 5).flatten(0, 1)
        spectrum = torch.fft.rfftn(tiles, dim=(-3, -2, -1))  # [tile, C_in, *frequency]
        product = spectrum.flatten(2).permute(2, 0, 1) @ self._spectrum(long)  # [frequency, tile, C_out]
        product = product.permute(1, 2, 0).unflatten(2, spectrum.shape[2:])
        sums = torch.fft.irfftn(product, s=(long, TILE, TILE), dim=(-3, -2, -1))[..., :depth, :step, :step]
        laid = sums.unflatten(0, (rows, columns)).permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)
        assert self.bias is not None, "it has a bias"
        return laid[..., :height, :width] + self.bias[:, None, None, None]

    def _spectrum(self, long: int) -> Tensor:
        """Spectrum complex[frequency, C_in, C_out] of the kernel for tiles of a depth."""
        assert self.spectra is not None, "requires fold()"
        if long not in self.spectra:
            # conjugate, since networks compute correlations: the sum over k of w[k] x[p + k]
            kernel = torch.fft.rfftn(self.weight, s=(long, TILE, TILE), dim=(-3, -2, -1)).conj()
            self.spectra[long] = kernel.flatten(2).permute(2, 1, 0).resolve_conj().contiguous()
        return self.spectra[long]
