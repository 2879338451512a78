"""The processes of one training: what the loop has to know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["AcceleratedProcesses", "OneProcess", "Processes"]


class Processes(Protocol):
    """The processes that train together and take the same steps."""

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and prints; the others are silent."""

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process: the same answer in all. Every process has to ask."""

    def wait(self) -> None:
        """Wait until all processes are here."""


class OneProcess:
    """A training in this process alone."""

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
