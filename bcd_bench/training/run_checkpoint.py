"""Start, resume and save a training run of one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bcd_bench.io.atomic import write_json_atomic
from bcd_bench.training.checkpoint import (
    CHECKPOINT,
    check_settings,
    read_checkpoint,
    restoring,
    save_torch,
    writing_checkpoint,
)
from bcd_bench.training.folder import writing_into
from bcd_bench.training.loop import TrainingLoop

if TYPE_CHECKING:
    import torch

__all__ = ["Parts", "RunCheckpoint", "Stateful"]


class Stateful(Protocol):
    """Modules, optimisers and everything else with the two methods of `torch.nn.Module`."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


Parts = Mapping[str, Stateful | None]
"""What changes during a training, by its name in the checkpoint; None for a part that this run does not have."""


class RunCheckpoint:
    """`checkpoint.pt` of a training run: its description, the state of its parts, and the state of its loop.

    The description consists of `what` is trained, the `settings` that a resumed run must share (by name), and the
    versions and the device, which may differ. It is also written to `config.json`.
    """

    def __init__(
        self, out: Path, what: str, loop: TrainingLoop, settings: Mapping[str, Any], device: torch.device
    ) -> None:
        self._out, self._what, self._loop, self._settings = out, what, loop, dict(settings)
        self._path = out / CHECKPOINT
        self._device = device.type

    def start(self, parts: Parts, *, resume: bool) -> None:
        """Resume from the folder's checkpoint, or begin. Raises `UsageError` if the folder does not fit."""
        if resume:
            self.restore(self.read(), parts)
        else:
            self.begin()

    def begin(self) -> None:
        """Write the first files of a new run. Raises `UsageError` if they cannot be written."""
        with writing_into(self._out):
            self._loop.log.begin()
            write_json_atomic(self._out / "config.json", self._description())

    def read(self) -> dict[str, Any]:
        """The content of the checkpoint. Raises `UsageError` if it is damaged, or from a run of other settings."""
        state = read_checkpoint(self._path, what=self._what)
        check_settings(self._path, state["description"], self._description(), tuple(self._settings))
        return state

    def restore(self, state: Mapping[str, Any], parts: Parts) -> None:
        """Continue where `state` was saved. Raises `UsageError` if a part is missing or does not fit."""
        with restoring(self._path):
            for name, part in parts.items():
                if part is not None:
                    part.load_state_dict(state[name])
            self._loop.load_state_dict(state)

    @contextmanager
    def saving(self, parts: Parts) -> Iterator[None]:
        """Write the checkpoint atomically; files that belong to it, such as weights, are written inside the block.

        Raises `UsageError` if one of them cannot be written.
        """
        states = {name: None if part is None else part.state_dict() for name, part in parts.items()}
        with writing_checkpoint(self._out, self._loop.step):
            save_torch(self._path, {"description": self._description(), **states, **self._loop.state_dict()})
            yield

    def save(self, parts: Parts) -> None:
        """As `saving`, if no other file belongs to the checkpoint."""
        with self.saving(parts):
            pass

    def _description(self) -> dict[str, Any]:
        import torch

        from bcd_bench import __version__

        versions = {"version": __version__, "device": self._device, "torch": str(torch.__version__)}
        return {"what": self._what, **self._settings, **versions}
