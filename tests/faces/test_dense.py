"""The parts of the dense landmarks: which points they are, crops, what happens to renders, likelihood and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bcd_bench.types.errors import UsageError
from bcd_bench_faces.dense_landmarks.augment import _bent, example, faceless, photograph
from bcd_bench_faces.dense_landmarks.crops import MARGIN, Square, square_around, take
from bcd_bench_faces.dense_landmarks.network import DenseNet, NetworkConfig, Seen, load_network, network_bytes, to_input
from bcd_bench_faces.dense_landmarks.objective import likelihood
from bcd_bench_faces.dense_landmarks.points import dense_points, project
from bcd_bench_faces.dense_landmarks.renders import BLOCK, RenderPlan, Renders, shoot
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.suites.synthetic_heads import true_parameters

SMALL = NetworkConfig(48, 60, (8, 16, 24, 32), (0, 1, 0), 64, 7)


# which points ---------------------------------------------------------------------------------------------------------


def test_points_come_in_mirrored_pairs_and_crowd_where_faces_move() -> None:
    head, chosen = HeadModel.load(), dense_points()
    assert len(chosen.vertices) == len(set(chosen.vertices.tolist())) == 320
    assert (chosen.mirror[chosen.mirror] == np.arange(320)).all()
    places = head.mean[chosen.vertices]
    assert np.abs(places[chosen.mirror] * (-1, 1, 1) - places).max() < 0.1
    moves = np.linalg.norm(head.expression, axis=2).max(axis=0)
    assert moves[chosen.vertices].mean() > 0.8 * moves.mean()
    spread = np.linalg.norm(head.mean[:, None] - places, axis=2).min(axis=1)
    assert np.quantile(spread, 0.9) < 12  # mm: no part of the face is far from a point


def test_points_are_where_the_renderer_draws_the_face() -> None:
    true = true_parameters({"split": "test", "person": 5, "motion": 7})
    vertices = dense_points().vertices
    drawn = true.meshes()[:, vertices].astype(np.float64)
    wanted = drawn[:, :, :2] / drawn[:, :, 2:] * 900 + 128
    found = project(vertices, true.identity, true.expression, true.rotation, true.translation)
    off = np.linalg.norm(found - wanted, axis=2)
    assert np.median(off) < 1e-3
    assert off.max() < 4  # but for the lids, which follow the gaze in the picture and not in the points


# crops ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [50.0, 96.0, 170.0])
def test_a_crop_and_its_points_belong_together(side: float) -> None:
    picture = np.zeros((200, 240, 3), np.uint8)
    picture[118:122, 98:102] = 255  # its middle is (100, 120)
    square = Square(110.0, 100.0, side)
    crop = take(picture, square, 64).astype(float).sum(axis=2)
    y, x = np.mgrid[:64, :64] + 0.5
    middle = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    assert square.to_picture(middle, 64) == pytest.approx([100, 120], abs=0.3)


def test_a_square_holds_the_points_with_a_margin() -> None:
    square = square_around(np.array([[10.0, 20], [50, 100], [30, 60]]))
    assert (square.x, square.y, square.side) == (30, 60, pytest.approx(80 * MARGIN))


# what happens to a render ---------------------------------------------------------------------------------------------


def test_points_move_with_the_picture() -> None:
    """The picture is dark but for dots at the points: wherever it is turned and mirrored to, that is where they are."""
    points = np.array([[52.0, 60], [92, 60], [72, 84], [60, 100], [84, 100]], np.float32)
    mirror = np.array([1, 0, 2, 4, 3], np.int32)
    picture = np.full((144, 144, 3), 20, np.uint8)
    for x, y in points.astype(int):
        picture[y - 2 : y + 2, x - 2 : x + 2] = 250
    contrast = []
    for number in range(60):
        made = example(picture, points, mirror, picture[:, :, ::-1], 96, [3, number])
        assert made.crop.shape == (96, 96, 3)
        if not made.face:
            continue
        inside = made.points[((made.points > 2) & (made.points < 94)).all(axis=1)].astype(int)
        grey = made.crop.mean(axis=2)
        contrast.append(np.mean([grey[y, x] for x, y in inside]) - np.median(grey))
    assert len(contrast) > 45
    assert np.median(contrast) > 60
    assert np.mean(np.array(contrast) > 15) > 0.8  # the rest is covered, or blurred away


def test_a_bend_moves_points_with_what_they_show() -> None:
    crop = np.full((96, 96, 3), 20, np.uint8)
    points = np.array([[30.0, 30], [66, 30], [48, 52], [38, 70], [60, 70]], np.float32)
    for x, y in points.astype(int):
        crop[y - 2 : y + 2, x - 2 : x + 2] = 250
    y, x = np.mgrid[:96, :96] + 0.5
    gone = []
    for seed in range(20):
        bent, moved = _bent(crop, points, np.random.default_rng(seed))
        gone.append(np.abs(moved - points).mean())
        for at in moved:
            light = (bent.mean(axis=2) - 20) * (np.hypot(x - at[0], y - at[1]) < 6)
            assert [(light * x).sum() / light.sum(), (light * y).sum() / light.sum()] == pytest.approx(at, abs=0.6)
    assert 0.5 < np.mean(gone) < 3  # pixels: another face, but a face


def test_the_same_seed_makes_the_same_example() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (144, 144, 3), dtype=np.uint8)
    points, mirror = rng.uniform(40, 100, (6, 2)).astype(np.float32), np.arange(6, dtype=np.int32)
    made = [example(picture, points, mirror, picture, 96, [0, seed]) for seed in (4, 4, 5)]
    assert made[0].crop.tobytes() == made[1].crop.tobytes() != made[2].crop.tobytes()
    assert made[0].points.tobytes() == made[1].points.tobytes()
    assert photograph(picture, np.random.default_rng(1)).shape == picture.shape
    assert {faceless(picture, 96, np.random.default_rng(seed)).shape for seed in range(20)} == {(96, 96, 3)}


# renders --------------------------------------------------------------------------------------------------------------


def test_renders_are_kept_and_continued(tmp_path: Path) -> None:
    plan = RenderPlan(BLOCK + 4, 40, 60)
    first = Renders(tmp_path, plan)
    first.need(2)
    assert first.ready == BLOCK
    kept = first.pictures[:BLOCK].copy()
    again = Renders(tmp_path, plan)
    assert again.ready == BLOCK
    assert (again.pictures[:BLOCK] == kept).all()
    again.need(plan.count)
    assert again.ready == plan.count
    points = again.points[BLOCK:]
    assert ((points > 0) & (points < 40)).all()
    assert 15 < np.ptp(points, axis=1).max(axis=1).mean() < 30  # the face takes a little more than half of the picture
    other = Renders(tmp_path, RenderPlan(BLOCK, 40, 60, start=BLOCK))
    assert other.ready == 0  # another plan: none of these are its renders


def test_faces_are_drawn_by_number() -> None:
    one, again, other = shoot(7), shoot(7), shoot(8)
    assert one.identity.tobytes() == again.identity.tobytes() != other.identity.tobytes()
    assert one.rotation.tobytes() == again.rotation.tobytes()
    turns = np.array([np.degrees(np.arccos(np.clip(shoot(n).rotation[2, 2], -1, 1))) for n in range(60)])
    assert 10 < turns.mean() < 30
    assert turns.max() < 62


# the network ----------------------------------------------------------------------------------------------------------


def test_the_likelihood_is_that_of_a_gaussian() -> None:
    points, sigma = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]]), torch.log(torch.tensor([[2.0], [1.0]]))
    seen = Seen(points, sigma, torch.zeros(2), torch.zeros(2, 0))
    face = torch.tensor([1.0, 0.0])  # the second shows none and must not count
    found = likelihood(seen, torch.zeros_like(points), face, beta=0.0)
    assert found.item() == pytest.approx(25 / 2 / 4 + 2 * np.log(2))
    weighed = likelihood(seen, torch.zeros_like(points), face, beta=0.5)
    assert weighed.item() == pytest.approx(2 * (25 / 2 / 4 + 2 * np.log(2)))


def test_an_untrained_network_says_the_mean_face_nearly() -> None:
    torch.manual_seed(0)
    network = DenseNet(SMALL).eval()
    seen = network(to_input(np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)))
    assert seen.points.shape == (2, 60, 2)
    assert seen.log_sigma.shape == (2, 60)
    assert seen.face.shape == (2,)
    assert seen.codes.shape == (2, 7)
    assert (seen.points - 24).abs().max() < 6


def test_exposure_and_contrast_do_not_matter() -> None:
    crop = np.random.default_rng(0).integers(60, 190, (1, 48, 48, 3)).astype(np.uint8)
    assert (to_input(crop) - to_input(crop // 2 + 20)).abs().mean() < 0.1
    assert to_input(np.zeros_like(crop)).abs().max() == 0


def test_a_network_comes_back_from_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, vertices = DenseNet(SMALL).eval(), dense_points(60).vertices
    network.decoder.copy_(torch.randn(7, 7))
    path = tmp_path / "net.safetensors"
    path.write_bytes(network_bytes(network, vertices, {"steps": 3}))
    again, where, card = load_network(path)
    assert card == {"steps": 3}
    assert (where == vertices).all()
    crop = to_input(np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8))
    assert torch.allclose(again(crop).points, network(crop).points, atol=0.05)  # kept in float16
    assert torch.allclose(again(crop).codes, network(crop).codes, atol=0.01)
    assert torch.equal(again.decoder, network.decoder)


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_another_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / "net.safetensors"
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}) if content is None else content)
    with pytest.raises(UsageError, match=r"net\.safetensors: not (a readable safetensors file|dense landmark weights)"):
        load_network(path)


def test_weights_that_are_missing_are_told(tmp_path: Path) -> None:
    import safetensors
    import safetensors.torch

    network, vertices = DenseNet(SMALL), dense_points(60).vertices
    path = tmp_path / "net.safetensors"
    path.write_bytes(network_bytes(network, vertices, {}))
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "hidden.bias"}  # noqa: SIM118
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    assert json.loads(metadata["network"])["side"] == 48
    with pytest.raises(UsageError, match=r"weights are missing: hidden\.bias"):
        load_network(path)
