"""FID: speed and result against the pytorch-fid command, and memory over many clips.

    python benchmarks/fidelity.py speed [--frames 48] [--size 256]
    python benchmarks/fidelity.py memory [--clips 4000]

`speed` needs pytorch-fid with a torchvision that imports. Both see the same PNG files, on the threads that torch takes
by default (OMP_NUM_THREADS), with the real weights where the asset is to be had, else with seeded ones. `memory` feeds
made-up features of clips of 8 frames to `fid`, with all the states that its interval needs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the seeded weights belong to the tests

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import load_registry
from bcd_bench.testing.synthetic import practice_pairs
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import MissingAssetError
from bcd_bench_fidelity.backbones import INCEPTION
from bcd_bench_fidelity.extractors import InceptionFeatures
from bcd_bench_fidelity.frechet import frechet_distance
from bcd_bench_fidelity.frechet_metrics import FID
from bcd_bench_fidelity.moments import Moments
from tests.fidelity.seeded import pictures, seeded_inception

BATCH = 32


def weights_in(folder: Path) -> tuple[Path, str]:
    """The weights file, and which it is."""
    try:
        return AssetStore(load_registry()).find("inception-fid"), "real"
    except MissingAssetError:
        path = folder / "seeded.pth"
        torch.save(seeded_inception(), path)
        return path, "seeded"


def theirs(folder: Path, weights: Path) -> tuple[list[Any], float]:
    """Means and covariances, and seconds, of what the command `pytorch-fid a b` calls; the network is built before."""
    from pytorch_fid import fid_score, inception

    inception.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)
    network = inception.InceptionV3([3])
    started = time.perf_counter()
    moments = [
        part
        for name in ("a", "b")
        for part in fid_score.compute_statistics_of_path(str(folder / name), network, BATCH, INCEPTION.width, "cpu", 0)
    ]
    return moments, time.perf_counter() - started


def ours(folder: Path, weights: Path) -> tuple[list[Any], float]:
    """Means and factors, and seconds, from the same files."""
    from PIL import Image

    extractor = InceptionFeatures()
    extractor.load_from(weights)
    started = time.perf_counter()
    gaussians: list[Any] = []
    for name in ("a", "b"):
        state = Moments.empty(INCEPTION.width)
        files = sorted((folder / name).iterdir())
        for start in range(0, len(files), BATCH):
            frames = np.stack([np.asarray(Image.open(file)) for file in files[start : start + BATCH]])
            state = state.add(extractor.extract([Clip(frames, 25.0)])[0]["features"])
        gaussians += state.gaussian()
    return gaussians, time.perf_counter() - started


def speed(count: int, size: int) -> dict[str, Any]:
    from PIL import Image
    from pytorch_fid import fid_score

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, side in enumerate(("a", "b")):
            (folder / side).mkdir()
            for index, picture in enumerate(pictures(count, size, size, seed=number)):
                Image.fromarray(picture).save(folder / side / f"{index:05d}.png")
        weights, which = weights_in(folder)
        runs = [(*theirs(folder, weights), *ours(folder, weights)) for _ in range(2)]
    their_seconds, our_seconds = min(run[1] for run in runs), min(run[3] for run in runs)
    their_fid = float(fid_score.calculate_frechet_distance(*runs[0][0]))
    our_fid = frechet_distance(*runs[0][2])
    return {
        "weights": which,
        "frames": 2 * count,
        "fid": {"pytorch-fid": their_fid, "ours": our_fid, "relative difference": abs(our_fid / their_fid - 1)},
        "ms_per_frame": {"pytorch-fid": 500 * their_seconds / count, "ours": 500 * our_seconds / count},
        "times_as_fast": round(their_seconds / our_seconds, 2),
    }


def memory(clips: int) -> dict[str, Any]:
    """Peak memory after a tenth of the clips and after all of them."""
    rng = np.random.default_rng(0)
    metric, pair = FID(), practice_pairs(1)[0]
    blank = Clip(np.zeros((8, 8, 8, 3), np.uint8), 25.0)
    states: list[Any] = [None] * metric.jackknife_groups
    peaks = {}
    for number in range(clips):
        features = {
            role: {"features": rng.random((8, INCEPTION.width), dtype=np.float32)} for role in ("output", "target")
        }
        group = number % len(states)
        states[group] = metric.update(states[group], [Scored(pair, blank, {INCEPTION.extractor: features})])
        if number + 1 in (clips // 10, clips):
            peaks[number + 1] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    return {"peak_mb_by_clips": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory"))
    parser.add_argument("--frames", type=int, default=48, help="of each of the two sets")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--clips", type=int, default=4000)
    given = parser.parse_args()
    print(json.dumps(speed(given.frames, given.size) if given.what == "speed" else memory(given.clips), indent=1))


if __name__ == "__main__":
    main()
