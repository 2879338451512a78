"""Fidelity metrics for bcd-bench: FID, KID, PSNR, SSIM, temporal flicker, and a Frechet distance that works offline."""

__version__ = "0.1.0"
