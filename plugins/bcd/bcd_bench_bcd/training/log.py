"""log.jsonl of a training run: a line of means by name every few steps, and a sentence for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bcd_bench.atomic import append_jsonl

__all__ = ["append_means", "means_of", "sentence"]


def means_of(window: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every name over the steps that have it, in the order of their first appearance."""
    sums: dict[str, list[float]] = {}
    for values in window:
        for name, value in values.items():
            sums.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sums.items()}


def append_means(path: Path, window: Sequence[Mapping[str, float]], step: int, tau: float) -> dict[str, float]:
    """Append the means of the steps in `window` as a line of `path`; returns them. `tau` is that of the last step."""
    means = means_of(window)
    append_jsonl(path, [{"step": step, **means, "tau": tau}])
    return means


def sentence(step: int, means: Mapping[str, float], rate: float) -> str:
    """What a terminal shows of a line of the log; `rate` is in clips per second."""
    parts = [
        f"diffusion {means['diffusion']:.4f}",
        f"{means['bits']:.2f} bits per frame ({means['conditional_bits']:.2f} undecided)",
    ]
    if "content_bits" in means:
        parts.append(f"content {means['content_bits']:.1f} bits")
    for name, what in (("content_contribution", "content"), ("motion_contribution", "motion")):
        if name in means:
            parts.append(f"{what} contributes {means[name]:.0%}")
    parts += [f"gradient norm {means['gradient_norm']:.2f}", f"{rate:.1f} clips/s"]
    return f"step {step}: " + ", ".join(parts)
