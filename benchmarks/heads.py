"""Seconds of `heads-small` for a 50-frame 256 x 256 clip: its own sampler against the paper's recipe.

    python benchmarks/heads.py --weights FILE [--pairs 1]

The paper samples faces with 128 Heun steps and guidance 1.5 in float32 (Table A7). Both samplers draw the same pairs of
`heads-cross` in one run, on the threads of OMP_NUM_THREADS; clips of 25 frames are played forwards and
backwards. What a sampler is worth is the cross error of its output, and its distance from the exact target.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from bcd_bench.assets.weights import resolve_weights
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.types.clip import Clip
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_faces.dense_landmarks.extractor import DenseLandmarks
from bcd_bench_faces.fitting.extractor import FaceMesh
from bcd_bench_faces.metrics.mesh_errors import CrossError
from bcd_bench_fidelity.pixels import psnr

SUITE = "heads-cross"
PAPER = {"sampler": "paper", "solver": "heun", "steps": 128, "guidance": 1.5}


def there_and_back(clip: Clip) -> np.ndarray:
    """50 frames of a clip of 25."""
    return np.concatenate([clip.frames, clip.frames[::-1]])


class CrossErrors:
    """The metric `cross-error`, from frames."""

    def __init__(self) -> None:
        self._points, self._mesh, self._metric = DenseLandmarks(), FaceMesh(), CrossError()
        for part in (self._points, self._mesh, self._metric):
            part.load("cpu")

    def of(self, pair: Pair, **frames: np.ndarray) -> float:
        """In mm2, for uint8 [T, H, W, 3] named `output`, `content` and `motion`; NaN where there is no face."""
        clips = [Clip(shown, 25.0, role) for role, shown in frames.items()]
        fits = self._mesh.extract(clips, {"dense-landmarks": self._points.extract(clips)})
        (row,) = self._metric.score([Scored(pair, clips[0], {"face-mesh": dict(zip(frames, fits, strict=True))})])
        return float(row["cross-error"]) if isinstance(row, Mapping) else float("nan")


def run(
    pairs: list[Pair], weights: Path | None, settings: dict[str, object], errors: CrossErrors
) -> tuple[float, float, float]:
    """Seconds a pair, decoding of the pair's clips left out; mean PSNR to the exact target in dB, and cross error."""
    method = BCDMethod(settings)
    method.load(weights, "cpu")
    spent, quality, cross = 0.0, [], []
    for number, pair in enumerate(pairs):
        content, motion, target = (
            there_and_back(ref.load()) for ref in (pair.content, pair.motion, pair.target) if ref
        )
        began = time.perf_counter()
        output = method.transfer_frames(content, motion, seed=number)
        spent += time.perf_counter() - began
        quality.append(psnr(output, target))
        cross.append(errors.of(pair, output=output, content=content, motion=motion))
    print(f"  {method.sampler.nfe} network evaluations a frame and window")
    return spent / len(pairs), float(np.mean(quality)), float(np.mean(cross))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--weights", required=True, help="a model.safetensors of heads-small")
    options = parser.parse_args()
    registry = load_registry()
    chosen = resolve_weights(registry.method("bcd"), SUITE, options.weights)
    pairs = list(load_suite(registry, SUITE, {}).pairs[: options.pairs])
    found, errors = {}, CrossErrors()
    for name, settings in (("default", {}), ("paper", PAPER)):
        found[name] = run(pairs, chosen.path if chosen else None, dict(settings), errors)
        seconds, quality, cross = found[name]
        print(
            f"{name}: {seconds:.2f} s a clip of 50 frames, {quality:.2f} dB to the target, cross error {cross:.1f} mm2"
        )
    print(f"ratio: {found['paper'][0] / found['default'][0]:.1f} x less time, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
