"""Checks of extractors: JSON-safe identity, plain arrays, reproducibility, no exception on blank frames."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.hashing import canonical_json
from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.loading import load_factory
from bcd_bench.scoring.features import FeatureStore, extract_usable, needed_extractors
from bcd_bench.testing.synthetic import blank
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed

if TYPE_CHECKING:
    from bcd_bench.testing.check import Subject

__all__ = ["CHECKS"]


def _loaded(subject: Subject) -> Any:
    store = AssetStore(subject.registry)
    for spec in (*needed_extractors(subject.registry, subject.spec.extractors), subject.spec):
        for asset in spec.assets:
            store.find(asset)
    extractor = load_factory(subject.spec.factory)()
    extractor.load("cpu")
    return extractor


def _extract(subject: Subject, extractor: Any, clips: Sequence[Clip]) -> list[Any]:
    """Features of `clips`, including the required ones as in a run: clips without required features fail."""
    if subject.spec.extractors:
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(subject.registry, device="cpu", root=Path(folder))
            needed = {name: store.get(name, clips) for name in subject.spec.extractors}
        return extract_usable(clips, needed, lambda *given: _checked(extractor, *given))
    return _checked(extractor, clips)


def _checked(extractor: Any, clips: Sequence[Clip], *needed: Any) -> list[Any]:
    features = list(extractor.extract(clips, *needed))
    assert len(features) == len(clips), f"extract returned {len(features)} results for {len(clips)} clips"
    for item in features:
        if isinstance(item, Failed):
            assert item.reason.strip(), "Failed needs a reason"
    return features


def identity_is_json_safe(subject: Subject) -> None:
    """The identity is the cache key, so it must be non-empty plain JSON."""
    identity = dict(load_factory(subject.spec.factory)().identity)
    assert identity, "identity must name what decides the features"
    assert canonical_json(identity)


def features_are_arrays(subject: Subject) -> None:
    """Features are named numeric NumPy arrays, equal when extracted again and when extracted individually."""
    import numpy as np

    extractor = _loaded(subject)
    clips = [pair.motion.load() for pair in subject.pairs()]
    together = _extract(subject, extractor, clips)
    for clip, features in zip(clips, together, strict=True):
        alone = _extract(subject, extractor, [clip])[0]
        assert isinstance(features, Failed) == isinstance(alone, Failed), "whether a clip fails depends on the batch"
        if isinstance(features, Failed):
            continue
        for name, value in features.items():
            array = np.asarray(value)
            assert array.dtype.kind in "biufU", f"feature {name} is {array.dtype}, not numbers"
            if array.dtype.kind == "U":
                assert np.array_equal(array, np.asarray(alone[name]))
            else:
                close = np.allclose(array, alone[name], rtol=1e-4, atol=1e-4, equal_nan=True)
                assert close, f"feature {name} depends on the batch"


def blank_frames_do_not_raise(subject: Subject) -> None:
    """A blank clip yields features or a `Failed` with a reason."""
    _extract(subject, _loaded(subject), [blank(pair.motion.load()) for pair in subject.pairs()])


CHECKS = (identity_is_json_safe, features_are_arrays, blank_frames_do_not_raise)
