"""Features of clips, computed once and kept: one landmark pass serves every metric that needs it."""

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

if TYPE_CHECKING:
    from bcd_bench.plugin.base import Extractor
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExtractorSpec

__all__ = ["BatchFeatures", "FeatureStore", "extract_usable", "extractor_assets", "frozen", "needed_extractors"]

_FAILED = "__failed__"
ROLES = ("output", "content", "motion", "target")
T = TypeVar("T")


def needed_extractors(registry: Registry, names: Iterable[str]) -> list[ExtractorSpec]:
    """The specs of these extractors and of all that they need, each once and after what it needs.

    Raises `UsageError` for unknown names and for extractors that need one another in a circle.
    """
    found: dict[str, ExtractorSpec] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise UsageError(f"extractors need one another in a circle: {circle}")
        if name not in found:
            spec: ExtractorSpec = registry.extractor(name)
            for needed in spec.extractors:
                visit(needed, (*path, name))
            found[name] = spec

    for name in names:
        visit(name, ())
    return list(found.values())


def extractor_assets(registry: Registry, names: Iterable[str]) -> list[str]:
    """The assets of these extractors and of all that they need, each once."""
    return list(dict.fromkeys(asset for spec in needed_extractors(registry, names) for asset in spec.assets))


def extract_usable(
    clips: Sequence[Clip],
    needed: Mapping[str, Sequence[Any]],
    extract: Callable[[list[Clip], dict[str, list[Any]]], Sequence[T]],
) -> list[T | Failed]:
    """`extract` on the clips that have all the `needed` features, which are aligned with `clips`; where one of them is
    `Failed`, that stands in its place."""
    failed = [
        next((rows[place] for rows in needed.values() if isinstance(rows[place], Failed)), None)
        for place in range(len(clips))
    ]
    usable = [place for place, verdict in enumerate(failed) if verdict is None]
    given = {name: [rows[place] for place in usable] for name, rows in needed.items()}
    found = iter(extract([clips[place] for place in usable], given) if usable else ())
    return [next(found) if verdict is None else verdict for verdict in failed]


class FeatureStore:
    """Clip -> named arrays of an extractor, cached under `root` as `.npz` files (no pickle).

    The key is the clip's content hash, the extractor's name and its `identity` (version, weights hash,
    preprocessing), so a changed extractor never meets old features. Models load at the first miss.
    """

    def __init__(self, registry: Registry, *, device: str, root: Path) -> None:
        self._registry, self._device, self._root = registry, device, root
        self._extractors: dict[str, Extractor] = {}
        self._scopes: dict[str, PluginScope] = {}
        self._passing: set[tuple[str, str]] = set()
        """(extractor, clip hash) of failures that another try may mend."""
        self._loaded: set[str] = set()

    def identity(self, name: str) -> str:
        """Hash of everything but the clip that decides the features of `name`: its identity, and of those it needs."""
        hashes: dict[str, str] = {}
        for spec in needed_extractors(self._registry, [name]):
            own = {"name": spec.name, "version": spec.version, "identity": dict(self._extractor(spec.name).identity)}
            needed = {one: hashes[one] for one in spec.extractors}
            hashes[spec.name] = hash_json(own | {"needs": needed} if needed else own)
        return hashes[name]

    def get(self, name: str, clips: Sequence[Clip]) -> list[Mapping[str, Any] | Failed]:
        """Features of every clip, in order; equal clips are extracted once.

        An extractor that raises on a batch is tried clip by clip, and a clip it still raises on is `Failed` (not
        cached). Raises `BcdBenchError` for unknown extractors and missing assets.
        """
        identity = self.identity(name)
        found: dict[str, Mapping[str, Any] | Failed] = {}
        missing: dict[str, Clip] = {}
        for clip in clips:
            if clip.sha256 not in found and clip.sha256 not in missing:
                cached = self._read(self._path(name, identity, clip.sha256))
                if cached is None:
                    missing[clip.sha256] = clip
                else:
                    found[clip.sha256] = cached
        if missing:
            for clip, (features, keep) in zip(missing.values(), self._extract(name, missing.values()), strict=True):
                found[clip.sha256] = features
                if keep:
                    self._write(self._path(name, identity, clip.sha256), features)
                needs = self._registry.extractor(name).extractors
                raised = isinstance(features, Failed) and not keep and not needs
                if raised or any((one, clip.sha256) in self._passing for one in needs):
                    self._passing.add((name, clip.sha256))
        return [frozen(found[clip.sha256]) for clip in clips]

    def passing(self, name: str, clip: Clip) -> bool:
        """Whether the features of a clip failed in a way that another try may mend, such as an exception."""
        return (name, clip.sha256) in self._passing

    def _extractor(self, name: str) -> Extractor:
        if name not in self._extractors:
            self._scopes[name] = PluginScope()
            with self._scopes[name]:
                self._extractors[name] = load_factory(self._registry.extractor(name).factory)()
        return self._extractors[name]

    def _extract(self, name: str, clips: Iterable[Clip]) -> list[tuple[Mapping[str, Any] | Failed, bool]]:
        """Per clip its features, and whether they are to be kept. What a needed extractor failed on fails here too."""
        clips = list(clips)
        needs = self._registry.extractor(name).extractors
        if not needs:
            return self._call(name, clips, None)
        needed = {one: self.get(one, clips) for one in needs}
        found = extract_usable(clips, needed, lambda usable, given: self._call(name, usable, given))
        return [(one, False) if isinstance(one, Failed) else one for one in found]

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
                own = list(clips)  # a list of its own
                found = extractor.extract(own) if needed is None else extractor.extract(own, needed)
                features = [_taken_over(one) for one in found]
            if len(features) != len(clips):
                raise ValueError(f"returned {len(features)} results for {len(clips)} clips")
        except BcdBenchError:
            raise
        except BaseException as error:  # one bad clip must cost itself alone
            if not raised_by_plugin(error):
                raise
            if len(clips) == 1:
                return [(Failed(f"{name}: {one_line(error, place=False)}"), False)]
            return [
                result
                for place, clip in enumerate(clips)
                for result in self._call(name, [clip], needed and {one: [rows[place]] for one, rows in needed.items()})
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
            return None  # damaged: computed again and written over
        return Failed(tree[_FAILED]) if _FAILED in tree else tree

    @staticmethod
    def _write(path: Path, features: Mapping[str, Any] | Failed) -> None:
        with contextlib.suppress(OSError):  # only a cache: what cannot be kept is extracted again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tree(path, {_FAILED: features.reason} if isinstance(features, Failed) else dict(features))


def frozen(features: Any) -> Any:
    """The same tree of mappings, lists and arrays, which cannot be written to: metrics share one copy."""
    if isinstance(features, np.ndarray):
        view = features.view()
        view.flags.writeable = False
        return view
    if isinstance(features, Mapping):
        return ReadOnlyDict({key: frozen(value) for key, value in features.items()})
    return tuple(frozen(one) for one in features) if isinstance(features, list) else features


def _taken_over(features: Any) -> Any:
    """A copy that no later act of their extractor can change: it may yield one buffer again and again."""
    if isinstance(features, np.ndarray):
        return features.copy()
    if isinstance(features, Mapping):
        return {key: _taken_over(value) for key, value in features.items()}
    return [_taken_over(one) for one in features] if isinstance(features, list | tuple) else features


class BatchFeatures:
    """The features of one batch, extracted for the whole batch when a metric first looks at a (extractor, role).

    Roles: "output", "content", "motion", "target".
    """

    def __init__(self, store: FeatureStore, pairs: Sequence[Pair], outputs: Sequence[Clip]) -> None:
        self._store, self._pairs, self._outputs = store, pairs, outputs
        self._clips: dict[str, list[Clip | Failed]] = {"output": list(outputs)}
        self._features: dict[tuple[str, str], list[Mapping[str, Any] | Failed]] = {}
        self.unread: set[str] = set()
        """Ids of pairs of which a clip could not be read, or features not be extracted, this time."""

    def of(
        self, index: int, extractors: Sequence[str], roles: Sequence[str] = ROLES
    ) -> Mapping[str, Mapping[str, Any]]:
        """What `Scored.features` holds for one item: extractor -> role -> arrays or `Failed`."""
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
            found = iter(self._store.get(extractor, [clip for clip in clips if isinstance(clip, Clip)]))
            self._features[extractor, role] = [clip if isinstance(clip, Failed) else next(found) for clip in clips]
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
            raise KeyError(f"{key!r} was not asked for; there is {', '.join(self._keys) or 'nothing'}")
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
    except BaseException as error:  # a clip that cannot be read costs its pair alone
        if not raised_by_plugin(error):
            raise
        return Failed(f"{role} clip {reference.id}: {one_line(error, place=False)}")
    return clip
