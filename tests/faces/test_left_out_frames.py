"""Frames in which no face is found: no metric of faces reads an output that lacks them as whole, or as perfect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench import Clip, Failed
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import load_registry
from bcd_bench.results.schema import Value
from bcd_bench.scoring.features import BatchFeatures, FeatureStore
from bcd_bench.statistics.aggregate import aggregate_rows
from bcd_bench.testing import checks_for, metric_checks
from bcd_bench.testing.kit import Subject
from bcd_bench_faces.metrics.head_rotation import ARD
from tests.faces.real_clips import Frames, needs_arcface, needs_landmarker, pair
from tests.faces.test_hard_clips import PERSON, head
from tests.faces.test_sface import needs_sface

MEDIAPIPE = tuple(f"{name}-mediapipe" for name in ("shape-error", "motion-error", "cross-error"))
METRICS = [
    pytest.param("csim", marks=[needs_landmarker, needs_arcface]),
    pytest.param("csim-sface", marks=needs_sface),
    *(pytest.param(name, marks=needs_landmarker) for name in ("ard", "auh", *MEDIAPIPE)),
    "shape-error",
    "motion-error",
    "cross-error",
]
PERFECT = {"csim": 1.0, "csim-sface": 1.0}
"""What an exact output measures; the others measure 0."""


def without(frames: Frames, *which: int) -> Frames:
    """The clip with these frames black."""
    changed = frames.copy()
    changed[list(which)] = 0
    return changed


def blurred(frames: Frames, *which: int) -> Frames:
    """The clip with these frames blurred beyond any detector."""
    changed = frames.copy()
    for index in which:
        changed[index] = cv2.GaussianBlur(frames[index], (0, 0), 48, borderType=cv2.BORDER_REPLICATE)
    return changed


def small(frames: Frames) -> Frames:
    """The clip at half its size in the right lower corner of a grey picture."""
    changed = np.full_like(frames, 110)
    for index, frame in enumerate(frames):
        changed[index, 128:, 128:] = cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA)
    return changed


@pytest.fixture(scope="module")
def cases() -> Mapping[str, tuple[Frames, Frames, Frames]]:
    """Name -> content, motion and output."""
    clip = head(PERSON, Rotation.identity(), count=4)
    return {
        "whole": (clip, clip, clip),
        "every second frame black": (clip, clip, without(clip, 1, 3)),
        "the first half only": (clip, clip, without(clip, 2, 3)),
        "one frame blurred away": (clip, clip, blurred(clip, 2)),
        "the driver shows nobody for a frame": (clip, without(clip, 1), without(clip, 1)),
        "nobody where the driver is, somebody where nobody is": (clip, without(clip, 1), without(clip, 2)),
        "content without a face in a frame": (without(clip, 0), clip, clip),
        "one frame": (clip[:1], clip[:1], clip[:1]),
        "one frame, black": (clip[:1], clip[:1], without(clip[:1], 0)),
        "three frames black": (clip, clip, without(clip, 0, 1, 3)),
        "small in the corner": (clip, clip, small(clip)),
    }


SHARES = {
    "whole": 100.0,
    "every second frame black": 50.0,
    "the first half only": 50.0,
    "one frame blurred away": 75.0,
    "the driver shows nobody for a frame": 100.0,
    "nobody where the driver is, somebody where nobody is": 200 / 3,
    "content without a face in a frame": 100.0,
    "one frame": 100.0,
    "small in the corner": 100.0,
}
"""The share of frames by case; the other cases fail."""


@pytest.fixture(scope="module")
def scored(cases: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Metric name -> its rows by case, and the values that a record would hold of each case alone."""
    registry = load_registry()
    pairs = [pair(number, content, motion) for number, (content, motion, _) in enumerate(cases.values())]
    outputs = [Clip(output, 25.0) for _, _, output in cases.values()]
    store = FeatureStore(registry, device="cpu", root=tmp_path_factory.mktemp("features"))
    features = BatchFeatures(store, pairs, outputs)

    def of(metric: str) -> tuple[dict[str, Any], dict[str, dict[str, Value]]]:
        spec = registry.metric(metric)
        made = load_factory(spec.factory)()
        made.load("cpu")
        items = [
            Scored(one, clip, features.of(index, spec.extractors))
            for index, (one, clip) in enumerate(zip(pairs, outputs, strict=True))
        ]
        rows = dict(zip(cases, made.score(items), strict=True))
        values = {
            name: aggregate_rows(
                metric, made, made.columns, [(name, name)], {} if isinstance(row, Failed) else {name: row}
            )[0]
            for name, row in rows.items()
        }
        return rows, values

    return of


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_counts_the_frames_that_it_leaves_out(scored: Any, metric: str) -> None:
    rows, values = scored(metric)
    assert {name for name, row in rows.items() if isinstance(row, Failed)} == set(rows) - set(SHARES)
    for name, share in SHARES.items():
        assert rows[name][f"{metric}-frames"] == pytest.approx(share), name
        value = values[name][metric]
        assert value.frame_coverage == pytest.approx(share / 100), name
        assert value.covered == (share == 100), name
    assert not any(values[name][metric].covered for name in set(rows) - set(SHARES))
    # what was silent before: the value alone is that of a perfect output
    perfect = PERFECT.get(metric, 0.0)
    assert rows["whole"][metric] == pytest.approx(perfect, abs=0.05)  # expressions differ from frame to frame
    if metric.partition("-")[0] in ("ard", "auh", "motion"):
        assert rows["every second frame black"][metric] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("metric", ["shape-error", pytest.param("ard", marks=needs_landmarker)])
def test_a_face_in_another_place_counts_as_seen(scored: Any, metric: str) -> None:
    """Known: a detector says where a face is, not whether it is where it should be; these metrics know no place."""
    rows, _ = scored(metric)
    assert rows["small in the corner"][f"{metric}-frames"] == 100
    assert rows["small in the corner"][metric] < 8


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_the_kit_agrees_on_faces(metric: str) -> None:
    """On practice clips, which show no face, every metric fails; here outputs are rendered heads."""
    found = [
        check
        for check in checks_for("faces", suite="heads-cross-128", only=[metric])
        if check.name == "left_out_frames_are_counted"
    ]
    assert len(found) == 1
    found[0]()


class SilentARD(ARD):
    """What `ard` was: it has the share of frames, and its column does not name it."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = tuple(replace(column, frames="") for column in self.columns)


@needs_landmarker
@pytest.mark.slow
def test_the_kit_would_have_caught_it() -> None:
    registry = load_registry()
    spec = replace(registry.metrics["ard"], factory=f"{__name__}:SilentARD")
    subject = Subject(registry, registry.owner("metrics", "ard"), "metrics", spec, "heads-cross-128", count=1)
    with pytest.raises(AssertionError, match="ard is unchanged when every second frame is black"):
        metric_checks.left_out_frames_are_counted(subject)
