"""log.jsonl: one JSON line every few steps, with values by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcd_bench.io.atomic import append_jsonl, write_text_atomic
from bcd_bench.training.trackers import Tracker, TrackerName, open_tracker
from bcd_bench.types.errors import one_line

__all__ = ["LOG", "TrainingLog", "truncate_log"]

LOG = "log.jsonl"
"""The file in a training's folder."""


class TrainingLog:
    """The log of one run: collects the values of every step, and writes their means every few steps.

    The steps since the last line are the window. It is part of the checkpoint (`state_dict`), so a run that is stopped
    between two lines and resumed writes the lines of a run that was not.
    """

    def __init__(
        self,
        out: Path,
        *,
        mean: bool = True,
        digits: int | None = None,
        tracker: TrackerName = "none",
        tracker_option: str = "train.tracker",
        write: bool = True,
    ) -> None:
        """Opens nothing yet. A line has the means of its window, or with `mean=False` the values of its last step,
        rounded to `digits` decimals. Processes that do not `write` keep a window and leave the files alone.
        """
        self.path = out / LOG
        self._mean, self._digits, self._write = mean, digits, write
        self._tracker_name, self._tracker_option = tracker, tracker_option
        self._tracker: Tracker | None = None
        self._names: tuple[str, ...] = ()
        self._rows: list[list[float]] = []

    def begin(self) -> None:
        """Begin an empty log. Raises `OSError` if it cannot be written, and `MissingDependencyError` if the tracker is
        not installed."""
        if self._write:
            self._open_tracker(0)
            write_text_atomic(self.path, "")

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of `step` to the window. Raises `ValueError` if their names are not those of the window."""
        names = tuple(values)
        if self._rows and names != self._names:
            raise ValueError(f"step {step} has the values {names}, the steps before {self._names}")
        self._names = names
        if not self._mean:
            self._rows = []
        self._rows.append(list(values.values()))

    def take_means(self) -> dict[str, float]:
        """The means of the window by name (the last values with `mean=False`), in the order of the names; the window is
        empty afterwards. Raises `ValueError` if it is empty already."""
        import numpy as np

        if not self._rows:
            raise ValueError("no step has been added since the last line")
        means = np.mean(self._rows, axis=0).tolist()
        self._rows = []
        return {name: self._rounded(value) for name, value in zip(self._names, means, strict=True)}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the line of `step`: `values` as they are. A tracker that fails is dropped, with a warning."""
        if not self._write:
            return
        append_jsonl(self.path, [{"step": step, **values}])
        if self._tracker is not None:
            try:
                self._tracker.log({name: float(value) for name, value in values.items()}, step=step)
            except Exception as error:  # noqa: BLE001 (a tracker's server or disk costs no training)
                self._lose_tracker(error)

    def rounded(self, values: Mapping[str, float]) -> dict[str, float]:
        """`values` rounded as the means are."""
        return {name: self._rounded(value) for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """The window, for a checkpoint: plain lists."""
        return {"names": list(self._names), "rows": [list(row) for row in self._rows]}

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Continue after the checkpoint of `step`: take its window, and drop the lines of later steps."""
        self._names = tuple(state["names"])
        self._rows = [list(row) for row in state["rows"]]
        if self._write:
            truncate_log(self.path, step)
            self._open_tracker(step)

    def close(self) -> None:
        """Close the tracker, if there is one."""
        if self._tracker is not None:
            try:
                self._tracker.finish()
            except Exception as error:  # noqa: BLE001 (as above)
                self._lose_tracker(error)
            self._tracker = None

    def _open_tracker(self, step: int) -> None:
        self.close()
        self._tracker = open_tracker(self._tracker_name, self.path.parent, step=step, option=self._tracker_option)

    def _lose_tracker(self, error: Exception) -> None:
        self._tracker = None
        print(f"warning: {self._tracker_name}: {one_line(error)}; {self.path} goes on without it", file=sys.stderr)

    def _rounded(self, value: float) -> float:
        return value if self._digits is None else round(value, self._digits)


def truncate_log(log: Path, step: int) -> None:
    """Drop the lines (JSON with a "step" each) of steps after `step`, the checkpoint's: these steps are trained again.

    Lines that a crash has torn are dropped too; a log that is missing begins again.
    """
    kept = []
    for line in log.read_bytes().splitlines() if log.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:  # torn by a full disk or a power cut
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int) and record["step"] <= step:
            kept.append(line.decode())
    write_text_atomic(log, "".join(f"{line}\n" for line in kept))
