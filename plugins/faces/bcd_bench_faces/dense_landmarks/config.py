"""Settings and presets of the dense landmark training. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from bcd_bench.plugin.settings import change_settings
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import PRECISIONS, TRACKERS, TrackerName
from bcd_bench.types.errors import UsageError

__all__ = ["PRESETS", "Recipe", "recipe_of"]


@dataclass(frozen=True)
class Recipe:
    """A training recipe; `--set` changes its fields."""

    renders: int
    """Number of distinct training renders."""
    first: int
    """Number of them that the first step needs; the others are rendered during training."""
    growth: int
    """Number of additional renders that become available per step."""
    render_side: int
    """Side of a render in pixels; the face takes a little more than half of it."""
    points: int
    side: int
    """Side of a crop in pixels, as seen by the network."""
    widths: str
    """Channels at 1/2, 1/4, 1/8 and 1/16 of the crop's resolution, as "16,32,80,160"."""
    blocks: str
    """Residual blocks at the last three of these resolutions, as "1,2,1"."""
    steps: int
    batch: int
    hidden: int = 256
    lr: float = 2e-3
    """Learning rate of AdamW: the first convolution, the outputs, scales and offsets."""
    muon_lr: float = 0.02
    """Learning rate of Muon: the other convolutions and the hidden layer."""
    weight_decay: float = 0.02
    warmup: int = 100
    """Steps of learning-rate warm-up, followed by a cosine decay."""
    average: float = 0.998
    """Decay of the moving average of the weights; the average is what is shipped."""
    beta: float = 0.5
    """Weight of points in the likelihood: their sigma to the power of 2 beta (Seitzer et al., ICLR 2022)."""
    bend: float = 0.0
    """Fraction of faces bent by a smooth displacement, so that the network does not memorise the few renders."""
    face_weight: float = 1.0
    """Weight of the cross-entropy of face or no face."""
    shape_weight: float = 10.0
    """Weight of the error of predicted shape coefficients and expressions (`displacements.Displacements`)."""
    workers: int = 1
    """Number of rendering processes, and of threads that prepare a batch; results do not depend on it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 if matrix products are faster in it."""
    log_every: int = 25
    save_every: int = 100
    check_every: int = 250
    """Steps between evaluations on the validation renders."""
    seed: int = 0
    init: str = ""
    """Path of weights of an earlier training to start from; "" for none."""
    tracker: TrackerName = "none"
    """Experiment tracker in addition to log.jsonl: "tensorboard" or "trackio"."""

    @property
    def network_widths(self) -> tuple[int, ...]:
        return _numbers(self.widths, 4)

    @property
    def network_blocks(self) -> tuple[int, ...]:
        return _numbers(self.blocks, 3)

    def identity(self) -> dict[str, Any]:
        """Settings that must not change when a run is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in ("workers", "init", "tracker")}


PRESETS: Final[Mapping[str, Recipe]] = {
    "small": Recipe(
        43_008, 3_072, 4, 144, 320, 96, "24,48,96,192", "1,2,2", 11_500, 48, hidden=384, bend=0.3, average=0.999,
        warmup=500, log_every=50, save_every=250, check_every=500,
    ),
    "large": Recipe(
        120_000, 120_000, 0, 192, 320, 128, "32,64,128,256", "2,3,2", 60_000, 128, hidden=384, bend=0.6, average=0.9995,
        warmup=1_000, workers=8, save_every=1_000, check_every=2_000, log_every=100,
    ),
    "tiny": Recipe(
        64, 32, 4, 72, 60, 48, "8,16,24,32", "0,1,0", 12, 8, hidden=64, warmup=2, save_every=4, check_every=6,
        log_every=2,
    ),
}  # fmt: skip


def recipe_of(request: TrainRequest) -> Recipe:
    """The preset with the changes of `--set` and `--seed`. Raises `UsageError` for invalid settings."""
    recipe = change_settings(PRESETS[request.preset], request.overrides, owner="dense-landmarks")
    if request.seed is not None:
        recipe = replace(recipe, seed=request.seed)
    for name in ("renders", "first", "points", "steps", "batch", "workers", "lr", "muon_lr", "hidden"):
        if getattr(recipe, name) <= 0:
            raise UsageError(f"--set {name}={getattr(recipe, name)}: must be positive")
    if min(recipe.log_every, recipe.save_every, recipe.check_every) < 1 or recipe.growth < 0:
        raise UsageError("log_every, save_every and check_every must be positive, and growth must not be negative")
    if not 32 <= recipe.side <= recipe.render_side:
        raise UsageError(f"--set side={recipe.side}: must be at least 32 and at most render_side")
    for name, choices in (("precision", PRECISIONS), ("tracker", TRACKERS)):
        if getattr(recipe, name) not in choices:
            raise UsageError(f"--set {name}={getattr(recipe, name)}: must be one of {', '.join(choices)}")
    if not (0 <= recipe.average < 1 and 0 <= recipe.bend <= 1):
        raise UsageError(f"--set average={recipe.average}, bend={recipe.bend}: must be in 0..1")
    if min(*recipe.network_widths) < 1 or min(recipe.network_blocks) < 0:
        raise UsageError("widths must be positive, and blocks must not be negative")
    return recipe


def _numbers(text: str, count: int) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != count or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"{text!r} must be {count} whole numbers separated by commas")
    return tuple(int(part) for part in parts)
