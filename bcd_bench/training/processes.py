"""The processes of one training run, as needed by the training loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from bcd_bench.types.errors import Interrupted

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["AcceleratedProcesses", "OneProcess", "Processes", "leaving_process_group"]


class Processes(Protocol):
    """Processes that train together and take the same steps."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints; the others are silent."""

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process; the result is the same in all. Must be called by every process."""

    def wait(self) -> None:
        """Wait until all processes reach this point."""


class OneProcess:
    """Training in a single process."""

    is_main = True

    def any(self, flag: bool) -> bool:
        return flag

    def wait(self) -> None:
        return None


class AcceleratedProcesses:
    """The processes of an `accelerate.Accelerator`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    @property
    def is_main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    def any(self, flag: bool) -> bool:
        if self._accelerator.num_processes == 1:
            return flag
        import torch

        flags = torch.tensor(float(flag), device=self._accelerator.device)
        return bool(self._accelerator.reduce(flags, "sum") > 0)

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()


@contextmanager
def leaving_process_group() -> Iterator[None]:
    """Leave the process group of a distributed training run at the end of the block.

    Otherwise, the threads of the group may abort a process that exits. The group is left only if all processes end the
    same way (last step, limit or signal). It is not left after other errors, since the other processes would have to
    respond; the launcher terminates them.
    """
    try:
        yield
    except Interrupted:
        _leave()
        raise
    _leave()


def _leave() -> None:
    if "torch.distributed" not in sys.modules:
        return
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
