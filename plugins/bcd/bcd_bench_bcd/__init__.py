"""BCD (Bitrate-Controlled Diffusion) for bcd-bench."""

__version__ = "0.1.0"
