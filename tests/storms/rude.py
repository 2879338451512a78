"""A plugin whose method gives the outputs of `toy-slow` and misbehaves meanwhile, in the way of its setting."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from bcd_bench_toy.methods import Swap

from bcd_bench import AssetSpec, Clip, Failed, MethodSpec, Pair, hookimpl

LEAKED: list[Any] = []


class Rude(Swap):
    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        for pair, clip in zip(pairs, super().transfer(pairs, seed=seed), strict=True):
            self.misbehave(self.config["manner"], pair.id)
            yield clip

    def misbehave(self, manner: str, pair: str) -> None:
        if manner == "print":
            print("x" * 10_000)
            os.write(1, b"\xff\x00\n" * 100)
            print("y" * 10_000, file=sys.stderr)
        elif manner == "fork":
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
        elif manner == "chdir":
            os.chdir("/")
            os.umask(0o777)
        elif manner == "environment":
            os.environ.clear()
        elif manner == "thread":
            threading.Thread(target=time.sleep, args=(3600,)).start()
        elif manner == "random":
            random.seed(0)
            np.random.seed(0)
        elif manner == "signals":
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_IGN)
        elif manner == "leak":
            LEAKED.append(np.ones(4 * 2**20))
        elif manner == "close":
            os.close(1)
            os.open(os.devnull, os.O_WRONLY)
            sys.stdout.close()
        elif pair == self.config["victim"]:
            if manner == "exit":
                sys.exit(3)
            if manner == "exit-now":
                os._exit(0)
            if manner == "eat":
                for _ in range(64):  # 4 GiB
                    LEAKED.append(np.ones(2**23))
            if manner == "interrupt":
                raise KeyboardInterrupt
            if manner == "hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
                time.sleep(3600)


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    config = {"noise": 3, "delay": 0.0, "bad": "", "damage": "", "manner": "", "victim": "c2-m1"}
    return [MethodSpec("rude", "1", "Misbehaves.", "bcd_bench_rude:Rude", config=config, batch_size=4)]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    """The asset whose sha256 and address are in the environment."""
    if "RUDE_PARCEL" not in os.environ:
        return []
    sha256, address = os.environ["RUDE_PARCEL"].split()
    return [AssetSpec("parcel", "parcel.bin", sha256, 3 * 2**20, "MIT", "send it", urls=(address,))]
