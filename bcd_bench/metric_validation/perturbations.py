"""Controlled perturbations of ground-truth targets, used by `validate-metrics` to measure the sensitivity of metrics.

The perturbations defined here change pixels and the order of frames, so they apply to every suite with targets. A suite
that can re-render its targets (with another subject or pose) provides more of them in `Suite.perturbations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcd_bench.plugin.loading import load_factory
from bcd_bench.run.fingerprint import pair_seed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bcd_bench.types.clip import Clip
    from bcd_bench.types.pair import Pair

__all__ = ["GENERAL", "TRUTH_KEY", "Perturbation"]

TRUTH_KEY = "truth"
"""Key of the true errors of a perturbed clip: `Clip.info[TRUTH_KEY]` maps column -> true value."""

REFERENCE_HEIGHT = 256
"""Severities in pixels refer to frames of this height and scale with the height."""


@dataclass(frozen=True)
class Perturbation:
    """A named perturbation. `function` is "package.module:name", called as `function(pair, dose, seed)`; it returns the
    perturbed target of the pair as a `Clip`. A larger severity (`dose`) yields the same perturbation, only stronger.

    `changes` lists the affected aspects: any of "identity", "motion", "appearance", "time". A metric that measures
    none of them (`MetricSpec.measures`) should not react.
    """

    name: str
    unit: str
    doses: tuple[float, ...]
    """Severities, positive and ascending; 0 is the unperturbed target."""
    summary: str
    changes: tuple[str, ...]
    function: str

    def apply(self, pair: Pair, dose: float, seed: int) -> Clip:
        """Return the target of `pair` perturbed with severity `dose`."""
        clip: Clip = load_factory(self.function)(pair, dose, seed)
        return clip


def _target(pair: Pair) -> Clip:
    if pair.target is None:
        raise ValueError(f"pair {pair.id} has no target")
    return pair.target.load()


def _with_frames(clip: Clip, frames: npt.NDArray[Any]) -> Clip:
    import numpy as np

    from bcd_bench.types.clip import Clip

    if frames.dtype != np.uint8:
        frames = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return Clip(np.ascontiguousarray(frames), clip.fps, clip.id)


def _rng(pair: Pair, fault: str, seed: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(pair_seed(seed, f"{fault}/{pair.id}"))


def blur(pair: Pair, dose: float, seed: int) -> Clip:
    """Gaussian blur of every frame with a standard deviation of `dose` pixels (at a height of 256)."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    del seed
    clip = _target(pair)
    sigma = dose * clip.frames.shape[1] / REFERENCE_HEIGHT
    return _with_frames(clip, gaussian_filter(clip.frames.astype(np.float32), (0, sigma, sigma, 0), mode="nearest"))


def flicker(pair: Pair, dose: float, seed: int) -> Clip:
    """Brighten or darken every frame by `dose` grey levels, chosen at random."""
    import numpy as np

    clip = _target(pair)
    signs = _rng(pair, "flicker", seed).choice([-1.0, 1.0], len(clip))
    return _with_frames(clip, clip.frames + dose * signs[:, None, None, None].astype(np.float32))


def frame_shuffle(pair: Pair, dose: float, seed: int) -> Clip:
    """Cyclically permute a fraction `dose` (0 to 1) of the frames, at least two; the others are unchanged."""
    import numpy as np

    clip = _target(pair)
    count = min(len(clip), max(2, round(dose * len(clip))))
    moved = _rng(pair, "frame-shuffle", seed).permutation(len(clip))[:count]
    order = np.arange(len(clip))
    order[moved] = np.roll(moved, 1)
    return _with_frames(clip, clip.frames[order])


def delay(pair: Pair, dose: float, seed: int) -> Clip:
    """Delay the motion by `dose` frames, repeating the first frame."""
    import numpy as np

    del seed
    clip = _target(pair)
    return _with_frames(clip, clip.frames[np.maximum(0, np.arange(len(clip)) - round(dose))])


GENERAL = (
    Perturbation(
        "blur",
        "px at 256",
        (0.5, 1.0, 2.0, 4.0),
        "A Gaussian blur of every frame.",
        ("appearance",),
        "bcd_bench.metric_validation.perturbations:blur",
    ),
    Perturbation(
        "flicker",
        "grey levels",
        (4.0, 8.0, 16.0, 32.0),
        "Frames brighter or darker by chance.",
        ("appearance", "time"),
        "bcd_bench.metric_validation.perturbations:flicker",
    ),
    Perturbation(
        "frame-shuffle",
        "share of frames",
        (0.25, 0.5, 1.0),
        "Frames that have changed places.",
        ("motion", "time"),
        "bcd_bench.metric_validation.perturbations:frame_shuffle",
    ),
    Perturbation(
        "delay",
        "frames",
        (1.0, 2.0, 4.0),
        "The motion comes too late.",
        ("motion",),
        "bcd_bench.metric_validation.perturbations:delay",
    ),
)
"""Perturbations that apply to every suite with targets."""
