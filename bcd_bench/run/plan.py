"""Run plans, fixed before a run starts: pairs in batches, seeds, method, weights and the run's fingerprint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bcd_bench.assets.hashing import canonical_json, hash_json
from bcd_bench.assets.store import AssetStore, cache_folder
from bcd_bench.assets.weights import ResolvedWeights, resolve_weights
from bcd_bench.io.atomic import write_text_atomic
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.plugin.settings import first_error
from bcd_bench.plugin.specs import AssetSpec, MethodSpec, WeightsRecipe
from bcd_bench.plugin.suites import checked_ids
from bcd_bench.results.schema import RecipeInfo
from bcd_bench.run.fingerprint import pair_seeds, run_id, run_identity
from bcd_bench.scoring.features import FeatureStore, extractor_assets
from bcd_bench.types.errors import UsageError
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench.util.collector import collector_paused
from bcd_bench.util.devices import device_name

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = [
    "PIXELS_PER_BATCH",
    "PLAN_FORMAT",
    "PlannedMethod",
    "PlannedPair",
    "PlannedSuite",
    "PlannedWeights",
    "RunPlan",
    "make_plan",
    "pairs_per_block",
    "read_plan",
    "resolved_config",
]

PLAN_FORMAT: Literal[1] = 1
"""Bump when the meaning of the files in a run folder changes; folders of a different format are rejected."""

PIXELS_PER_BATCH = 16 * 64 * 64
"""Frame area times pairs in a block of scoring: 4 pairs at 128 x 128, 1 at 256 x 256. A block is the smallest piece of
work of scoring, so larger ones would leave workers idle at the end of a run."""
PAIRS_PER_BLOCK = 16
"""Most pairs in a block of scoring, so that small frames do not make large ones."""


def pairs_per_block(size: tuple[int, int], pixels: int = PIXELS_PER_BATCH) -> int:
    """Pairs that are scored together, for frames of `size` (height, width) in pixels: 1 to 16."""
    return max(1, min(PAIRS_PER_BLOCK, pixels // (size[0] * size[1])))


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedSuite(_Model):
    """The suite of a run: `n_pairs` is the size of the whole suite, `size` is (height, width) in pixels."""

    name: str
    version: str
    manifest_sha256: str
    n_pairs: int
    size: tuple[int, int]
    fps: float
    data: dict[str, str] = Field(default_factory=dict)
    """`--data` paths on this machine, so that the run can be scored again. Not part of the fingerprint."""
    notes: tuple[str, ...] = ()
    """Notes of the suite on how it was built (`Suite.notes`). Not part of the fingerprint."""


class PlannedMethod(_Model):
    """The method, its resolved configuration, and its plugin with the hash of the plugin's source."""

    name: str
    version: str
    config: dict[str, Any]
    reference: bool
    plugin: str
    dist: str
    dist_version: str
    source_sha256: str


class PlannedWeights(_Model):
    """The name and hash of the weights, and the recipe they were trained with if the method reports it."""

    name: str
    sha256: str
    recipe: RecipeInfo | None = None


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """One pair and its seed (63 bits, `fingerprint.pair_seed`). A plan may have 100,000 of them, hence no model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    seed: int


class RunPlan(_Model):
    """The complete plan of a run, saved as `plan.json`. `weights_path` is not saved."""

    format: Literal[1] = 1
    run_id: str
    identity: dict[str, Any]
    suite: PlannedSuite
    method: PlannedMethod
    weights: PlannedWeights | None
    seeded: bool = False
    """True if the method uses random weights (`MethodSpec.seeded_by`), which only tests the pipeline."""
    unhashed: bool = False
    """True if the method is an object without a fingerprint; such a run appears in tables but is never ranked."""
    seed: int
    limit: int | None
    selected: bool = False
    """True if the pairs were chosen by id (`run --pair`), in the order of the suite."""
    device: str
    dtype: str
    batch_size: int
    pairs: tuple[PlannedPair, ...]
    weights_path: Path | None = Field(default=None, exclude=True)

    @property
    def partial(self) -> bool:
        """True if `limit` or a selection excludes pairs of the suite; such a run is never ranked."""
        return len(self.pairs) < self.suite.n_pairs

    @property
    def folder(self) -> Path:
        """`<suite>@<version>/<method>/<run_id>`, below the folder of all runs."""
        return Path(f"{self.suite.name}@{self.suite.version}") / self.method.name / self.run_id

    def suite_pairs(self, suite: Suite) -> Sequence[Pair]:
        """The planned pairs of the suite, in order. Raises `UsageError` if the suite has others."""
        pairs: Sequence[Pair] = suite.pairs[: len(self.pairs)]
        if self.selected:
            wanted = {planned.id for planned in self.pairs}
            pairs = [pair for pair in suite.pairs if pair.id in wanted]
        for index, planned in enumerate(self.pairs):
            if index >= len(pairs) or pairs[index].id != planned.id:
                there = repr(pairs[index].id) if index < len(pairs) else "missing"
                raise UsageError(f"pair {index} of suite {suite.name!r} is {there}, not {planned.id!r}")
        return pairs

    def batches(self) -> Iterator[range]:
        """Indices into `pairs`, batch by batch: the unit of one `transfer` call and of resuming."""
        for start in range(0, len(self.pairs), self.batch_size):
            yield range(start, min(start + self.batch_size, len(self.pairs)))

    @property
    def part_size(self) -> int:
        """Pairs in the smallest part that `--shard` can assign: whole batches of generating and blocks of scoring."""
        return math.lcm(self.batch_size, pairs_per_block(self.suite.size))

    def save(self, path: Path) -> None:
        write_text_atomic(path, self.model_dump_json(indent=1) + "\n")


@collector_paused()
def read_plan(path: Path) -> RunPlan:
    """Read a `plan.json`. Raises `UsageError` if it is missing, damaged, or of a different version."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.parent} is not a run folder: plan.json cannot be read ({error.strerror})") from None
    try:
        return RunPlan.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(path, text, first_error(error)) from None


def _unreadable(path: Path, text: bytes, reason: str) -> UsageError:
    """Why `text` is not a plan of this version."""
    import json

    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return UsageError(f"{path} is damaged: not JSON", hint="use a different --out")
    version = content.get("format") if isinstance(content, dict) else None
    if version != PLAN_FORMAT:
        return UsageError(
            f"{path.parent} was written by a different version of bcd-bench (run folder format {version}, this one is "
            f"{PLAN_FORMAT})",
            hint="use that version of bcd-bench or a different --out",
        )
    return UsageError(f"{path} is damaged: {reason}", hint="use a different --out")


def _asset_sha256(spec: AssetSpec, store: AssetStore) -> str:
    if spec.any_file:
        return store.status_of(spec.name).sha256
    return hash_json(dict(spec.files)) if spec.directory else spec.sha256


def resolved_config(spec: MethodSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The default settings of a method, changed by `given`. Raises `UsageError` for settings that do not exist."""
    for key, value in {**spec.config, **given}.items():
        try:
            canonical_json(value)
        except UsageError as error:
            raise UsageError(f"setting {key!r} of method {spec.name!r} is {error}") from None
    for key in given:
        if key not in spec.config:
            from bcd_bench.plugin.registry import nearest

            raise UsageError(f"method {spec.name!r} has no setting {key!r}; {nearest(key, spec.config)}")
    return {**spec.config, **given}


def _identified(spec: MethodSpec, settings: Mapping[str, Any], pairs: Sequence[Pair]) -> Mapping[str, Any]:
    """The settings as they enter the fingerprint: unchanged, or as `spec.identify` returns them."""
    if not spec.identify:
        return settings
    with plugin_code(f"method {spec.name!r}", "cannot be planned"):
        fingerprinted = load_factory(spec.identify)(settings, pairs)
        if not isinstance(fingerprinted, Mapping):
            raise UsageError(
                f"method {spec.name!r} is broken: {spec.identify} returned a {type(fingerprinted).__name__}"
            )
        canonical_json(dict(fingerprinted))
        return fingerprinted


def _planned_weights(spec: MethodSpec, resolved: ResolvedWeights) -> PlannedWeights:
    """The weights, with their recipe if the method reports it."""
    recipe = None
    if spec.describe_weights:
        with plugin_code(f"method {spec.name!r}", "cannot describe its weights"):
            described = load_factory(spec.describe_weights)(resolved.path)
            if not isinstance(described, WeightsRecipe):
                kind = type(described).__name__
                raise UsageError(f"method {spec.name!r} is broken: {spec.describe_weights} returned a {kind}")
            recipe = RecipeInfo(label=described.label, parts=list(described.parts), labels=list(described.labels))
    return PlannedWeights(name=resolved.name, sha256=resolved.sha256, recipe=recipe)


def _extractor_identities(registry: Registry, spec: MethodSpec, device: str) -> dict[str, str]:
    """Extractor -> cache key, for the extractors whose features the method needs."""
    with plugin_code(f"method {spec.name!r}", "cannot load its extractors"):
        store = FeatureStore(registry, device=device, root=cache_folder() / "features")
        return {name: store.identity(name) for name in spec.extractors}


def _selected(suite: Suite, wanted: Sequence[str], limit: int | None) -> list[Pair]:
    """The pairs with these ids, in the order of the suite. An item may be a comma-separated list, as ids rarely have
    commas. Raises `UsageError` for an unknown id, with the closest ones."""
    if limit is not None:
        raise UsageError("pairs are chosen by --limit or by --pair, but not by both")
    known = set(checked_ids(suite, len(suite.pairs)))
    ids = {part for item in wanted for part in ([item] if item in known else item.split(",")) if part}
    for name in sorted(ids - known):
        close = get_close_matches(name, known, n=3, cutoff=0.6) or [suite.pairs[0].id, suite.pairs[-1].id]
        raise UsageError(f"suite {suite.name!r} has no pair {name!r}; it has {len(known)}, such as {', '.join(close)}")
    if not ids:
        raise UsageError("--pair needs at least one id")
    return [pair for pair in suite.pairs if pair.id in ids]


def make_plan(
    registry: Registry,
    method_name: str,
    suite: Suite,
    *,
    weights: str | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    limit: int | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    data: Mapping[str, Path] | None = None,
    pairs: Sequence[str] | None = None,
) -> RunPlan:
    """Plan a run without running it.

    `weights` is the name of weights of the method or a path. `config` changes the method's default settings. `limit`
    keeps only the first pairs of the suite; a limit of at least the number of pairs has no effect. `pairs` keeps only
    those with these ids instead. `dtype` is for
    methods with a setting `dtype`; other methods compute in float32. `device="auto"` is resolved here. Raises
    `UsageError` for unknown names and settings or an invalid limit, and `MissingAssetError` for weights or assets that
    are missing or altered.
    """
    device = device_name(device)
    spec: MethodSpec = registry.method(method_name)
    owner = registry.owner("methods", method_name)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: must be at least 1")
    if spec.batch_size < 1:
        raise UsageError(f"method {method_name!r} is broken: its batch_size is {spec.batch_size}")
    total = len(suite.pairs)
    if total == 0:
        raise UsageError(f"suite {suite.name!r} has no pairs")
    limit = None if limit is None or limit >= total else limit
    selection = None if pairs is None else _selected(suite, pairs, limit)
    settings = resolved_config(spec, config or {})
    if dtype is not None and "dtype" not in spec.config:
        raise UsageError(f"method {method_name!r} has no setting 'dtype'")
    if dtype is not None:
        settings["dtype"] = dtype
    ids = [pair.id for pair in selection] if selection is not None else checked_ids(suite, limit or total)
    store = AssetStore(registry)
    for asset in [*spec.assets, *extractor_assets(registry, spec.extractors)]:
        store.find(asset)
    seeded = bool(spec.seeded_by) and settings.get(spec.seeded_by) is not None
    if seeded and weights is not None:
        raise UsageError(f"method {method_name!r} accepts --weights or --set {spec.seeded_by}=N, but not both")
    resolved = None if seeded else resolve_weights(spec, suite.name, weights, store)
    hashes = [] if resolved is None else [resolved.sha256]
    hashes += [_asset_sha256(registry.asset(asset), store) for asset in spec.assets]
    identity = run_identity(
        manifest_sha256=suite.manifest_sha256,
        limit=limit,
        method=spec.name,
        method_version=spec.version,
        config=_identified(spec, settings, suite.pairs[: len(ids)] if selection is None else selection),
        source_sha256=owner.source_sha256,
        weights=hashes,
        seed=seed,
        dtype=str(settings.get("dtype", "float32")),
        extractors=_extractor_identities(registry, spec, device),
        pairs=None if selection is None else ids,
    )
    return RunPlan(
        run_id=run_id(identity),
        identity=identity,
        suite=PlannedSuite(
            name=suite.name,
            version=suite.version,
            manifest_sha256=suite.manifest_sha256,
            n_pairs=total,
            size=suite.size,
            fps=suite.fps,
            data={name: str(path.absolute()) for name, path in (data or {}).items()},
            notes=suite.notes,
        ),
        method=PlannedMethod(
            name=spec.name,
            version=spec.version,
            config=settings,
            reference=spec.reference,
            plugin=owner.name,
            dist=owner.dist,
            dist_version=owner.version,
            source_sha256=owner.source_sha256,
        ),
        weights=None if resolved is None else _planned_weights(spec, resolved),
        seeded=seeded,
        unhashed=not owner.hashed,
        seed=seed,
        limit=limit,
        selected=selection is not None,
        device=device,
        dtype=str(settings.get("dtype", "float32")),
        batch_size=spec.batch_size,
        pairs=tuple(map(PlannedPair, ids, pair_seeds(seed, ids))),
        weights_path=None if resolved is None else resolved.path,
    )
