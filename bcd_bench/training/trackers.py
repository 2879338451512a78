"""TensorBoard or trackio in addition to log.jsonl, through accelerate. Off by default; both packages are optional."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, Protocol

from bcd_bench.types.errors import MissingDependencyError

__all__ = ["TRACKERS", "Tracker", "TrackerName", "open_tracker"]

TrackerName = Literal["none", "tensorboard", "trackio"]
TRACKERS: tuple[TrackerName, ...] = ("none", "tensorboard", "trackio")
"""Valid values of a trainer's setting `tracker`."""
PROJECT = "bcd-bench"


class Tracker(Protocol):
    """A tracker of accelerate."""

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Log the values of `step`."""

    def finish(self) -> None:
        """Flush and close the tracker."""


def open_tracker(name: TrackerName, out: Path, *, step: int = 0, option: str = "train.tracker") -> Tracker | None:
    """The tracker `name` of the run in `out`; None for "none". The run has finished `step` steps; data of later steps
    is dropped if the tracker supports it (TensorBoard).

    TensorBoard writes to the folder tensorboard in `out`; trackio to its own folder, as the run `out` of the project
    bcd-bench. Raises `MissingDependencyError` if a package is not installed; `option` is the setting, for the error.
    """
    if name == "none":
        return None
    for package in (name, "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"--set {option}={name} requires the package {package!r}", hint=f"pip install {package}"
            )
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, TrackioTracker

    PartialState()  # trackers use it to detect the main process
    backend: Any
    if name == "tensorboard":
        backend = TensorBoardTracker("", out / "tensorboard", purge_step=step + 1 if step else None)
    else:
        backend = TrackioTracker(PROJECT, name=str(out), resume="allow")
    backend.start()
    tracker: Tracker = backend
    return tracker
