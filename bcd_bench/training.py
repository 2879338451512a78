"""What a trainable asks of the harness: the training split of a suite, its log on resuming, its end."""

from __future__ import annotations

import json
from pathlib import Path

from bcd_bench.atomic import write_text_atomic
from bcd_bench.errors import Interrupted, UsageError
from bcd_bench.specs import TrainingClips, TrainRequest, load_factory

__all__ = ["forget_after", "open_training_clips", "say_unfinished"]


def open_training_clips(suite: str, request: TrainRequest) -> TrainingClips:
    """The training split that the suite's plugin offers.

    Raises `UsageError` where it has none, and for `--data` that the suite has no use for.
    """
    from bcd_bench.plugins import load_registry

    spec = load_registry().get("suites", suite)
    if not spec.training:
        raise UsageError(f"suite {suite!r} has no training split", hint="choose another with --set train.suite=NAME")
    for name in request.data:
        if name not in spec.data:
            raise UsageError(f"--data {name}: suite {suite!r} takes {', '.join(spec.data) or 'no data'}")
    clips: TrainingClips = load_factory(spec.training)(request.data)
    return clips


def say_unfinished(done: int, last: int, *, stopped: bool, limit: str, aloud: bool = True) -> None:
    """Say how a saved training that ended before its last step goes on; nothing where it reached that.

    `limit` names what ended it if nobody stopped it, and is printed only `aloud`. Raises `Interrupted` if somebody did.
    """
    if done >= last:
        return
    message = f"{'stopped' if stopped else limit} at step {done} of {last}; everything is saved"
    if stopped:
        raise Interrupted(message, hint="run the same command with --resume")
    if aloud:
        print(message + "; the same command with --resume continues")


def forget_after(log: Path, step: int) -> None:
    """Drop the lines of a log (JSON with a "step" each) that the checkpoint of `step` knows nothing of: their steps are
    made again.
    """
    kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
    write_text_atomic(log, "".join(f"{line}\n" for line in kept))
