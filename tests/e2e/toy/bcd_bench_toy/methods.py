"""Methods that give the target with seeded noise, slowly or badly where they are told to."""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench import Clip, Failed, Pair
from bcd_bench.run.fingerprint import pair_seed


class Swap:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def load(self, weights: Path | None, device: str) -> None:
        self.weights = weights

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        for pair in pairs:
            time.sleep(self.config["delay"])
            target = pair.target.load()
            noise = np.random.default_rng(pair_seed(seed, pair.id)).integers(
                0, self.config["noise"] + 1, target.frames.shape
            )
            clip = Clip(np.minimum(target.frames + noise, 255).astype(np.uint8), target.fps, pair.id)
            struck = self.config["bad"] in (pair.labels["motion"], pair.id)
            if self.config["bad"] and struck and "TOY_MENDED" not in os.environ:
                if self.config["damage"] == "crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if self.config["damage"] == "oom":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.config["damage"] == "hang":
                    time.sleep(600)
                if self.config["damage"] == "raise":
                    raise RuntimeError(f"toy trouble with {pair.id}")
                clip = Clip(clip.frames[:-1], clip.fps, pair.id)
            yield clip
