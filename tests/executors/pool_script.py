"""Runs tasks in the pool of the executor `ray` and prints how they ended, as JSON; started by test_ray.py."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

from bcd_bench.types.errors import UsageError
from bcd_bench.util.open_pool import open_pool
from bcd_bench.util.pool import PoolOptions

SETTINGS = {"address": "local", "cpus": 1.0, "gpus": -1.0, "wait": 120}


class Handler:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, task: str) -> str:
        if task == "kill":
            os.kill(os.getpid(), 9)
        if task == "hang":
            time.sleep(600)
        if task == "raise":
            raise UsageError("no such task", hint="another one")
        if task == "threads":
            return os.environ["OMP_NUM_THREADS"]
        return task * self.factor


def start(factor: int) -> Handler:
    if factor == 0:
        raise UsageError("nothing to load", hint="a factor")
    return Handler(factor)


def main() -> None:
    taken = []

    def tasks() -> Iterator[str]:
        for task in ["a", "raise", "kill", "hang", "threads", "b", "c"]:
            taken.append(task)
            yield task

    ends: dict[str, object] = {}
    ahead = 0
    options = PoolOptions(settings=SETTINGS, factory="bcd_bench_executors.ray_pool:RayPool")
    with open_pool("pool_script:start", 2, what="a handler", jobs=2, options=options) as pool:
        for end in pool.run(tasks(), lambda task: 3.0 if task == "hang" else None):
            ahead = max(ahead, len(taken) - len(ends))
            if end.error is not None:
                ends[end.task] = [str(end.error), getattr(end.error, "hint", None)]
            else:
                ends[end.task] = end.value if end.lost is None else [end.lost, end.timed_out]
        kinds = [kind for kind, _ in pool.events]
    result = {
        "ends": ends,
        "ahead": ahead,
        "started": kinds.count("worker_started"),
        "died": kinds.count("worker_died"),
    }
    try:
        with open_pool("pool_script:start", 0, what="a handler", jobs=1, options=options) as pool:
            list(pool.run(iter(["a"])))
    except UsageError as error:
        result["unloadable"] = [str(error), error.hint]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
