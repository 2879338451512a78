"""Cached features of clips: one landmark pass serves every metric that needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bcd_bench.assets.hashing import hash_json
from bcd_bench.io.npz import load_tree, save_tree
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.loading import load_factory
from bcd_bench.types.clip import Clip, ReadOnlyDict
from bcd_bench.types.errors import BcdBenchError, UsageError, one_line
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.cache import CacheLimit

if TYPE_CHECKING:
    from bcd_bench.plugin.base import Extractor
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExtractorSpec

__all__ = ["BatchFeatures", "FeatureStore", "extract_usable", "extractor_assets", "frozen", "needed_extractors"]

_FAILED = "__failed__"
ROLES = ("output", "content", "motion", "target")
T = TypeVar("T")


def needed_extractors(registry: Registry, names: Iterable[str]) -> list[ExtractorSpec]:
    """The specs of these extractors and all their dependencies, without duplicates, dependencies first.

    Raises `UsageError` for unknown names and for circular dependencies.
    """
    specs: dict[str, ExtractorSpec] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise UsageError(f"circular dependency of extractors: {circle}")
        if name not in specs:
            spec: ExtractorSpec = registry.extractor(name)
            for needed in spec.extractors:
                visit(needed, (*path, name))
            specs[name] = spec

    for name in names:
        visit(name, ())
    return list(specs.values())


def extractor_assets(registry: Registry, names: Iterable[str]) -> list[str]:
    """The assets of these extractors and all their dependencies, without duplicates."""
    return list(dict.fromkeys(asset for spec in needed_extractors(registry, names) for asset in spec.assets))


def extract_usable(
    clips: Sequence[Clip],
    needed: Mapping[str, Sequence[Any]],
    extract: Callable[[list[Clip], dict[str, list[Any]]], Sequence[T]],
) -> list[T | Failed]:
    """Call `extract` on the clips that have all the `needed` features, which are aligned with `clips`; for the other
    clips, the result is the `Failed` of a needed feature."""
    failures = [
        next((rows[index] for rows in needed.values() if isinstance(rows[index], Failed)), None)
        for index in range(len(clips))
    ]
    usable_indices = [index for index, verdict in enumerate(failures) if verdict is None]
    usable_features = {name: [rows[index] for index in usable_indices] for name, rows in needed.items()}
    results = iter(extract([clips[index] for index in usable_indices], usable_features) if usable_indices else ())
    return [next(results) if verdict is None else verdict for verdict in failures]


class FeatureStore:
    """Clip -> named arrays of an extractor, cached under `root` as `.npz` files (no pickle).

    The key consists of the clip's content hash, the extractor's name and its `identity` (version, weights hash,
    preprocessing), so a changed extractor never reuses old features. Models are loaded at the first cache miss.
    If the variable `BCD_BENCH_CACHE_LIMIT` is set, features used longest ago are deleted when `root` exceeds it.
    """

    def __init__(self, registry: Registry, *, device: str, root: Path) -> None:
        self._registry, self._device, self._root = registry, device, root
        self._limit = CacheLimit(root)
        self._extractors: dict[str, Extractor] = {}
        self._scopes: dict[str, PluginScope] = {}
        self._passing: set[tuple[str, str]] = set()
        """(extractor, clip hash) of failures that may succeed on retry."""
        self._loaded: set[str] = set()

    def identity(self, name: str) -> str:
        """Hash of everything except the clip that determines the features of `name`, including its dependencies."""
        hashes: dict[str, str] = {}
        for spec in needed_extractors(self._registry, [name]):
            description = {
                "name": spec.name,
                "version": spec.version,
                "identity": dict(self._extractor(spec.name).identity),
            }
            dependencies = {dependency: hashes[dependency] for dependency in spec.extractors}
            hashes[spec.name] = hash_json(description | {"needs": dependencies} if dependencies else description)
        return hashes[name]

    def get(self, name: str, clips: Sequence[Clip]) -> list[Mapping[str, Any] | Failed]:
        """Features of every clip, in order; equal clips are extracted once.

        If an extractor raises on a batch, it is retried clip by clip, and clips on which it still raises are `Failed`
        (not cached). Raises `BcdBenchError` for unknown extractors and missing assets.
        """
        identity = self.identity(name)
        features_by_hash: dict[str, Mapping[str, Any] | Failed] = {}
        missing: dict[str, Clip] = {}
        for clip in clips:
            if clip.sha256 not in features_by_hash and clip.sha256 not in missing:
                cached = self._read(self._path(name, identity, clip.sha256))
                if cached is None:
                    missing[clip.sha256] = clip
                else:
                    features_by_hash[clip.sha256] = cached
        if missing:
            for clip, (features, keep) in zip(missing.values(), self._extract(name, missing.values()), strict=True):
                features_by_hash[clip.sha256] = features
                if keep:
                    self._write(self._path(name, identity, clip.sha256), features)
                needs = self._registry.extractor(name).extractors
                raised = isinstance(features, Failed) and not keep and not needs
                if raised or any((dependency, clip.sha256) in self._passing for dependency in needs):
                    self._passing.add((name, clip.sha256))
        return [frozen(features_by_hash[clip.sha256]) for clip in clips]

    def cached(self, name: str, clip_sha256: str) -> Mapping[str, Any] | Failed | None:
        """The stored features of the clip with this hash; None if there are none. Nothing is extracted.

        `Failed` is not stored for an extractor that failed because one that it needs did: the reason is that of the
        latter.
        """
        stored = self._read(self._path(name, self.identity(name), clip_sha256))
        if stored is not None:
            return stored
        needed = (self.cached(dependency, clip_sha256) for dependency in self._registry.extractor(name).extractors)
        return next((features for features in needed if isinstance(features, Failed)), None)

    def passing(self, name: str, clip: Clip) -> bool:
        """Whether the features of a clip failed in a way that may succeed on retry, such as an exception."""
        return (name, clip.sha256) in self._passing

    def _extractor(self, name: str) -> Extractor:
        if name not in self._extractors:
            self._scopes[name] = PluginScope()
            with self._scopes[name]:
                self._extractors[name] = load_factory(self._registry.extractor(name).factory)()
        return self._extractors[name]

    def _extract(self, name: str, clips: Iterable[Clip]) -> list[tuple[Mapping[str, Any] | Failed, bool]]:
        """Features of each clip and whether to cache them. If a needed extractor failed on a clip, that clip fails
        too."""
        clips = list(clips)
        needs = self._registry.extractor(name).extractors
        if not needs:
            return self._call(name, clips, None)
        needed = {dependency: self.get(dependency, clips) for dependency in needs}
        results = extract_usable(clips, needed, lambda usable, given: self._call(name, usable, given))
        return [(result, False) if isinstance(result, Failed) else result for result in results]

    def _call(
        self, name: str, clips: list[Clip], needed: Mapping[str, list[Any]] | None
    ) -> list[tuple[Mapping[str, Any] | Failed, bool]]:
        extractor: Any = self._extractor(name)
        if name not in self._loaded:
            with self._scopes[name]:
                extractor.load(self._device)
            self._loaded.add(name)
        try:
            with self._scopes[name]:
                clips_copy = list(clips)  # the extractor may modify its list
                results = extractor.extract(clips_copy) if needed is None else extractor.extract(clips_copy, needed)
                features = [_taken_over(result) for result in results]
            if len(features) != len(clips):
                raise ValueError(f"returned {len(features)} results for {len(clips)} clips")
        except BcdBenchError:
            raise
        except BaseException as error:  # an invalid clip must not affect others
            if not raised_by_plugin(error):
                raise
            if len(clips) == 1:
                return [(Failed(f"{name}: {one_line(error, place=False)}"), False)]
            return [
                result
                for position, clip in enumerate(clips)
                for result in self._call(
                    name, [clip], needed and {key: [rows[position]] for key, rows in needed.items()}
                )
            ]
        return [(item, True) for item in features]

    def _path(self, name: str, identity: str, clip_sha256: str) -> Path:
        key = hash_json([identity, clip_sha256])
        return self._root / name / key[:2] / f"{key}.npz"

    @staticmethod
    def _read(path: Path) -> Mapping[str, Any] | Failed | None:
        if not path.is_file():
            return None
        try:
            tree = load_tree(path)
        except (OSError, ValueError):
            return None  # damaged: recomputed and overwritten
        return Failed(tree[_FAILED]) if _FAILED in tree else tree

    def _write(self, path: Path, features: Mapping[str, Any] | Failed) -> None:
        with contextlib.suppress(OSError):  # only a cache: features that cannot be stored are extracted again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tree(path, {_FAILED: features.reason} if isinstance(features, Failed) else dict(features))
            self._limit.wrote(path)


def frozen(features: Any) -> Any:
    """A read-only view of a tree of mappings, lists and arrays: all metrics share one copy."""
    if isinstance(features, np.ndarray):
        view = features.view()
        view.flags.writeable = False
        return view
    if isinstance(features, Mapping):
        return ReadOnlyDict({key: frozen(value) for key, value in features.items()})
    return tuple(frozen(item) for item in features) if isinstance(features, list) else features


def _taken_over(features: Any) -> Any:
    """A copy that the extractor cannot modify later: it may yield the same buffer repeatedly."""
    if isinstance(features, np.ndarray):
        return features.copy()
    if isinstance(features, Mapping):
        return {key: _taken_over(value) for key, value in features.items()}
    return [_taken_over(item) for item in features] if isinstance(features, list | tuple) else features


class BatchFeatures:
    """The features of one batch, extracted for the whole batch when a metric first accesses an (extractor, role).

    Roles: "output", "content", "motion", "target".
    """

    def __init__(self, store: FeatureStore, pairs: Sequence[Pair], outputs: Sequence[Clip]) -> None:
        self._store, self._pairs, self._outputs = store, pairs, outputs
        self._clips: dict[str, list[Clip | Failed]] = {"output": list(outputs)}
        self._features: dict[tuple[str, str], list[Mapping[str, Any] | Failed]] = {}
        self.unread: set[str] = set()
        """Ids of pairs with a clip that could not be read, or whose features could not be extracted, this time."""

    def of(
        self, index: int, extractors: Sequence[str], roles: Sequence[str] = ROLES
    ) -> Mapping[str, Mapping[str, Any]]:
        """The value of `Scored.features` for one item: extractor -> role -> arrays or `Failed`."""
        return _Lazy(extractors, lambda extractor: _Lazy(roles, lambda role: self._get(extractor, role)[index]))

    def _get(self, extractor: str, role: str) -> list[Mapping[str, Any] | Failed]:
        if (extractor, role) not in self._features:
            if role not in self._clips:
                self._clips[role] = [_load(getattr(pair, role), role) for pair in self._pairs]
                self.unread |= {
                    pair.id
                    for pair, clip in zip(self._pairs, self._clips[role], strict=True)
                    if isinstance(clip, Failed) and getattr(pair, role) is not None
                }
            clips = self._clips[role]
            features = iter(self._store.get(extractor, [clip for clip in clips if isinstance(clip, Clip)]))
            self._features[extractor, role] = [clip if isinstance(clip, Failed) else next(features) for clip in clips]
            self.unread |= {
                pair.id
                for pair, clip in zip(self._pairs, clips, strict=True)
                if isinstance(clip, Clip) and self._store.passing(extractor, clip)
            }
        return self._features[extractor, role]


class _Lazy(Mapping[str, Any]):
    def __init__(self, keys: Sequence[str], get: Callable[[str], Any]) -> None:
        self._keys, self._get = tuple(keys), get

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(f"{key!r} was not requested; available: {', '.join(self._keys) or 'none'}")
        return self._get(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _load(reference: Any, role: str) -> Clip | Failed:
    if reference is None:
        return Failed(f"the pair has no {role} clip")
    try:
        clip: Clip = reference.load()
    except BaseException as error:  # if a clip cannot be read, only its pair fails
        if not raised_by_plugin(error):
            raise
        return Failed(f"{role} clip {reference.id}: {one_line(error, place=False)}")
    return clip
