"""No cosine is believed before the recogniser has told rendered people apart: right networks pass, wrong ones fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.assets.store import AssetStore
from bcd_bench.cli.app import main
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.errors import UsageError
from bcd_bench_faces.recognition.recogniser import (
    LEAST_MARGIN,
    PEOPLE,
    ArcFaceNetwork,
    Model,
    Separation,
    check_arcface,
    check_crops,
    find_model,
    separation,
    unit,
)
from tests.faces.real_clips import needs_arcface
from tests.faces.recognisers import (
    changed,
    constant_output,
    random_weights,
    red_for_blue,
    scaled_input,
    tiny,
    upside_down,
)
from tests.faces.scripts import script


def load(path: Path) -> ArcFaceNetwork:
    return ArcFaceNetwork(Model(path, sha256_file(path)), "cpu")


def why_not(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check_arcface(path)
    assert "\n" not in str(caught.value)
    assert "BCD_BENCH_ARCFACE" in str(caught.value.hint)
    return str(caught.value)


# the crops and the measure -------------------------------------------------------------------------------------------


def test_the_stored_crops_are_those_that_the_script_draws() -> None:
    crops = check_crops()
    assert crops.shape == (PEOPLE, 2, 112, 112, 3)
    from bcd_bench_faces.dense_landmarks.detector import DenseLandmarker

    drawn = np.stack(script("draw_check_crops").crops_of(5, DenseLandmarker()))
    assert np.abs(drawn.astype(int) - crops[5]).mean() < 1  # RGB, the right person, the right rows


def test_vectors_without_a_direction_are_none() -> None:
    assert unit(np.array([[3.0, 4.0]])) == pytest.approx([0.6, 0.8])
    assert unit(np.zeros(3)) is None
    assert unit(np.array([np.nan, 1.0])) is None
    assert not separation(lambda crop: np.zeros(3)).enough


def test_cosines_are_of_one_person_and_of_two() -> None:
    people = {crop.tobytes(): index for index, pair in enumerate(check_crops()) for crop in pair}
    perfect = separation(lambda crop: np.eye(PEOPLE)[people[crop.tobytes()]])
    assert (perfect.same, perfect.same_least, perfect.other, perfect.other_most) == (1, 1, 0, 0)
    alike = separation(lambda crop: np.eye(PEOPLE)[people[crop.tobytes()] // 2])
    assert alike.other == pytest.approx(8 / 56)
    assert alike.other_most == 1
    assert not alike.enough
    assert Separation(0.9, 0.71, 0.3, 0.61 - 1e-9).enough
    assert not Separation(0.9, 0.7, 0.3, 0.601).enough
    assert not Separation(np.nan, np.nan, np.nan, np.nan).enough


# tiny networks of our making -----------------------------------------------------------------------------------------


def test_networks_that_insightface_scales_for_pass(tmp_path: Path) -> None:
    for wants, padding in (("-1 to 1", 0), ("-1 to 1", 20), ("0 to 255", 0), ("0 to 255", 6)):
        network = load(tiny(tmp_path / "right.onnx", wants=wants, padding=padding))
        assert network.width == PEOPLE
        assert separation(network).other_most < 0.3


def test_a_network_whose_scaling_insightface_does_not_find_is_refused(tmp_path: Path) -> None:
    reason = why_not(tiny(tmp_path / "late.onnx", wants="0 to 255", padding=8))
    assert reason.startswith("late.onnx (sha256 ")
    assert "does not distinguish people on 8 rendered faces: cosine of two people " in reason
    assert "It passes with pixels scaled to 0 to 255: insightface scales them to -1..1" in reason
    assert "export the network including its scaling" in reason


def test_a_constant_is_no_recogniser(tmp_path: Path) -> None:
    reason = why_not(tiny(tmp_path / "same.onnx", constant=True))
    assert "cosine of two people 1.00 on average and 1.00 at most, of one person 1.00 on average and 1.00" in reason
    assert "may not be an embedding" in reason


# the user's own file, with something changed -------------------------------------------------------------------------


@needs_arcface
def test_the_users_model_passes_with_room_to_spare() -> None:
    found = separation(ArcFaceNetwork(find_model(), "cpu"))
    assert found.same_least - found.other_most > 2 * LEAST_MARGIN
    assert found.other < 0.5


@needs_arcface
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (scaled_input(1 / 127.5, -1.0), "It passes with pixels scaled to 0 to 255"),  # scales by itself, as SFace does
        (scaled_input(127.5, 127.5), "may not be an embedding"),  # sees 0 to 255 and was made for -1 to 1
        (random_weights, "may not be an embedding"),
        (constant_output, "may not be an embedding"),
        (upside_down, "cropping or scaling may differ"),
    ],
    ids=["scales-again", "unscaled", "random", "constant", "upside-down"],
)
def test_the_users_model_is_refused_once_it_is_wrong(
    tmp_path: Path, change: Callable[[GraphProto], None], cause: str
) -> None:
    source = find_model().path
    assert cause in why_not(changed(source, tmp_path / "wrong.onnx", change))


@needs_arcface
@pytest.mark.parametrize("change", [scaled_input(0.5, 0.5), red_for_blue], ids=["0-to-1", "bgr"])
def test_what_the_check_cannot_see_is_known(tmp_path: Path, change: Callable[[GraphProto], None]) -> None:
    """Half the contrast, or red for blue, still tells people apart: docs/faces.md says what it costs."""
    load(changed(find_model().path, tmp_path / "near.onnx", change))


# adding and verifying ------------------------------------------------------------------------------------------------


def test_assets_add_and_verify_run_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BCD_BENCH_ASSETS", "")
    monkeypatch.delenv("BCD_BENCH_ARCFACE", raising=False)
    store, kept = AssetStore(load_registry()), tmp_path / "home" / "assets" / "w600k_r50.onnx"
    wrong = tiny(tmp_path / "w600k_r50.onnx", wants="0 to 255", padding=8)
    with pytest.raises(UsageError, match="does not distinguish people"):
        store.add("arcface", wrong)
    assert not kept.exists()
    assert store.add("arcface", tiny(wrong)) == kept
    assert store.status_of("arcface", fresh=True).state == "ok"
    tiny(kept, constant=True)
    status = store.status_of("arcface", fresh=True)
    assert status.state == "altered"
    assert "does not distinguish people" in status.problem
    with pytest.raises(SystemExit) as caught:
        main(["assets", "verify", "arcface"])
    assert caught.value.code == 3
    assert "does not distinguish people" in capsys.readouterr().err
