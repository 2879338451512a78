"""Seconds of `heads-small` for a 50-frame 256 x 256 clip: its own sampler against the paper's recipe.

    python benchmarks/heads.py --weights FILE [--pairs 1]

The paper samples faces with 128 Heun steps and guidance 1.5 in float32 (Table A7). Both samplers draw the same pairs of
`heads-cross` in one run, on the threads of OMP_NUM_THREADS; clips of 25 frames are played forwards and
backwards. What a sampler is worth is the distance of its output from the exact target.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from bcd_bench.clips import Clip, Pair
from bcd_bench.plan import load_suite
from bcd_bench.plugins import load_registry
from bcd_bench.weights import resolve_weights
from bcd_bench_bcd.method import BCDMethod
from bcd_bench_fidelity.pixels import psnr

SUITE = "heads-cross"
PAPER = {"sampler": "paper", "solver": "heun", "steps": 128, "guidance": 1.5}


def there_and_back(clip: Clip) -> np.ndarray:
    """50 frames of a clip of 25."""
    return np.concatenate([clip.frames, clip.frames[::-1]])


def run(pairs: list[Pair], weights: Path | None, settings: dict[str, object]) -> tuple[float, float]:
    """Seconds a pair and mean PSNR to the exact target in dB, decoding of the pair's clips left out."""
    method = BCDMethod(settings)
    method.load(weights, "cpu")
    spent, quality = 0.0, []
    for number, pair in enumerate(pairs):
        content, motion, target = (
            there_and_back(ref.load()) for ref in (pair.content, pair.motion, pair.target) if ref
        )
        began = time.perf_counter()
        output = method.transfer_frames(content, motion, seed=number)
        spent += time.perf_counter() - began
        quality.append(psnr(output, target))
    print(f"  {method.sampler.nfe} network evaluations a frame and window")
    return spent / len(pairs), float(np.mean(quality))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--weights", required=True, help="a model.safetensors of heads-small")
    options = parser.parse_args()
    registry = load_registry()
    chosen = resolve_weights(registry.get("methods", "bcd"), SUITE, options.weights)
    pairs = list(load_suite(registry, SUITE, {}).pairs[: options.pairs])
    found = {}
    for name, settings in (("default", {}), ("paper", PAPER)):
        found[name] = run(pairs, chosen.path if chosen else None, dict(settings))
        print(f"{name}: {found[name][0]:.2f} s a clip of 50 frames, {found[name][1]:.2f} dB to the exact target")
    print(f"ratio: {found['paper'][0] / found['default'][0]:.1f} x less time, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
