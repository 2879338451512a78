"""Seconds a frame of the native baselines: eager float32, bfloat16 and compiled, at batch 1 and 16, and their error.

    python benchmarks/baselines.py [--methods fomm,mcnet] [--paths float32,bfloat16,compiled,compiled-bfloat16]
        [--batches 1,16] [--frames 4] [--device auto] [--threads 1] [--repeat 1] [--operations]

Every method of the registry that can be run with seeded weights is measured, in one process: speed does not depend on
the weights. Of `hyperreenact`, which is measured when named, it is its networks (appearance, pose, hypernetwork,
generator) in float32, with the weights they are made with. Each way is run on the same clip of 256 x 256 after a
warm-up, and its outputs are compared with those of eager float32. Times are processor seconds on a CPU (wall times
depend on who else is there) and wall seconds on a GPU.
What the original takes is quoted, not measured here. `--operations` makes one more clip of each way to count its
multiplications and additions in convolutions and matrix products (those of Fourier transforms are not counted, and
nothing of a compiled one), and tells what share of the rate of a large matrix product they come to.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bcd_bench import Clip, Pair
from bcd_bench.plugin.base import Method
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.registry import Registry, load_registry
from bcd_bench.types.clip import ClipRef
from bcd_bench.util.devices import DEVICES, resolve_device

SIDE = 256
SEED = 1001
UPSTREAM = {"fomm": 1.12, "mcnet": 4.03, "lia": 2.67, "liveportrait": 14.8}
"""Processor seconds a frame of the original code, batch 1, one thread of a two-core machine shared with other work,
torch 2.14.1: keypoints (or encoders) of the driving frame and the generator; LIA encodes its source every time."""
UPSTREAM_HYPERREENACT = 7.22
"""The same of HyperReenact's networks, its appearance encoder for every frame, but with two threads."""
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


def load(registry: Registry, name: str, batch: int, device: torch.device, changes: dict[str, Any]) -> Method:
    spec = registry.method(name)
    config = {**spec.config, spec.seeded_by: SEED, "batch_frames": batch, **WITHOUT_FACES.get(name, {}), **changes}
    method: Method = load_factory(spec.factory)(config)
    method.load(None, str(device))
    return method


def measured(method: Method, pair: Pair, device: torch.device, repeat: int) -> tuple[float, np.ndarray]:
    """The least seconds a frame over `repeat` clips, and the frames."""
    seconds, [clip] = least(lambda: list(method.transfer([pair], seed=0)), device, repeat)
    if not isinstance(clip, Clip):
        raise SystemExit(f"the pair failed: {clip.reason}")
    return seconds / len(clip), clip.frames


def least(run: Callable[[], Any], device: torch.device, repeat: int) -> tuple[float, Any]:
    """The least seconds over `repeat` runs, and what the last one gave."""
    clock, best, found = clock_of(device), float("inf"), None
    for _ in range(repeat):
        started = clock()
        found = run()
        wait(device)
        best = min(best, clock() - started)
    return best, found


def hyperreenact(batch: int, frames: int, device: torch.device, repeat: int) -> float:
    """The least seconds a frame of HyperReenact's networks, its source's appearance encoded once a clip."""
    from bcd_bench_baselines.hyperreenact.model import HyperReenact, Source

    torch.manual_seed(SEED)
    model = HyperReenact().to(device).eval()
    poses = torch.rand(frames, 3, 224, 224, device=device)
    face, code = torch.rand(1, 3, 112, 112, device=device), torch.randn(1, 14, 512, device=device)

    def clip(some: torch.Tensor) -> None:
        source = Source(code, model.arcface(face))
        for part in some.split(batch):
            model.frames(source, part)

    with torch.inference_mode():
        clip(poses[:1])
        return least(lambda: clip(poses), device, repeat)[0] / frames


def operations(method: Method, pair: Pair) -> float:
    """Operations a frame of a clip, in convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        [clip] = method.transfer([pair], seed=0)
    assert isinstance(clip, Clip)
    return counter.get_total_flops() / len(clip)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the best of three."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / least(lambda: a @ b, device, 4)[0]  # the first is a warm-up, never the best


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_of(device: torch.device) -> Callable[[], float]:
    return time.process_time if device.type == "cpu" else time.perf_counter


def main() -> None:
    registry = load_registry()
    known = [name for name, spec in registry.methods.items() if spec.seeded_by and "batch_frames" in spec.config]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(sorted(known)))
    parser.add_argument("--paths", default=",".join(PATHS))
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--device", default="cpu", help=DEVICES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--frames", type=int, help="frames of the clip; default: 4 at batch 1, else the batch")
    parser.add_argument("--operations", action="store_true", help="count them, in one more clip of each way")
    given = parser.parse_args()
    device = resolve_device(given.device)
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{given.threads} threads"
    print(f"torch {torch.__version__}, {device}, {model}; seconds a frame")
    rates: dict[torch.dtype, float] = {}
    for name in given.methods.split(","):
        for batch in map(int, given.batches.split(",")):
            count = given.frames or (4 if batch == 1 else batch)
            if name == "hyperreenact":
                seconds = hyperreenact(batch, count, device, given.repeat)
                upstream = (
                    f", the original with two threads {UPSTREAM_HYPERREENACT:.2f}" if device.type == "cpu" else ""
                )
                print(f"{name:<13} batch {batch:<3} {'float32':<18} {seconds:8.4f}{upstream}", flush=True)
                continue
            pair = pair_of(count)
            reference: tuple[float, np.ndarray] | None = None
            for path in dict.fromkeys(["float32", *given.paths.split(",")]):  # the others are compared with the first
                method = load(registry, name, batch, device, PATHS[path])
                measured(method, pair_of(1), device, 1)
                seconds, frames = measured(method, pair, device, given.repeat)
                reference = reference or (seconds, frames)
                difference = np.abs(frames.astype(np.int16) - reference[1])
                upstream = ""
                if device.type == "cpu" and batch == 1 and name in UPSTREAM:
                    upstream = f", the original {UPSTREAM[name]:.2f} ({UPSTREAM[name] / seconds:.2f} x)"
                share = ""
                if given.operations and not PATHS[path].get("compile"):
                    dtype = getattr(torch, PATHS[path].get("dtype", "float32"))
                    rates.setdefault(dtype, product_rate(device, dtype))
                    done = operations(method, pair)
                    share = f", {done / 1e9:.0f} Gop a frame, {done / seconds / rates[dtype]:.0%} of a product's rate"
                print(
                    f"{name:<13} batch {batch:<3} {path:<18} {seconds:8.4f}  {reference[0] / seconds:5.2f} x float32  "
                    f"error {difference.mean():.3f} grey levels, at most {difference.max()}{upstream}{share}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
