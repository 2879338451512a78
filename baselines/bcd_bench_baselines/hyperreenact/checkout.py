"""The original HyperReenact, in a checkout and a Python environment provided by the user.

A worker for the protocol of `external` runs in that Python (`checkout_worker.py`) and calls the checkout's command
line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.external.method import External
from bcd_bench_baselines.external.method import identify as identify_command

__all__ = ["Checkout", "identify"]

SCRIPT = "run_inference.py"
WORKER = Path(__file__).with_name("checkout_worker.py")


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Hash of the checkout's contents, including the weights. Raises `UsageError` if there is none."""
    return {"files": identify_command(_as_external(config), pairs)["files"]}


class Checkout:
    """Settings: `checkout`, the folder with `run_inference.py`; `python`, the interpreter of its environment; `timeout`
    in seconds per pair, for which the original reloads its models each time."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._external = External(_as_external(config))

    def load(self, weights: Path | None, device: str) -> None:
        """Start the worker. Raises `UsageError` if weights are passed (they are in the checkout) or the interpreter is
        missing."""
        if weights is not None:
            raise UsageError("the original loads its weights from pretrained_models in the checkout")
        self._external.load(None, device)

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """The first content frame in the pose of every driving frame, pair by pair."""
        return self._external.transfer(pairs, seed=seed)

    def close(self) -> None:
        """Stop the worker and its child processes."""
        self._external.close()


def _as_external(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert these settings to those of `external`."""
    import shlex

    folder = Path(str(config["checkout"])).expanduser()
    if not config["checkout"] or not (folder / SCRIPT).is_file():
        raise UsageError(
            f"checkout={config['checkout']}: {SCRIPT} not found; a checkout of StelaBou/HyperReenact is required",
            hint="--set checkout=FOLDER --set python=FOLDER/venv/bin/python",
        )
    command = shlex.join([str(config["python"]), str(WORKER), SCRIPT])
    cwd = str(folder.resolve())
    return {"cmd": command, "name": "", "cwd": cwd, "files": ["."], "frames": "png", "timeout": config["timeout"]}
