"""Log lines of training as text."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["sentence"]


def sentence(means: Mapping[str, float], rate: float) -> str:
    """Terminal text for a line of the log; `rate` is in clips per second."""
    parts = [
        f"diffusion {means['diffusion']:.4f}",
        f"{means['bits']:.2f} bits per frame ({means['conditional_bits']:.2f} undecided)",
    ]
    if "content_bits" in means:
        parts.append(f"content {means['content_bits']:.1f} bits")
    for name, condition in (("content_contribution", "content"), ("motion_contribution", "motion")):
        if name in means:
            parts.append(f"{condition} contributes {means[name]:.0%}")
    parts += [f"gradient norm {means['gradient_norm']:.2f}", f"{rate:.1f} clips/s"]
    return ", ".join(parts)
