"""aed-3ddfa and apd-3ddfa: expression and pose by 3DDFA_V2, an extractor that shares no weights with our others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench import Clip, Failed
from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench_faces.assets import TDDFA, TDDFA_SCALE
from bcd_bench_faces.dense_landmarks.crops import Square
from bcd_bench_faces.metrics.expression_and_pose import AED, APD, angle_differences
from bcd_bench_faces.metrics.head_rotation import angle_between
from bcd_bench_faces.tddfa import network as tddfa
from bcd_bench_faces.tddfa.extractor import TDDFAParameters, square_of
from bcd_bench_faces.tddfa.network import TDDFANetwork, angles_of, check_network, check_scale, rotation_of
from tests.faces.real_clips import black, have, item, needs_clips, real, score

EXTRACTOR = "tddfa"
needs_tddfa = pytest.mark.skipif(
    not (have(TDDFA.name) and have(TDDFA_SCALE.name)), reason=f"no {TDDFA.filename} or no {TDDFA_SCALE.filename}"
)


def matrix(yaw: float, pitch: float, roll: float) -> Any:
    """The rotation whose angles, as 3DDFA_V2 defines them, are these degrees."""
    return Rotation.from_euler("ZYX", [roll, -yaw, pitch], degrees=True).as_matrix()


def turned(*angles: tuple[float, float, float] | None) -> dict[str, Any]:
    rows = [np.full((3, 3), np.nan) if one is None else matrix(*one) for one in angles]
    return {"rotation": np.array(rows, np.float32)}


def smiling(*frames: list[float] | None) -> dict[str, Any]:
    """Frames with these first coefficients, the others zero; None for a frame without a face."""
    rows = [[np.nan] * 10 if one is None else [*one, *[0.0] * (10 - len(one))] for one in frames]
    return {"expression": np.array(rows, np.float32)}


def row_of(metric: Any, output: Any, motion: Any) -> Any:
    [row] = metric.score([item(EXTRACTOR, output=output, motion=motion)])
    return row


# the formulas ---------------------------------------------------------------------------------------------------------


def test_apd_is_the_mean_of_three_angles() -> None:
    row = row_of(APD(), turned((10, 5, 0), (0, 0, 0), None), turned((16, 2, 9), (-3, 0, 3), (1, 1, 1)))
    assert row["apd-3ddfa"] == pytest.approx((6 + 3 + 9 + 3 + 0 + 3) / 6, abs=1e-4)
    assert row["apd-3ddfa-yaw"] == pytest.approx(4.5, abs=1e-4)
    assert row["apd-3ddfa-pitch"] == pytest.approx(1.5, abs=1e-4)
    assert row["apd-3ddfa-roll"] == pytest.approx(6.0, abs=1e-4)
    assert row["apd-3ddfa-frames"] == pytest.approx(200 / 3)
    single = row_of(APD(), turned((0, 0, 0)), turned((12, 0, 0)))
    assert (single["apd-3ddfa"], single["apd-3ddfa-angle"]) == (pytest.approx(4), pytest.approx(12))


def test_a_target_has_columns_of_its_own() -> None:
    roles = {"output": turned((0, 0, 0), (0, 0, 0)), "motion": turned((30, 0, 0), (30, 0, 0))}
    [row] = APD().score([item(EXTRACTOR, **roles)])
    assert (row["apd-3ddfa-target"], row["apd-3ddfa-target-frames"]) == (None, None)
    whole = item(EXTRACTOR, **roles, target=turned((6, 0, 0), None))
    with_target = replace(whole, pair=replace(whole.pair, target=whole.pair.content))
    [row] = APD().score([with_target])
    assert row["apd-3ddfa"] == pytest.approx(10, abs=1e-4)
    assert row["apd-3ddfa-target"] == pytest.approx(2, abs=1e-4)
    assert row["apd-3ddfa-target-frames"] == 100.0
    lost = replace(with_target, features={EXTRACTOR: {**roles, "target": turned(None, None)}})
    [row] = APD().score([lost])
    assert row["apd-3ddfa"] == pytest.approx(10, abs=1e-4)
    assert "apd-3ddfa-target" not in row


def test_angles_wrap_around() -> None:
    difference = angle_differences(matrix(0, 0, 179)[None], matrix(0, 0, -179)[None])
    assert difference[0] == pytest.approx([0, 0, 2])


def test_aed_is_the_mean_over_coefficients_and_frames() -> None:
    row = row_of(AED(), smiling([3, 1], [0], None, [2]), smiling([0, -3], [0], [1], [2]))
    assert row["aed-3ddfa"] == pytest.approx((3 + 4) / 30)
    assert row["aed-3ddfa-l2"] == pytest.approx(5 / 3)
    assert row["aed-3ddfa-frames"] == 75.0


@pytest.mark.parametrize(("metric", "made", "face"), [(APD(), turned, (0, 0, 0)), (AED(), smiling, [])])
def test_faces_that_are_not_found_are_handled_as_in_ard(metric: Any, made: Any, face: Any) -> None:
    assert row_of(metric, made(face, None, None), made(face, face, None)) == Failed(
        "1 of 3 output frames and 2 driving frames show a face, 1 of them in common: fewer than half"
    )
    assert row_of(metric, made(face), made(face, face)) == Failed("the output has 1 frames, its driving clip 2")
    assert row_of(metric, Failed("torn"), made(face)) == Failed("torn")


def test_a_pose_matrix_becomes_a_rotation_and_its_angles() -> None:
    wanted = [(20.0, -8.0, 5.0), (-35.0, 12.0, -170.0)]
    rotation = np.array([matrix(*one) for one in wanted])
    assert angles_of(rotation) == pytest.approx(np.array(wanted))
    pose = np.concatenate([0.0005 * rotation, np.full((2, 3, 1), 60.0)], axis=2)
    pose[:, 0] *= 1.1  # rows of different lengths, and a third row that is not used
    pose[:, 2] = 7
    assert rotation_of(pose) == pytest.approx(rotation)


def test_the_square_is_that_of_3ddfa() -> None:
    points = np.array([[10, 20], [30, 20], [20, 60]], np.float32)
    assert square_of(points) == Square(20, 40, pytest.approx(40 * np.sqrt(2)))


# the network ----------------------------------------------------------------------------------------------------------


@needs_tddfa
@needs_clips
def test_it_reads_the_pose_of_real_faces(tmp_path: Path) -> None:
    face, other = real("p001", frames=2), real("p004", frames=2)
    roll = cv2.getRotationMatrix2D((112, 112), 15, 1.0)
    rolled = np.stack([cv2.warpAffine(one, roll, (224, 224), borderMode=cv2.BORDER_REPLICATE) for one in face])
    cases = [(face, face, out) for out in (face, rolled, other, black(2))]
    same, leaning, stranger, nobody = score(APD(), EXTRACTOR, cases, tmp_path)
    assert same["apd-3ddfa"] == 0
    assert leaning["apd-3ddfa-roll"] == pytest.approx(15, abs=2)
    assert leaning["apd-3ddfa-angle"] == pytest.approx(15, abs=2.5)
    assert stranger["apd-3ddfa"] > 2
    assert isinstance(nobody, Failed)
    expressions = score(AED(), EXTRACTOR, cases, tmp_path)
    assert expressions[0]["aed-3ddfa"] == 0
    assert 0 < expressions[1]["aed-3ddfa"] < expressions[2]["aed-3ddfa"]


@needs_tddfa
def test_it_measures_the_exact_rotation_of_rendered_heads(tmp_path: Path) -> None:
    """A head at 15 degrees to either side; 3DDFA_V2 sees turns of rendered heads about a fifth too large."""
    from bcd_bench_faces.synthesis.renderer import Actor
    from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of

    motion = motion_of("test", 3, 1)
    turns = [Rotation.from_euler("y", degrees, degrees=True).as_matrix() for degrees in (-15, 15)]
    actor = Actor(identity_of("test", 3), look_of("test", 3))
    expression, translation = (np.repeat(one, 2, axis=0) for one in (motion.expression, motion.translation))
    frames = actor.frames(expression, turns, translation, 128)
    rotation = extract([frames], tmp_path)[0]["rotation"]
    assert angle_between(rotation[:1], rotation[1:])[0] == pytest.approx(33, abs=6)
    yaw = angles_of(rotation)[:, 0]
    assert yaw[0] * yaw[1] < 0


def extract(clips: list[Any], root: Path) -> list[Any]:
    from bcd_bench.scoring.features import FeatureStore

    return FeatureStore(load_registry(), device="cpu", root=root).get(EXTRACTOR, [Clip(one, 25.0) for one in clips])


@needs_tddfa
@needs_clips
def test_company_does_not_matter(tmp_path: Path) -> None:
    clips = [real("p001", frames=2), real("p004", frames=2), black(1)]
    together = extract(clips, tmp_path / "a")
    alone = [extract([one], tmp_path / "b")[0] for one in reversed(clips)][::-1]
    for one, other in zip(together, alone, strict=True):
        assert one["parameters"].shape == (len(other["parameters"]), 62)
        assert np.array_equal(one["parameters"], other["parameters"], equal_nan=True)
    assert np.isnan(together[2]["parameters"]).all()
    assert np.array_equal(together[0]["parameters"][:, 52:], together[0]["expression"])


# assets ---------------------------------------------------------------------------------------------------------------


def test_without_the_files_the_metrics_say_how_to_get_them(
    tmp_path: Path, bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    for metric in (AED(), APD()):
        with pytest.raises(MissingAssetError, match="asset 'tddfa-v2': not found") as caught:
            metric.load("cpu")
        assert "cleardusk/3DDFA_V2" in str(caught.value.hint)
    assert TDDFAParameters().identity["weights"] == "none"


@needs_tddfa
def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"not a network")
    with pytest.raises(UsageError, match=r"junk\.onnx is not 3DDFA_V2"):
        check_network(junk)
    monkeypatch.setattr(tddfa, "PROBE_POSE", (0.0,) * 12)
    with pytest.raises(UsageError, match="does not have the weights of 3DDFA_V2"):
        TDDFANetwork("cpu")


def test_other_scales_and_pickles_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, mean=np.zeros(62, np.float32), std=np.ones(62, np.float32))
    with pytest.raises(UsageError, match="does not hold the numbers of 3DDFA_V2"):
        check_scale(other)
    np.savez(other, mean=np.array([{}], dtype=object), std=np.ones(62, np.float32))
    with pytest.raises(UsageError, match=r"does not hold the arrays mean and std: .*allow_pickle"):
        check_scale(other)


@needs_tddfa
def test_a_copy_under_the_name_of_its_own_export_is_found(
    tmp_path: Path, bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = AssetStore(load_registry()).find(TDDFA.name)
    (tmp_path / "mb05_120x120.onnx").write_bytes(source.read_bytes())
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    assert AssetStore(load_registry()).find(TDDFA.name).name == "mb05_120x120.onnx"
