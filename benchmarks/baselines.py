"""Seconds a frame of the native baselines: eager float32, bfloat16 and compiled, at batch 1 and 16, and their error.

    python benchmarks/baselines.py [--methods fomm,mcnet] [--paths float32,bfloat16,compiled,compiled-bfloat16]
        [--batches 1,16] [--device cpu] [--threads 1] [--repeat 1]

Every method of the registry that can be run with seeded weights is measured, in one process: speed does not depend on
the weights. Each way is run on the same clip of 256 x 256 after a warm-up, and its outputs are compared with those of
eager float32. Times are processor seconds on a CPU (wall times depend on who else is there) and wall seconds on a GPU.
What the original takes is quoted, not measured here.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from bcd_bench import Clip, Pair
from bcd_bench.clips import ClipRef
from bcd_bench.plugins import Registry, load_registry
from bcd_bench.specs import Method, load_factory

SIDE = 256
SEED = 1001
UPSTREAM = {"fomm": 1.12, "mcnet": 4.03, "lia": 2.67, "liveportrait": 14.8}
"""Processor seconds a frame of the original code, batch 1, one thread of a two-core machine shared with other work,
torch 2.14.1: keypoints (or encoders) of the driving frame and the generator; LIA encodes its source every time."""
WITHOUT_FACES: dict[str, dict[str, Any]] = {"liveportrait": {"crop": False}}
"""Settings with which a method takes pictures that show no face."""
PATHS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "compiled": {"compile": True},
    "compiled-bfloat16": {"compile": True, "dtype": "bfloat16"},
}


class InMemory:
    """A clip that is there already."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def load(self) -> Clip:
        return self.clip

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory"}


def pair_of(frames: int) -> Pair:
    """Smooth random textures that drift, since no face is needed."""
    rng = np.random.default_rng(SEED)
    rows, columns = np.mgrid[0 : 2 * np.pi : SIDE * 1j, 0 : 2 * np.pi : SIDE * 1j]
    waves = rng.uniform([0.5, -2, 0], [3, 2, 2 * np.pi], (3, 4, 3))  # channel, wave: frequency, slant, phase

    def picture(t: float) -> np.ndarray:
        channels = [sum(np.sin(f * (rows + s * columns) + p + t) for f, s, p in channel) for channel in waves]
        return np.clip(128 + 28 * np.stack(channels, -1), 0, 255).astype(np.uint8)

    def clip(count: int, start: float) -> Clip:
        return Clip(np.stack([picture(start + 0.1 * t) for t in range(count)]), 25.0)

    clips = clip(1, 0.0), clip(frames, 2.0)
    content, motion = (ClipRef(name, InMemory(clip)) for name, clip in zip(("content", "motion"), clips, strict=True))
    return Pair("pair", content, motion)


def load(registry: Registry, name: str, batch: int, device: str, changes: dict[str, Any]) -> Method:
    spec = registry.get("methods", name)
    config = {**spec.config, spec.seeded_by: SEED, "batch_frames": batch, **WITHOUT_FACES.get(name, {}), **changes}
    method: Method = load_factory(spec.factory)(config)
    method.load(None, device)
    return method


def measured(method: Method, pair: Pair, device: str, repeat: int) -> tuple[float, np.ndarray]:
    """The least seconds a frame over `repeat` clips, and the frames."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    best, frames = float("inf"), np.zeros(0)
    for _ in range(repeat):
        started = clock()
        [clip] = method.transfer([pair], seed=0)  # the frames are on the CPU then, so a GPU is done
        if not isinstance(clip, Clip):
            raise SystemExit(f"the pair failed: {clip.reason}")
        best, frames = min(best, clock() - started), clip.frames
    return best / len(frames), frames


def main() -> None:
    registry = load_registry()
    known = [name for name, spec in registry.methods.items() if spec.seeded_by and "batch_frames" in spec.config]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(sorted(known)))
    parser.add_argument("--paths", default=",".join(PATHS))
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--frames", type=int, help="frames of the clip; default: 4 at batch 1, else the batch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = torch.cuda.get_device_name() if given.device.startswith("cuda") else f"{given.threads} threads"
    print(f"torch {torch.__version__}, {given.device}, {model}; seconds a frame")
    for name in given.methods.split(","):
        for batch in map(int, given.batches.split(",")):
            pair = pair_of(given.frames or (4 if batch == 1 else batch))
            reference: tuple[float, np.ndarray] | None = None
            for path in dict.fromkeys(["float32", *given.paths.split(",")]):  # the others are compared with the first
                method = load(registry, name, batch, given.device, PATHS[path])
                measured(method, pair_of(1), given.device, 1)
                seconds, frames = measured(method, pair, given.device, given.repeat)
                reference = reference or (seconds, frames)
                difference = np.abs(frames.astype(np.int16) - reference[1])
                upstream = ""
                if given.device == "cpu" and batch == 1 and name in UPSTREAM:
                    upstream = f", the original {UPSTREAM[name]:.2f} ({UPSTREAM[name] / seconds:.2f} x)"
                print(
                    f"{name:<13} batch {batch:<3} {path:<18} {seconds:8.4f}  {reference[0] / seconds:5.2f} x float32  "
                    f"error {difference.mean():.3f} grey levels, at most {difference.max()}{upstream}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
