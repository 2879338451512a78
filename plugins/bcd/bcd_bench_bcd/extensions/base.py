"""The extension interface: named settings, and hooks into a training step.

The paper's method is `bcd_bench_bcd.paper`. Everything that our recipes add to it is an extension: one file with its
settings, its code, its source and its measured effect. A recipe without extensions is the paper's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_serializer,
    model_validator,
)
from torch import Tensor

from bcd_bench_bcd.paper import PAPER
from bcd_bench_bcd.paper.config import Direction, ModelConfig, ObjectiveConfig
from bcd_bench_bcd.paper.loss import cross_driven_halves
from bcd_bench_bcd.paper.quantizer import Quantized
from bcd_bench_bcd.paper.rng import Rng

__all__ = [
    "Batch",
    "Extension",
    "ExtensionSettings",
    "Extensions",
    "Keypoints",
    "Recipe",
    "Schedule",
    "StepState",
    "known_extensions",
]


class Schedule(BaseModel):
    """A value that depends on the training step.

    `points` are (step, value): linear in between, constant before the first and after the last one. Before step `start`
    and from step `stop` on the value is 0. A plain number is a constant schedule.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: tuple[tuple[int, float], ...] = ((0, 0.0),)
    start: int = 0
    stop: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"points": ((0, float(value)),)}
        if isinstance(value, Mapping) and "value" in value:
            remaining = {key: inner for key, inner in value.items() if key != "value"}
            return {"points": ((0, float(value["value"])),), **remaining}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Schedule:
        steps = [step for step, _ in self.points]
        if not steps or steps != sorted(set(steps)):
            raise ValueError("the points of a schedule must have increasing steps")
        if self.stop is not None and self.stop <= self.start:
            raise ValueError("a schedule must stop after it starts")
        return self

    @model_serializer
    def _short(self) -> Any:
        bounds: dict[str, Any] = {"start": self.start} if self.start else {}
        if self.stop is not None:
            bounds["stop"] = self.stop
        if len(self.points) > 1:
            return {"points": [list(point) for point in self.points], **bounds}
        value = self.points[0][1]
        return {"value": value, **bounds} if bounds else value

    def active(self, step: int) -> bool:
        """Whether `step` is between start and stop."""
        return self.start <= step and (self.stop is None or step < self.stop)

    def at(self, step: int) -> float:
        """The value at `step`."""
        if not self.active(step):
            return 0.0
        return float(np.interp(step, [p[0] for p in self.points], [p[1] for p in self.points]))

    @property
    def largest(self) -> float:
        return max(value for _, value in self.points)


def constant(value: float, *, start: int = 0, stop: int | None = None) -> Schedule:
    """`value` from step `start` on, up to (not including) step `stop`."""
    return Schedule(points=((0, value),), start=start, stop=stop)


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of the head, labels of a suite: `frames` float32 [B, T, P, 2] in the frames of clips, and `rest` [B, P,
    2] on the canonical feature map; x and y in -1..1 from border to border, NaN for points that are not visible."""

    frames: Tensor
    rest: Tensor

    def flipped(self, where: Tensor) -> Keypoints:
        """Keypoints with left and right swapped in the clips where bool [B] is true; `rest` is flipped as well."""
        sign = torch.ones(len(where), 1, 2, device=where.device)
        sign[where, :, 0] = -1
        return Keypoints(self.frames * sign[:, None], self.rest * sign)


@dataclass
class Batch:
    """Clips of a step as `BCD.values` takes them, [B, T, ...], and their keypoints if the recipe uses them."""

    clips: Tensor
    keypoints: Keypoints | None = None


class Recipe(Protocol):
    """The parts of a preset that an extension may check (see `bcd_bench_bcd.presets.base.Preset`)."""

    @property
    def model(self) -> ModelConfig: ...

    @property
    def objective(self) -> ObjectiveConfig: ...

    @property
    def extensions(self) -> Extensions: ...

    @property
    def train(self) -> Any: ...

    @property
    def inference(self) -> Any: ...


@dataclass
class StepState:
    """One training step on its way through the model; hooks read and modify it."""

    model: Any
    """The model that is trained, an `ExtendedBCD`."""
    step: int
    rng: Rng
    extensions: Extensions
    content_half: Tensor
    """Values that content is encoded from, float32 [B, T, C, h, w]."""
    driving_half: Tensor
    """Values that motion is encoded from."""
    target: Tensor
    """Values that the decoder should output."""
    keypoints: Keypoints | None = None
    direction: Direction = "forward"
    canonical: bool = True
    """Whether the step uses the canonical feature map, if the model has one."""
    denoising: bool = True
    """Whether the step trains the transformer."""
    shared_pass: bool = False
    """Whether the content halves are the driving halves in another order, so that one encoder pass serves both."""
    content_subset: Tensor | None = None
    """Indices of the frames that content is encoded from (None: all)."""
    penalty: Callable[[Tensor], Tensor] = torch.square
    """Pointwise error, the squared error by default."""
    content: Tensor = field(init=False)
    tokens: Tensor = field(init=False)
    """Content as the encoder outputs it, before any bottleneck."""
    content_latents: Tensor = field(init=False)
    """Motion latents of the content halves."""
    latents: Tensor = field(init=False)
    """Motion latents of the driving halves."""
    quantized: Quantized = field(init=False)
    clean: Tensor = field(init=False)
    """Patches of `target`."""
    warped: Any = None
    """The canonical features, warped by the motion."""
    total: Tensor | float = 0.0
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Values to log, by name."""

    @property
    def batch(self) -> int:
        return len(self.driving_half)

    @property
    def device(self) -> torch.device:
        return self.driving_half.device

    def chance(self, probability: float) -> Tensor:
        """bool [B], true with `probability` per clip."""
        return (self.rng.uniform(self.batch) < probability).to(self.device)

    def add(self, name: str, value: Tensor, weight: float) -> None:
        """Add `weight` times `value` (0-dim) to the loss, and log the value as `name` (see `Extension.logged`)."""
        self.terms[name] = value
        self.total = self.total + weight * value

    def error(self, difference: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean error [B] per clip of the differences of patches [B, T, S, values].

        If the patches are a random sample of all, `weight` [S] is the inverse of their probabilities, so that the
        expected value is the mean over all patches.
        """
        error = self.penalty(difference).mean((1, 3))
        error = error.mean(1) if weight is None else (error * weight).sum(1) / self.model.decoder.patch_count
        for extension in self.extensions:
            error = extension.add_error(self, difference, error)
        return error


class Extension(BaseModel):
    """Settings of one extension. Hooks do nothing unless an extension overrides them; they run in the order below, and
    within one hook in the order of `known_extensions`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    summary: ClassVar[str]
    """A line for tables and help."""
    labels: ClassVar[bool] = False
    """Whether it learns from labels of the suite."""
    needs_whole_batch: ClassVar[bool] = False
    """Whether it needs the whole batch at once: one process and one part per step."""
    needs_random_order: ClassVar[bool] = False
    """Whether it uses random numbers of the batch as a whole: requires train.order=random."""
    logged: ClassVar[tuple[str, ...]] = ()
    """Names of the terms it adds to the log; 0 in steps in which it does not compute them."""
    needs_pixels: ClassVar[bool] = False
    """Whether it modifies pixels, so that it does not apply to models of latents."""
    changes_model: ClassVar[bool] = False
    """Whether it changes what a model computes at inference: weights fit only models that use it as well."""
    training_only: ClassVar[frozenset[str]] = frozenset()
    """For an extension with `changes_model`: the settings that only training uses."""
    added_to: ClassVar[str] = ""
    """For an extension without tensors that no preset has: the extension of trained weights to which it is added."""

    def check(self, preset: Recipe) -> None:
        """Raise `ValueError` if the extension does not fit the rest of the preset."""
        if self.added_to:
            raise ValueError(f"{self.name} applies to trained weights with {self.added_to}")

    # ---- training ----
    def codebook_start(self) -> int | None:
        """The step at which the codebook is initialised from motion latents, if it is not the first."""
        return None

    def average_restarts(self) -> tuple[int, ...]:
        """Steps at which new parts of the model begin to train; the moving average restarts there."""
        return ()

    def prepare_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Select or change the clips of a step."""
        return batch

    def halves(self, clips: Tensor, rng: Rng) -> tuple[Tensor, Tensor] | None:
        """Content halves and driving halves of clips [B, T, ...], if they are not those of the paper."""
        return None

    def augment(self, state: StepState) -> None:
        """Called before the encoder."""

    def after_encoder(self, state: StepState) -> None:
        """Called once content and motion latents are computed."""

    def before_quantizer(self, state: StepState) -> None:
        """Called before the quantiser, which it may change."""

    def after_quantizer(self, state: StepState) -> None:
        """Called once the motion is quantised."""

    def content_drop(self, state: StepState) -> Tensor | None:
        """Mask bool [B] of clips whose content is replaced by the null, in addition to classifier-free guidance."""
        return None

    def loss_weight(self, weight: Tensor) -> Tensor:
        """Return EDM's loss weight [B], possibly changed."""
        return weight

    def add_error(self, state: StepState, difference: Tensor, error: Tensor) -> Tensor:
        """Return the error [B] per clip, possibly with a term of `difference` [B, T, S, values] added."""
        return error

    def after_decoder(self, state: StepState) -> None:
        """Called once denoising and rate losses are in `state.total`; may add terms."""


E = TypeVar("E", bound=Extension)


_KNOWN: dict[str, type[Extension]] = {}


def known_extensions() -> dict[str, type[Extension]]:
    """All extensions by name, in the order in which their hooks run (`bcd_bench_bcd.extensions.EXTENSIONS`)."""
    return _KNOWN


def declare(extensions: Mapping[str, type[Extension]]) -> None:
    """Set the known extensions; called once by the package, which imports all of them."""
    _KNOWN.clear()
    _KNOWN.update(extensions)


class Extensions:
    """The extensions of a recipe: at most one of each kind, in the order of `known_extensions`."""

    def __init__(self, extensions: Iterable[Extension] = ()) -> None:
        by_name = {extension.name: extension for extension in extensions}
        self._by_name = {name: by_name[name] for name in known_extensions() if name in by_name} if by_name else {}

    @classmethod
    def parse(cls, value: Any) -> Extensions:
        """Build from a mapping of names to settings (None: off). Raises `ValueError` for unknown names and fields."""
        if isinstance(value, Extensions):
            return value
        if not isinstance(value, Mapping):
            raise ValueError("extensions must be a mapping of names to settings, such as {'muon': {}}")
        known, extensions = known_extensions(), []
        for name, settings in value.items():
            if name not in known:
                near, known_text = difflib.get_close_matches(name, known, n=2), "; choose one of: " + ", ".join(known)
                raise ValueError(f"unknown extension {name!r}{_did_you_mean(near) or known_text}")
            if settings is None:
                continue
            try:
                extensions.append(known[name].model_validate(settings))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join([name, *map(str, first["loc"])])
                near = difflib.get_close_matches(where.rpartition(".")[2], known[name].model_fields, n=2)
                misspelled = first["type"] == "extra_forbidden" and near
                raise ValueError(f"{where}: {first['msg']}{_did_you_mean(near) if misspelled else ''}") from None
        return cls(extensions)

    def get(self, kind: type[E]) -> E | None:
        """The extension of this kind, or None if the recipe does not have it."""
        extension = self._by_name.get(kind.name)
        assert extension is None or isinstance(extension, kind)
        return extension

    def halves(self, clips: Tensor, rng: Rng, direction: Direction) -> tuple[Tensor, Tensor]:
        """Content halves and driving halves of clips [B, T, ...], from the extension that defines them or as in the
        paper."""
        for extension in self:
            halves = extension.halves(clips, rng)
            if halves is not None:
                return halves
        return cross_driven_halves(clips, direction)

    def dump(self) -> dict[str, Any]:
        """Names and settings as JSON."""
        return {name: extension.model_dump(mode="json") for name, extension in self._by_name.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    @property
    def recipe(self) -> tuple[str, ...]:
        """("paper",) without extensions, else their names."""
        return self.names or (PAPER,)

    def __iter__(self) -> Iterator[Extension]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extensions) and self._by_name == other._by_name

    def __hash__(self) -> int:
        return hash(tuple(self._by_name))

    def __repr__(self) -> str:
        return f"Extensions({', '.join(map(repr, self))})"


ExtensionSettings = Annotated[Extensions, PlainValidator(Extensions.parse), PlainSerializer(Extensions.dump)]
"""Type of a model field: extensions by name, as parsed by `Extensions.parse`."""


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean {' or '.join(near)}?" if near else ""
