"""The original HyperReenact, in a checkout that the user fetched and a Python that the user set up for it.

A worker of the protocol of `external` runs in that Python (`checkout_worker.py`) and calls the checkout's command line.
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
    """The contents of the checkout, with the weights in it. Raises `UsageError` where there is none."""
    return {"files": identify_command(_as_external(config), pairs)["files"]}


class Checkout:
    """Settings: `checkout`, the folder with `run_inference.py`; `python`, the interpreter of its environment; `timeout`
    in seconds a pair, in which the original loads its models anew."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._external = External(_as_external(config))

    def load(self, weights: Path | None, device: str) -> None:
        """Start the worker. Raises `UsageError` for weights, which lie in the checkout, and a missing interpreter."""
        if weights is not None:
            raise UsageError("the original takes its weights from pretrained_models in the checkout")
        self._external.load(None, device)

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """The first content frame in the pose of every driving frame, pair by pair."""
        return self._external.transfer(pairs, seed=seed)

    def close(self) -> None:
        """End the worker and what it started."""
        self._external.close()


def _as_external(config: Mapping[str, Any]) -> dict[str, Any]:
    """These settings as those of `external`."""
    import shlex

    folder = Path(str(config["checkout"])).expanduser()
    if not config["checkout"] or not (folder / SCRIPT).is_file():
        raise UsageError(
            f"checkout={config['checkout']}: no {SCRIPT} there; a checkout of StelaBou/HyperReenact is needed",
            hint="--set checkout=FOLDER --set python=FOLDER/venv/bin/python",
        )
    command = shlex.join([str(config["python"]), str(WORKER), SCRIPT])
    cwd = str(folder.resolve())
    return {"cmd": command, "name": "", "cwd": cwd, "files": ["."], "frames": "png", "timeout": config["timeout"]}
