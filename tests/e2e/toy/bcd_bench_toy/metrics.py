"""A pair metric, a set metric, and one that raises."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcd_bench import Column, Failed, Scored
from bcd_bench_toy.suite import COLOURS


class Match:
    columns = (
        Column("toy-content", "%", True, "Share of outputs whose square has the content's colour.", kind="rate"),
        Column("toy-error", "levels", False, "Mean absolute difference to the target.", kind="mean"),
    )

    def load(self, device: str) -> None:
        pass

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        rows = []
        for item in items:
            frames = item.output.frames.astype(float)
            middle = frames[0, 6:10, 6:10].reshape(-1, 3).mean(axis=0)
            nearest = int(np.argmin(np.abs(np.array(COLOURS) - middle).sum(axis=1)))
            error = float(np.abs(frames - item.pair.target.load().frames).mean())
            rows.append({"toy-content": int(nearest == item.pair.content.labels["colour"]), "toy-error": error})
        return rows

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        return {}


class MeanLevel:
    columns = (Column("toy-level", "levels", None, "Mean grey level over all outputs.", kind="set"),)

    def load(self, device: str) -> None:
        pass

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        total, count = state or (0, 0)
        return (
            total + sum(int(item.output.frames.sum()) for item in items),
            count + sum(int(item.output.frames.size) for item in items),
        )

    def merge(self, states: Sequence[Any]) -> Any:
        return (sum(state[0] for state in states), sum(state[1] for state in states))

    def compute(self, state: Any) -> Mapping[str, Any]:
        return {"toy-level": state[0] / state[1]}


class Raises:
    columns = (Column("toy-one", "", None, "Always 1.", kind="mean"),)

    def load(self, device: str) -> None:
        pass

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        if any(item.pair.labels["motion"] == "m2" for item in items):
            raise ValueError("toy metric trouble")
        return [{"toy-one": 1.0} for _ in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        return {}
