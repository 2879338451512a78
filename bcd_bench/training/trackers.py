"""TensorBoard or trackio beside log.jsonl, through accelerate. Off by default; none of them has to be installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, Protocol

from bcd_bench.types.errors import MissingDependencyError

__all__ = ["TRACKERS", "Tracker", "TrackerName", "open_tracker"]

TrackerName = Literal["none", "tensorboard", "trackio"]
TRACKERS: tuple[TrackerName, ...] = ("none", "tensorboard", "trackio")
"""What the setting `tracker` of a trainer may be."""
PROJECT = "bcd-bench"


class Tracker(Protocol):
    """A tracker of accelerate."""

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Show the values of `step`."""

    def finish(self) -> None:
        """Write what is left, and close."""


def open_tracker(name: TrackerName, out: Path, *, step: int = 0, option: str = "train.tracker") -> Tracker | None:
    """The tracker `name` of the run in `out`, None for "none". The run has made `step` steps; what a tracker knows of
    later ones is dropped where it can be (TensorBoard).

    TensorBoard writes to the folder tensorboard in `out`; trackio to its own folder, as the run `out` of the project
    bcd-bench. Raises `MissingDependencyError` if a package is not installed; `option` is the setting, for the error.
    """
    if name == "none":
        return None
    for package in (name, "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"--set {option}={name} needs the package {package!r}", hint=f"pip install {package}"
            )
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, TrackioTracker

    PartialState()  # trackers ask it whether this is the main process
    made: Any
    if name == "tensorboard":
        made = TensorBoardTracker("", out / "tensorboard", purge_step=step + 1 if step else None)
    else:
        made = TrackioTracker(PROJECT, name=str(out), resume="allow")
    made.start()
    tracker: Tracker = made
    return tracker
