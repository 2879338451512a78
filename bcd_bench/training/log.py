"""log.jsonl: one JSON line every few steps, with named values."""

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
"""File name in a training folder."""


class TrainingLog:
    """The log of one run: collects the values of every step, and writes their means every few steps.

    The steps since the last line form the window. It is part of the checkpoint (`state_dict`), so a run that is
    interrupted between two lines and resumed writes the same lines as an uninterrupted run.
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
        """Does not open any file yet. A line contains the means of its window, or with `mean=False` the values of its
        last step, rounded to `digits` decimals. Processes with `write=False` keep a window but do not touch the files.
        """
        self.path = out / LOG
        self._mean, self._digits, self._write = mean, digits, write
        self._tracker_name, self._tracker_option = tracker, tracker_option
        self._tracker: Tracker | None = None
        self._names: tuple[str, ...] = ()
        self._rows: list[list[float]] = []

    def begin(self) -> None:
        """Start an empty log. Raises `OSError` if it cannot be written, and `MissingDependencyError` if the tracker is
        not installed."""
        if self._write:
            self._open_tracker(0)
            write_text_atomic(self.path, "")

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of `step` to the window. Raises `ValueError` if their names differ from those of the
        window."""
        names = tuple(values)
        if self._rows and names != self._names:
            raise ValueError(f"step {step} has the values {names}, the steps before {self._names}")
        self._names = names
        if not self._mean:
            self._rows = []
        self._rows.append(list(values.values()))

    def take_means(self) -> dict[str, float]:
        """Return the means of the window by name (the last values with `mean=False`), in the order of the names, and
        clear the window. Raises `ValueError` if it is empty."""
        import numpy as np

        if not self._rows:
            raise ValueError("no step has been added since the last line")
        means = np.mean(self._rows, axis=0).tolist()
        self._rows = []
        return {name: self._rounded(value) for name, value in zip(self._names, means, strict=True)}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the line of `step` with unmodified `values`. A tracker that fails is disabled with a warning."""
        if not self._write:
            return
        append_jsonl(self.path, [{"step": step, **values}])
        if self._tracker is not None:
            try:
                self._tracker.log({name: float(value) for name, value in values.items()}, step=step)
            except Exception as error:  # noqa: BLE001 (a tracker failure must not stop training)
                self._lose_tracker(error)

    def rounded(self, values: Mapping[str, float]) -> dict[str, float]:
        """Round `values` like the means."""
        return {name: self._rounded(value) for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """The window as plain lists, for a checkpoint."""
        return {"names": list(self._names), "rows": [list(row) for row in self._rows]}

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Continue after the checkpoint of `step`: restore its window, and drop the lines of later steps."""
        self._names = tuple(state["names"])
        self._rows = [list(row) for row in state["rows"]]
        if self._write:
            truncate_log(self.path, step)
            self._open_tracker(step)

    def close(self) -> None:
        """Close the tracker, if any."""
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
        print(f"warning: {self._tracker_name}: {one_line(error)}; {self.path} continues without it", file=sys.stderr)

    def _rounded(self, value: float) -> float:
        return value if self._digits is None else round(value, self._digits)


def truncate_log(log: Path, step: int) -> None:
    """Drop the lines (JSON with a "step" each) after `step`, the step of the checkpoint: these steps are trained again.

    Lines torn by a crash are dropped as well; a missing log is replaced by an empty one.
    """
    lines = []
    for line in log.read_bytes().splitlines() if log.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:  # torn by a full disk or a power failure
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int) and record["step"] <= step:
            lines.append(line.decode())
    write_text_atomic(log, "".join(f"{line}\n" for line in lines))
