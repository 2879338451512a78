"""Speed of BCD: sampling against the paper's recipe, training against a plain loop, and a step of the paper's preset.

    python benchmarks/bcd.py sampling [--suite sprites] [--pairs 256]
    python benchmarks/bcd.py training [--suite sprites]
    python benchmarks/bcd.py paper-step
    python benchmarks/bcd.py kept-memory

Everything compared is measured in one run, in turns, on the threads that torch takes by default (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from accelerate.state import AcceleratorState

from bcd_bench.assets.weights import resolve_weights
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.plugin.suites import load_suite
from bcd_bench.statistics.intervals import paired_difference
from bcd_bench.types.clip import Clip
from bcd_bench.types.pair import Pair
from bcd_bench.util.devices import keep_freed_memory
from bcd_bench.util.progress import open_progress
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.presets.registry import PRESETS, resolve_preset
from bcd_bench_bcd.training.data import open_training_clips
from bcd_bench_bcd.training.stages import Stage
from bcd_bench_bcd.training.trainer import Trainer

BATCH = 16
COLUMNS = ("action", "skin", "pants", "top", "hair", "exact-psnr")


def sampling(suite: str, count: int, weights: str | None) -> None:
    """Accuracies, PSNR and seconds of the default sampler and of 50 Heun steps with guidance 1.5, batch by batch."""
    registry = load_registry()
    made = load_suite(registry, suite, {})
    chosen = resolve_weights(registry.method("bcd"), suite, weights)
    methods = {name: BCDMethod({"sampler": name}) for name in ("default", "paper")}
    for method in methods.values():
        method.load(chosen.path if chosen else None, "cpu")
    judge = load_factory(registry.metric("sprites-judge").factory)()
    judge.load("cpu")
    pairs = list(made.pairs[:count])
    rows: dict[str, list[Any]] = {name: [] for name in methods}
    spent = dict.fromkeys(methods, 0.0)
    with open_progress().task("sampling", total=len(pairs), unit="pairs") as task:
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            for name, method in methods.items():
                outputs, seconds = timed_transfer(method, batch)
                spent[name] += seconds
                rows[name] += judge.score([Scored(pair, clip) for pair, clip in zip(batch, outputs, strict=True)])
            task.advance(len(batch))
    for name, method in methods.items():
        print(f"{name}: {method.sampler.nfe} evaluations a clip, {spent[name] / len(pairs) * 1000:.1f} ms a pair")
    print(f"ratio: {spent['paper'] / spent['default']:.1f} x less time over {len(pairs)} pairs")
    clusters = [pair.cluster for pair in pairs]
    for column in COLUMNS:
        values = {name: np.array([float(row[column]) for row in rows[name]]) for name in methods}
        paired = paired_difference(values["default"], values["paper"], clusters)
        interval = paired.interval
        means = ", ".join(f"{name} {v.mean():.4f}" for name, v in values.items())
        bounds = "" if interval is None else f" [{interval.low:+.4f}, {interval.high:+.4f}]"
        print(f"{column}: {means}; difference {paired.difference:+.4f}{bounds}")


def timed_transfer(method: BCDMethod, batch: list[Pair]) -> tuple[list[Clip], float]:
    started = time.perf_counter()
    outputs = [clip for clip in method.transfer(batch, seed=0) if isinstance(clip, Clip)]
    return outputs, time.perf_counter() - started


PLAIN: dict[str, Any] = {
    "train.precision": "fp32",
    "extensions.symmetric_halves": {"mode": "random"},
    "extensions.patch_skipping": None,
    "extensions.swap_cycle": None,
    "extensions.muon": None,
}
OWN: dict[str, Any] = PRESETS["sprites-small"].extensions.dump()
STAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain float32 loop", {}),
    ("+ the precision that is fast here", {"train.precision": "auto"}),
    ("+ static patches skipped", {"extensions.patch_skipping": {"min_keep_prob": 1.0}}),
    ("+ seldom lit patches computed seldom", {"extensions.patch_skipping": OWN["patch_skipping"]}),
    ("+ both directions", {"extensions.symmetric_halves": OWN["symmetric_halves"]}),
    ("+ Muon", {"extensions.muon": OWN["muon"]}),
    ("+ swap cycle (the preset)", {"extensions.swap_cycle": {**OWN["swap_cycle"], "start": 0}}),
)
"""What each stage changes in `PLAIN` and in the stages before, up to the preset's own extensions."""


def training(suite: str) -> None:
    """Driving halves learned per second, from the plain loop to the preset, one change at a time; medians of 5."""
    clips = open_training_clips(resolve_preset("sprites-small", {"train.suite": suite}), request(Path()))
    reference, changes = 0.0, {"train.suite": suite, **PLAIN}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, taken) in enumerate(STAGES):
            changes |= taken
            AcceleratorState._reset_state(reset_partial_state=True)  # one process, several precisions
            preset = resolve_preset("sprites-small", changes)
            seconds = seconds_per_step(Trainer(Stage(preset, Path(folder) / str(number)), clips, "cpu"), 5)
            halves = preset.train.batch * directions(preset) / seconds
            reference = reference or halves
            print(f"{name:<38} {halves:7.1f} driving halves/s   {halves / reference:5.2f} x", flush=True)


def directions(preset: Preset) -> int:
    """Driving halves of a training clip."""
    halves = preset.extensions.get(SymmetricHalves)
    return 2 if halves is not None and halves.mode == "both" else 1


def seconds_per_step(trainer: Trainer, steps: int) -> float:
    trainer.start(resume=False)
    times = []
    for step in range(steps + 1):
        started = time.perf_counter()
        trainer.train_step(step)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def paper_step() -> None:
    """Real steps of the preset `sprites` (Table A8, batch 128) on this device, in the memory of a small machine."""
    preset = resolve_preset("sprites", {"train.suite": "sprites-procedural", "train.activation_checkpointing": True})
    clips = open_training_clips(preset, request(Path()))
    with tempfile.TemporaryDirectory() as folder:
        seconds = seconds_per_step(Trainer(Stage(preset, Path(folder)), clips, "auto"), 2)
    print(f"{seconds:.2f} s a step, {seconds * preset.train.steps / 3600:.1f} h for {preset.train.steps} steps")


class NoisyClips:
    """Clips of noise in the shape of what `heads-small` learns from."""

    fps = 25.0

    def __len__(self) -> int:
        return 64

    def clips(self, indices: Any) -> np.ndarray:
        return np.random.default_rng(len(indices)).integers(0, 256, (len(indices), 16, 128, 128, 3), np.uint8)


def kept_memory() -> None:
    """Whole steps of `heads-small` before and after the process keeps freed memory; medians of 5."""
    early: dict[str, Any] = {
        f"extensions.{name}": None for name in ("keypoint_supervision", "vq_start", "content_frame_dropout")
    }
    early |= {f"extensions.canonical_features.{name}": 0 for name in ("warp_start", "denoise_start")}
    preset = resolve_preset("heads-small", early)
    times = []
    with tempfile.TemporaryDirectory() as folder, mock.patch("bcd_bench_bcd.training.trainer.keep_freed_memory"):
        for kept in (False, True):
            if kept and not keep_freed_memory("cpu"):
                raise SystemExit("this C library cannot be asked to keep memory")
            times.append(seconds_per_step(Trainer(Stage(preset, Path(folder) / str(kept)), NoisyClips(), "cpu"), 5))
            print(f"{'kept' if kept else 'handed back'}: {times[-1]:.2f} s a step", flush=True)
    print(f"{times[0] / times[1]:.2f} x")


def request(out: Path) -> TrainRequest:
    return TrainRequest("sprites-small", {}, out, False, None, None, "cpu", {}, False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sampling", "training", "paper-step", "kept-memory"])
    parser.add_argument("--suite", default="sprites-procedural")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--weights")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if arguments.what == "sampling":
        sampling(arguments.suite, arguments.pairs, arguments.weights)
    elif arguments.what == "training":
        training(arguments.suite)
    elif arguments.what == "kept-memory":
        kept_memory()
    else:
        paper_step()


if __name__ == "__main__":
    main()
