"""Methods that kill, stop or slow down the process they run in; used by the tests of worker processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import toy_plugin

from bcd_bench import Clip, Failed, MethodSpec, Pair, hookimpl


class Deadly(toy_plugin.Noise):
    """Ends its process on the pair named by `TOY_KILLS`, in the way named by `TOY_HOW`.

    With `TOY_ONCE`, a path, only the first time: the file is created.
    """

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        outputs = list(super().transfer(pairs, seed=seed))
        marker = os.environ.get("TOY_ONCE")
        struck = os.environ.get("TOY_KILLS", "").split(",")
        if any(pair.id in struck for pair in pairs) and not (marker and Path(marker).exists()):
            if marker:
                Path(marker).touch()
            how = os.environ["TOY_HOW"]
            if how == "hang":
                time.sleep(600)
            elif how == "exit":
                os._exit(7)
            else:
                os.kill(os.getpid(), getattr(signal, how))
        yield from outputs


class DiesLoading(toy_plugin.Noise):
    def load(self, weights: Path | None, device: str) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class Reports(toy_plugin.Noise):
    """Puts what its process looks like into the output's info."""

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        seen: Mapping[str, Any] = {name: os.environ.get(name) for name in names} | {"pid": os.getpid()}
        time.sleep(0.2)
        for output in super().transfer(pairs, seed=seed):
            yield Clip(output.frames, output.fps, output.id, seen) if isinstance(output, Clip) else output


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    def spec(name: str, **more: Any) -> MethodSpec:
        return MethodSpec(name, "1", "A toy.", f"pool_toy:{more.pop('factory')}", config={}, batch_size=4, **more)

    return [
        spec("deadly", factory="Deadly"),
        spec("dies-loading", factory="DiesLoading"),
        spec("reports", factory="Reports"),
    ]
