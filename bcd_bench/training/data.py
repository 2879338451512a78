"""The training split of a suite, available to any trainer."""

from __future__ import annotations

from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.types.errors import UsageError

__all__ = ["open_training_clips"]


def open_training_clips(suite: str, request: TrainRequest) -> TrainingClips:
    """The training split provided by the plugin of `suite`.

    Raises `UsageError` if the suite has no training split, or does not use one of the names in `--data`.
    """
    from bcd_bench.plugin.registry import load_registry

    spec = load_registry().get("suites", suite)
    if not spec.training:
        raise UsageError(
            f"suite {suite!r} has no training split", hint="choose a different suite with --set train.suite=NAME"
        )
    for name in request.data:
        if name not in spec.data:
            raise UsageError(f"--data {name}: suite {suite!r} accepts {', '.join(spec.data) or 'no data'}")
    clips: TrainingClips = load_factory(spec.training)(request.data)
    return clips
