"""csim: who is in a clip, by any ArcFace model that the user has."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench import Failed
from bcd_bench.plugin.registry import load_registry
from bcd_bench.scoring.provenance import metric_info
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench_faces.landmarks.alignment import CROP, TEMPLATE, aligned_crop, five_points, similarity
from bcd_bench_faces.metrics.csim import CSIM, reference
from bcd_bench_faces.recognition.arcface import ArcFace
from bcd_bench_faces.recognition.recogniser import find_model
from tests.faces.real_clips import LRS3, black, item, needs_arcface, needs_clips, needs_landmarker, real, score

NAN = np.nan


def rows(*vectors: Any) -> dict[str, Any]:
    return {"embeddings": np.array(vectors, np.float32)}


# on embeddings of our making -----------------------------------------------------------------------------------------


def csim(output: Any, content: Any, motion: Any = None) -> Any:
    """The row; the driver has a face in every frame if nothing else is said."""
    count = 1 if isinstance(output, Failed) else len(output["embeddings"])
    driver = rows(*[[0, 1]] * count) if motion is None else motion
    [row] = CSIM().score([item("arcface", output=output, content=content, motion=driver)])
    return row


def test_the_reference_of_several_frames_is_their_mean_on_the_sphere() -> None:
    found = reference(np.array([[1, 0], [0, 1], [NAN, NAN]], np.float32))
    assert found is not None
    np.testing.assert_allclose(found, [np.sqrt(0.5), np.sqrt(0.5)])
    assert reference(np.full((4, 2), NAN, np.float32)) is None


def test_the_value_is_the_mean_cosine_over_the_frames_that_have_a_face() -> None:
    row = csim(rows([1, 0], [0.6, 0.8], [NAN, NAN]), rows([1, 0]))
    assert row == {"csim": pytest.approx(0.8), "csim-frames": pytest.approx(200 / 3)}
    assert csim(rows([0, 1], [NAN, NAN]), rows([1, 0])) == {"csim": 0.0, "csim-frames": 50.0}


def test_frames_in_which_the_driver_shows_nobody_do_not_count_against_the_output() -> None:
    output, content = rows([1, 0], [1, 0], [NAN, NAN], [NAN, NAN]), rows([1, 0])
    away = rows([0, 1], [0, 1], [0, 1], [NAN, NAN])
    assert csim(output, content, away)["csim-frames"] == pytest.approx(200 / 3)
    assert csim(output, content, rows([0, 1], [0, 1], [NAN, NAN], [NAN, NAN]))["csim-frames"] == 100
    # nothing to go by: no face in the driver, another length, a clip that cannot be read
    for driver in (rows(*[[NAN, NAN]] * 4), rows([0, 1]), Failed("torn")):
        assert csim(output, content, driver)["csim-frames"] == 50


def test_too_few_faces_fail_with_their_count() -> None:
    missing = [NAN, NAN]
    assert csim(rows([1, 0], missing, missing), rows([1, 0])) == Failed(
        "1 of 3 output frames show a face: fewer than half"
    )
    assert csim(rows(missing), rows([1, 0])) == Failed("0 of 1 output frames show a face: fewer than half")
    assert csim(rows([1, 0]), rows(missing, missing)) == Failed("none of the 2 content frames shows a face")
    assert csim(Failed("torn"), rows([1, 0])) == Failed("torn")
    assert csim(rows([1, 0]), Failed("gone")) == Failed("gone")


# alignment -----------------------------------------------------------------------------------------------------------


def test_a_similarity_is_recovered_and_is_that_of_least_squares() -> None:
    angle, scale, shift = 0.3, 1.7, np.array([5.0, -2.0])
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(similarity(TEMPLATE, TEMPLATE @ linear.T + shift), np.column_stack([linear, shift]))
    from skimage.transform import SimilarityTransform

    noisy = TEMPLATE @ linear.T + np.random.default_rng(0).normal(0, 4, TEMPLATE.shape)
    theirs = SimilarityTransform.from_estimate(noisy, TEMPLATE).params[:2]
    np.testing.assert_allclose(similarity(noisy, TEMPLATE), theirs, atol=1e-9)
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), TEMPLATE)


def test_the_template_is_insightfaces() -> None:
    from insightface.utils.face_align import arcface_dst

    np.testing.assert_allclose(TEMPLATE, arcface_dst, atol=1e-4)


def test_a_face_in_place_is_cropped_as_it_is() -> None:
    points, half = np.zeros((478, 3), np.float32), np.array([6.0, 0.0])
    for corners, centre in zip(((33, 133), (362, 263)), TEMPLATE[:2], strict=True):
        points[corners[0], :2], points[corners[1], :2] = centre - half, centre + half
    points[1, :2], points[61, :2], points[291, :2] = TEMPLATE[2:]
    np.testing.assert_allclose(five_points(points), TEMPLATE, atol=1e-4)
    frame = np.random.default_rng(0).integers(0, 256, (CROP, CROP, 3)).astype(np.uint8)
    assert np.abs(aligned_crop(frame, five_points(points)).astype(int) - frame).max() <= 1


# which model ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BCD_BENCH_ARCFACE", raising=False)
    return tmp_path


def test_without_a_model_it_is_said_what_to_bring(place: Path) -> None:
    with pytest.raises(MissingAssetError, match=r"w600k_r50\.onnx or arcface_mobilefacenet\.onnx") as caught:
        CSIM().load("cpu")
    assert "BCD_BENCH_ARCFACE=PATH" in str(caught.value.hint)
    assert "any ArcFace model" in str(caught.value.hint)
    assert "mobilefacenet" not in str(caught.value.hint)
    assert ArcFace().identity["weights"] == "none"


def test_the_variable_goes_before_the_names_and_every_file_is_another_metric(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry()
    seen = []
    for name in ("arcface_mobilefacenet.onnx", "w600k_r50.onnx", "mine.onnx"):
        (place / name).write_bytes(name.encode())
        if name == "mine.onnx":
            monkeypatch.setenv("BCD_BENCH_ARCFACE", str(place / name))
        assert find_model().path.name == name
        metric, info = CSIM(), metric_info(registry, registry.metrics["csim"])
        metric.load("cpu")
        assert f"{name} (sha256 {find_model().sha256[:8]})" in metric.columns[0].definition
        assert info.assets == {"arcface": {"file": name, "sha256": find_model().sha256}}
        seen.append((info.identity, ArcFace().identity["weights"]))
    assert len({identity for identity, _ in seen}) == len({weights for _, weights in seen}) == 3


def test_a_file_that_is_no_recogniser_is_one_line(place: Path) -> None:
    (place / "w600k_r50.onnx").write_bytes(b"not a network")
    with pytest.raises(UsageError, match=r"w600k_r50\.onnx \(sha256 \w{8}\) is not an ArcFace model") as caught:
        ArcFace().load("cpu")
    assert "\n" not in str(caught.value)


# real clips ----------------------------------------------------------------------------------------------------------


@needs_arcface
@needs_landmarker
@needs_clips
def test_people_are_told_apart_on_real_clips(tmp_path: Path) -> None:
    """Every clip of the test split against every other, three frames each."""
    names = [(path.parent.name, path.stem) for path in sorted((LRS3 / "test").glob("*/*.mp4"))]
    cases, same = [], []
    for a, b in permutations(names, 2):
        cases.append((real(*b), black(1), real(*a)))
        same.append(a[0] == b[0])
    values = np.array([row["csim"] for row in score(CSIM(), "arcface", cases, tmp_path)])
    alike, others = values[np.array(same)], values[~np.array(same)]
    assert len(alike) >= 20
    auc = (alike[:, None] > others).mean() + (alike[:, None] == others).mean() / 2
    assert auc >= 0.999
    assert alike.mean() > 0.75
    assert abs(others.mean()) < 0.15


@needs_arcface
@needs_landmarker
@needs_clips
def test_real_and_odd_outputs(tmp_path: Path) -> None:
    face, other = real("p001"), real("p004")
    still = np.repeat(face[:1], 4, 0)
    mostly_black = np.concatenate([face[:1], black(2)])
    two = np.concatenate([other[:1, 40:184, 40:184], np.zeros((1, 80, 144, 3), np.uint8)], 1)
    two = np.concatenate([face[:1], two], 2)
    rows = score(
        CSIM(),
        "arcface",
        [
            (face[:1], face, still),
            (face, face, other),
            (face, face, black(3)),
            (black(2), face, face),
            (face, face, mostly_black),
            (face[:1], face, two),
        ],
        tmp_path,
    )
    assert rows[0] == {"csim": pytest.approx(1.0, abs=1e-5), "csim-frames": 100.0}
    assert rows[1]["csim"] == pytest.approx(0.298, abs=0.03)  # golden, of arcface_mobilefacenet.onnx
    assert rows[2] == Failed("0 of 3 output frames show a face: fewer than half")
    assert rows[3] == Failed("none of the 2 content frames shows a face")
    assert rows[4] == Failed("1 of 3 output frames show a face: fewer than half")
    assert rows[5]["csim"] > 0.9  # the larger face is the right one
    again = score(CSIM(), "arcface", [(face, face, other)], tmp_path / "anew")
    assert again[0] == rows[1]  # alone as in company, to the last bit
