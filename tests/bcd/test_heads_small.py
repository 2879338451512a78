"""The default model of faces on rendered people it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bcd_bench.assets.weights import resolve_weights
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.types.clip import Clip
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_faces.dense_landmarks.extractor import DenseLandmarks
from bcd_bench_faces.fitting.extractor import FaceMesh
from bcd_bench_faces.metrics.mesh_errors import CrossError
from bcd_bench_fidelity.pixels import psnr

PAIRS = 4


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return list(load_suite(load_registry(), "heads-cross-128", {}).pairs[:PAIRS])


@pytest.fixture(scope="module")
def method() -> BCDMethod:
    chosen = resolve_weights(load_registry().get("methods", "bcd"), "heads-cross-128", None)
    assert chosen is not None
    made = BCDMethod({})
    made.load(chosen.path, "cpu")
    return made


@pytest.fixture(scope="module")
def outputs(method: BCDMethod, pairs: list[Pair]) -> list[Clip]:
    made = []
    for output in method.transfer(pairs, seed=0):
        assert isinstance(output, Clip)
        made.append(output)
    return made


def test_swaps_are_nearer_to_the_exact_target_than_either_clip(outputs: list[Clip], pairs: list[Pair]) -> None:
    gains = []
    for output, pair in zip(outputs, pairs, strict=True):
        content, motion, target = (ref.load().frames for ref in (pair.content, pair.motion, pair.target) if ref)
        assert output.frames.shape == target.shape == (25, 128, 128, 3)
        gains.append(psnr(output.frames, target) - max(psnr(content, target), psnr(motion, target)))
    assert np.mean(gains) > 1.5  # 3.3 dB over all pairs


def test_heads_turn_as_the_drivers_and_keep_their_shape(outputs: list[Clip], pairs: list[Pair]) -> None:
    points, mesh = DenseLandmarks(), FaceMesh()
    points.load("cpu")
    mesh.load("cpu")

    def fits(clips: list[Clip]) -> list[Any]:
        return mesh.extract(clips, {"dense-landmarks": points.extract(clips)})

    seen = [
        fits([output, pair.content.load(), pair.motion.load()]) for output, pair in zip(outputs, pairs, strict=True)
    ]
    errors: dict[str, list[float]] = {"bcd": [], "copy-content": [], "copy-motion": []}
    metric = CrossError()
    metric.load("cpu")
    for output, content, motion in seen:
        for name, fit in zip(errors, (output, content, motion), strict=True):
            roles = {"output": fit, "content": content, "motion": motion}
            (row,) = metric.score([Scored(pairs[0], outputs[0], {"face-mesh": roles})])
            assert isinstance(row, dict)
            errors[name].append(row["cross-error"])
    assert np.mean(errors["bcd"]) < 0.1 * np.mean(errors["copy-content"])
    assert np.mean(errors["bcd"]) < 0.7 * np.mean(errors["copy-motion"])


def test_the_motion_code_keeps_its_rate(outputs: list[Clip]) -> None:
    codes = np.concatenate([np.asarray(output.info["motion_codes"]) for output in outputs])
    assert codes.shape == (25 * PAIRS, 8)  # of 256 entries: at most 64 bits
    assert codes.max() < 256
    used = [len(np.unique(group)) for group in codes.T]
    assert np.mean(used) > 20  # of 100 frames


def test_every_suite_of_faces_has_these_weights() -> None:
    registry = load_registry()
    spec = registry.method("bcd")
    faces = [name for name in registry.suites if name.startswith(("heads-", "lrs3-", "clips-"))]
    generated = [name for name in faces if name.startswith("heads-generate")]
    assert len(generated) == 2
    for name in generated:
        chosen = resolve_weights(registry.method("bcd-generate"), name, None)
        assert chosen is not None
        assert chosen.name == "heads-small"
    faces = [name for name in faces if name not in generated]
    assert len(faces) == 12
    for name in faces:
        chosen = resolve_weights(spec, name, None)
        assert chosen is not None
        assert chosen.name == "heads-landmarks"
        coded = resolve_weights(registry.method("bcd-bitstream"), name, None)
        assert coded is not None
        assert coded.name == "heads-landmarks"
