"""Speed of coding motion codes, as a ratio to real time at 25 frames per second.

    python benchmarks/bitstream.py [--frames 5000] [--groups 32] [--entries 16]

Encoding includes the check that the bytes decode to the codes. The codes are those of a chain that stays in its state
with probability 0.9, as those of talking heads; neither the network nor reading videos is part of the time.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from bcd_bench_bcd.bitstream.code_models import code_model
from bcd_bench_bcd.bitstream.coder import decode_codes, encode_codes

FPS = 25
REPETITIONS = 3


def chain(frames: int, groups: int, entries: int) -> np.ndarray:
    """Codes int64 [T, N]."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(entries, 0.5), groups)
    fresh = np.stack([rng.choice(entries, frames, p=share) for share in shares], 1)
    codes = fresh.copy()
    for index in range(1, frames):
        stays = rng.random(groups) < 0.9
        codes[index] = np.where(stays, codes[index - 1], fresh[index])
    return codes.astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("frames", 5000), ("groups", 32), ("entries", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    codes = chain(options.frames, options.groups, options.entries)
    counts = np.stack([np.bincount(group, minlength=options.entries) for group in codes.T])
    for name in ("static", "adaptive", "context"):
        encoding, decoding = [], []
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            data = encode_codes(code_model(name, options.groups, options.entries, counts), codes)
            encoded = time.perf_counter()
            decode_codes(code_model(name, options.groups, options.entries, counts), data, len(codes))
            encoding.append(encoded - started)
            decoding.append(time.perf_counter() - encoded)
        seconds = len(codes) / FPS
        ratios = ", ".join(
            f"{what} {seconds / min(times):,.0f}x" for what, times in (("encode", encoding), ("decode", decoding))
        )
        print(f"{name}: {ratios} real time, {8 * len(data) / len(codes):.2f} bits per frame")


if __name__ == "__main__":
    main()
