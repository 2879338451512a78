"""What plugins hand in: light, frozen records that name things and say where the heavy code lives.

A spec is cheap to make and to list. The class behind `factory` ("package.module:Class") is imported only when used,
so a plugin module must not import torch (or anything slow) at its top level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # specs are what `list` loads, so NumPy stays out of them
    from bcd_bench.types.clip import ClipRef

__all__ = [
    "AssetSpec",
    "Column",
    "CommandSpec",
    "ExecutorSpec",
    "ExtractorSpec",
    "MethodSpec",
    "MetricSpec",
    "ReportFormatSpec",
    "ReportedRow",
    "SuiteSpec",
    "TrainRequest",
    "TrainableSpec",
    "TrainingVideos",
    "Weights",
]


@dataclass(frozen=True)
class AssetSpec:
    """A file users download or bring: never fetched at run time, always verified.

    `filename` is looked for on the asset search path. With `directory=True` the asset is a folder and `files` maps
    relative path -> sha256; otherwise `sha256` is that of the file. `size` in bytes. No `urls` means it has to be
    added by hand, and `how_to` says how.

    An empty `sha256` (and size 0) means any file of its kind, of the user's choice: it is looked for at the path in
    the environment variable `variable`, then under `filename` and the names in `also`, cannot be fetched, and its
    hash enters identities and records in place of the spec's. So does a folder without `files`.
    """

    name: str
    filename: str
    sha256: str
    size: int
    licence: str
    how_to: str
    urls: tuple[str, ...] = ()
    directory: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    restricted: str | None = None
    """A restriction of the licence ("research use only") that is printed at fetch and under every table."""
    also: tuple[str, ...] = ()
    variable: str = ""
    check: str = ""
    """A function, "package.module:name", that is called with the path by `assets add` and `assets verify`, and raises
    `UsageError` for a file (or folder) that cannot do its work. What loads it at run time has to check it itself."""

    @property
    def any_file(self) -> bool:
        """Whether the user chooses the file (or folder), so that there is no hash to verify."""
        return not self.sha256 and not self.files


@dataclass(frozen=True)
class Weights:
    """One named set of weights of a method. Shipped ones give `package` and `path` (a file in the wheel)."""

    name: str
    suites: tuple[str, ...] = ()
    """Suites for which this is the default choice; ("*",) for all."""
    package: str | None = None
    path: str | None = None
    asset: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class MethodSpec:
    """A method by name. `config` holds the defaults that `--set k=v` may change; they enter the run identity."""

    name: str
    version: str
    summary: str
    factory: str
    licence: str = ""
    paper: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[Weights, ...] = ()
    assets: tuple[str, ...] = ()
    batch_size: int = 16
    """Pairs per `transfer` call; fixed in the plan, since floating point may depend on it."""
    metrics: tuple[str, ...] = ()
    """Metrics of what this method alone can tell (`Clip.info`), scored beside the suite's in a plain run."""
    extractors: tuple[str, ...] = ()
    """Extractors whose features of content and motion clips the method wants: see `Method.transfer`."""
    identify: str = ""
    """A function, "package.module:name", for methods whose configuration names files or commands. It is called as
    `identify(config, pairs)` when a run over these pairs is planned, and returns the JSON mapping that stands for the
    configuration in the run's identity and record: hashes of contents in place of paths. Raises `UsageError` for a
    configuration that cannot work."""
    seeded_by: str = ""
    """The setting that, given any value, puts pseudo-random weights in the place of learned ones. A run with it needs
    no weights, tries the plumbing alone, is marked as seeded, and is never ranked."""
    describe_weights: str = ""
    """A function, "package.module:name", for methods whose weights may come of different recipes. It is called with the
    path of the weights when a run is planned and returns their `WeightsRecipe`, which goes into the record and every
    report. Raises `UsageError` for a file that is not of the method."""
    reference: bool = False
    """Whether it is a reference method, such as copy-content or oracle: shown in every table, never ranked."""


@dataclass(frozen=True)
class WeightsRecipe:
    """How a set of weights was trained, in names: what tells two rows of one method apart."""

    label: str
    """Short, for the row: "paper", "+ 13 extensions"."""
    parts: tuple[str, ...] = ()
    """The techniques, for the notes below a table."""
    labels: tuple[str, ...] = ()
    """Those that learned from labels of the suite; a recipe without any is self-supervised."""


@dataclass(frozen=True)
class MetricSpec:
    """A metric by name. `level`: "pair" gives one row per pair, "set" a mergeable state over all outputs."""

    name: str
    version: str
    summary: str
    factory: str
    level: Literal["pair", "set"] = "pair"
    suites: tuple[str, ...] = ("*",)
    extractors: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()
    needs_target: bool = False
    measures: tuple[str, ...] = ()
    """What it is about, of "identity", "motion", "appearance", "time"; `validate-metrics` marks reactions to anything
    else as side effects. Empty: not said, so nothing is marked."""
    licence: str = ""


@dataclass(frozen=True)
class SuiteSpec:
    """A suite by name. `factory` is called with `data: Mapping[str, Path]` and returns a `Suite`.

    `data` names the `--data NAME=PATH` entries it needs, `assets` the assets; the factory gets the paths of both.
    """

    name: str
    version: str
    summary: str
    factory: str
    data: tuple[str, ...] = ()
    data_help: Mapping[str, str] = field(default_factory=dict)
    """Data name -> who has it and what runs without it: said, with exit code 3, where it is not given."""
    assets: tuple[str, ...] = ()
    licence: str = ""
    reported: tuple[ReportedRow, ...] = ()
    training: str = ""
    """A factory, called like `factory`, that returns the suite's `TrainingClips`; empty where it has none."""
    training_videos: str = ""
    """A factory, called like `factory`, that returns the suite's `TrainingVideos`; empty where it has none."""


@dataclass(frozen=True)
class ReportedRow:
    """Figures copied from a paper: shown as "reported", never ranked, never merged with measured rows."""

    method: str
    source: str
    metrics: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class ExtractorSpec:
    """Clip -> arrays, computed once and cached by (clip hash, extractor, version, weights hash, preprocessing).

    `extractors` names others whose features this one needs: they are extracted first and handed to `extract`.
    """

    name: str
    version: str
    summary: str
    factory: str
    assets: tuple[str, ...] = ()
    extractors: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainableSpec:
    """Something `bcd-bench train NAME` trains. `factory` is called with a `TrainRequest` and does the work.

    `presets` maps preset name -> one-line summary, `default_preset` is used when none is named.
    """

    name: str
    version: str
    summary: str
    factory: str
    presets: Mapping[str, str]
    default_preset: str
    settings: str = ""
    """A function, "package.module:name", that lists the settings of a preset for `show trainable NAME --preset P`. It
    is called with the preset's name and returns (name, value, meaning) of every setting that `--set` may change."""


@dataclass(frozen=True)
class TrainRequest:
    """What `bcd-bench train` was asked. `overrides` come from `--set k=v` (JSON-decoded where they parse)."""

    preset: str
    overrides: Mapping[str, Any]
    out: Path
    resume: bool
    max_steps: int | None
    max_minutes: float | None
    device: str
    data: Mapping[str, Path]
    plan_only: bool
    seed: int | None = None


@dataclass(frozen=True)
class ReportFormatSpec:
    """A report format: `factory` names a callable `(rows: list[ReportRow], *, suite: str | None) -> str`."""

    name: str
    summary: str
    factory: str


@dataclass(frozen=True)
class ExecutorSpec:
    """How batches are spread over processes or machines. `factory` names an `execution.Executor`."""

    name: str
    summary: str
    factory: str


@dataclass(frozen=True)
class CommandSpec:
    """One more verb. `factory` names a plain function that typer turns into a command."""

    name: str
    summary: str
    factory: str


@dataclass(frozen=True)
class Column:
    """One number a metric yields.

    kind: "mean" averages a per-pair number, "rate" a per-pair 0/1 in percent (Wilson interval beside the clustered
    bootstrap), "derived" is computed over all rows by `Metric.derive` (entropies, IS), "set" by a set metric.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    definition: str
    kind: Literal["mean", "rate", "derived", "set"] = "mean"
    decimals: int = 2
    headline: bool = True
    """Shown in tables; others appear in JSON and CSV only."""
    frames: str = ""
    """The column of the same row, or of the same set, that holds the share of the frames, 0 to 100 percent, on which
    the value rests. A metric that leaves frames out (no face found) must name it: see docs/metrics.md."""


@dataclass(frozen=True)
class TrainingVideos:
    """What a suite offers to learn from as whole videos of any length, disjoint from its pairs' clips.

    `videos` load as clips of the suite's frame size at `fps` frames per second; `notes` hold a line for each file that
    is left out.
    """

    videos: tuple[ClipRef, ...]
    fps: float
    notes: tuple[str, ...] = ()

    # Optional method `close()`: called once when no more pairs come, also after Ctrl-C, for methods that hold
    # processes or files.
