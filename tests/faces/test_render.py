"""The rasteriser against cases worked out by hand, and the renderer's promises."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from bcd_bench.types.errors import MissingAssetError
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.synthesis.appearance import HAIR_STYLES, random_look
from bcd_bench_faces.synthesis.rasterizer import downsample, rasterize, vertex_normals
from bcd_bench_faces.synthesis.renderer import FOCAL, Actor
from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of

SOLID = np.ones((1, 1), np.float32)
STILL = np.eye(3, dtype=np.float32)[None]
AWAY = np.array([[0, -16, 1120]], np.float32)
SILENT = np.zeros((1, 52), np.float32)


def draw(points: list[list[float]], faces: list[list[int]], side: int = 8, alpha: np.ndarray = SOLID):
    p, f = np.array(points, np.float32), np.array(faces, np.int32)
    return rasterize(p, f, f, np.zeros((len(p), 2), np.float32), alpha, side, side)


def test_triangle_covers_the_pixels_whose_centres_it_holds() -> None:
    found, weights, _ = draw([[0, 0, 1], [8, 0, 1], [0, 8, 1]], [[0, 1, 2]])
    columns, rows = np.meshgrid(np.arange(8) + 0.5, np.arange(8) + 0.5)
    inside = columns + rows <= 8
    np.testing.assert_array_equal(found >= 0, inside)
    np.testing.assert_allclose(weights[inside, 1], columns[inside] / 8, atol=1e-6)
    np.testing.assert_allclose(weights[inside, 2], rows[inside] / 8, atol=1e-6)


@pytest.mark.parametrize("order", [[[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]])
def test_the_nearer_triangle_wins_in_any_order(order: list[list[int]]) -> None:
    far, near = 1 / 20, 1 / 10
    points = [[0, 0, far], [16, 0, far], [0, 16, far], [0, 0, near], [4, 0, near], [0, 4, near]]
    found, _, nearest = draw(points, order)
    assert found[0, 0] == order.index([3, 4, 5])
    assert found[6, 1] == order.index([0, 1, 2])
    np.testing.assert_allclose([nearest[0, 0], nearest[6, 1]], [near, far], rtol=1e-6)


def test_weights_are_right_in_space_not_on_the_screen() -> None:
    # An edge from depth 1 to depth 3: its middle in the picture is a quarter of the way along it in space.
    points = [[0, 0, 1], [8, 0, 1 / 3], [0, 8, 1]]
    _, weights, _ = draw(points, [[0, 1, 2]])
    screen = 0.5 / 8
    at_x = 3.5 / 8
    expected = (at_x / 3) / (at_x / 3 + (1 - at_x - screen) + screen)
    np.testing.assert_allclose(weights[0, 3, 1], expected, rtol=1e-5)


def test_half_transparent_leaves_half_of_the_pixels() -> None:
    found, _, _ = draw([[0, 0, 1], [64, 0, 1], [0, 64, 1]], [[0, 1, 2]], 16, np.full((1, 1), 0.5, np.float32))
    assert (found >= 0).mean() == 0.5


def test_what_lies_outside_or_edge_on_is_left_out() -> None:
    found, _, _ = draw([[-9, -9, 1], [-1, -9, 1], [-9, -1, 1], [2, 2, 1], [5, 5, 1], [7, 7, 1]], [[0, 1, 2], [3, 4, 5]])
    assert (found == -1).all()


def test_normals_of_a_flat_square() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [9, 9, 9]], np.float32)
    normals = vertex_normals(points, np.array([[0, 1, 2], [1, 3, 2]], np.int32))
    np.testing.assert_array_equal(normals[:4], [[0, 0, 1]] * 4)
    np.testing.assert_array_equal(normals[4], [0, 0, 0])


def test_downsampling_averages_light() -> None:
    image = np.zeros((2, 2, 3), np.float32)
    image[0] = 1.0
    image[1, 0] = 7.0  # too bright counts as full
    table = np.arange(256).astype(np.uint8)
    assert downsample(image, 2, table)[0, 0].tolist() == [191, 191, 191]


@pytest.fixture(scope="module")
def actor() -> Actor:
    return Actor(identity_of("train", 3), look_of("train", 3))


@pytest.mark.parametrize("size", [64, 96])
def test_frames_have_the_size_asked_for(actor: Actor, size: int) -> None:
    frames = actor.frames(SILENT, STILL, AWAY, size)
    assert frames.shape == (1, size, size, 3)
    assert frames.dtype == np.uint8


def test_same_input_gives_the_same_bytes_and_frames_do_not_touch_each_other(actor: Actor) -> None:
    move = motion_of("train", 3, 3)
    together = actor.frames(move.expression, move.rotation, move.translation, 64)
    again = Actor(identity_of("train", 3), look_of("train", 3))
    alone = [
        again.frames(move.expression[t : t + 1], move.rotation[t : t + 1], move.translation[t : t + 1], 64)[0]
        for t in (2, 0)
    ]
    np.testing.assert_array_equal(together[[2, 0]], alone)


def test_the_face_lies_where_the_camera_says(actor: Actor) -> None:
    model = HeadModel.load()
    shift = AWAY + np.float32([60, 0, 0])
    here, there = (actor.frames(SILENT, STILL, place, 64)[0].astype(int) for place in (AWAY, shift))
    moved = np.abs(here - there).sum(2) > 0
    assert moved.mean() > 0.1
    eyes = model.bust(identity_of("train", 3), SILENT)[0][np.unique(model.faces[np.isin(model.labels, (1, 2))])]
    place = eyes.mean(0) + AWAY[0]
    column, row = place[:2] / place[2] * FOCAL / 4 + 32
    assert 28 < column < 36
    assert 24 < row < 34


@pytest.mark.parametrize("action", ["eyeBlinkLeft", "jawOpen", "eyeLookUpRight", "browInnerUp"])
def test_actions_are_seen(actor: Actor, action: str) -> None:
    doing = SILENT.copy()
    doing[0, HeadModel.load().bust_expression_names.index(action)] = 1
    still, moved = (actor.frames(what, STILL, AWAY, 128)[0].astype(int) for what in (SILENT, doing))
    changed = np.abs(still - moved).max(2) > 8
    assert 10 < changed.sum() < 0.2 * 128 * 128


def test_every_hair_style_looks_its_own_way() -> None:
    look = look_of("train", 3)
    pictures = [
        Actor(identity_of("train", 3), dataclasses.replace(look, hair_style=style)).frames(SILENT, STILL, AWAY, 64)[0]
        for style in HAIR_STYLES
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(HAIR_STYLES)


def test_looks_come_from_the_generator_alone() -> None:
    first, second, other = (random_look(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_landmarker_finds_the_faces() -> None:
    from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker

    try:
        landmarker = FaceLandmarker()
    except MissingAssetError as error:
        pytest.skip(f"face_landmarker.task is not here: {error}")
    for person in range(3):
        move = motion_of("test", person, 2)
        frames = Actor(identity_of("test", person), look_of("test", person)).frames(
            move.expression, move.rotation, move.translation, 256
        )
        faces = [landmarker.detect(frame) for frame in frames]
        assert [len(found) for found in faces] == [1, 1]
        left, right = faces[0][0].points[[468, 473], :2]  # the irises
        model = HeadModel.load()
        bust = model.bust(identity_of("test", person), move.expression[:1])
        posed = model.pose(bust, move.rotation[:1], move.translation[:1])[0]
        centres = [posed[np.unique(model.faces[model.labels == eye])].mean(0) for eye in (2, 1)]
        for found, centre in zip((left, right), centres, strict=True):
            assert np.linalg.norm(found - (centre[:2] / centre[2] * FOCAL + 128)) < 7


def test_compiled_code_does_without_a_folder_to_keep_it_in() -> None:
    """Where no cache can be written, a process compiles for itself, with the same result."""
    code = (
        "import numba.core.dispatcher as dispatcher\n"
        "def none(*_): raise RuntimeError('cannot cache function: no locator available')\n"
        "dispatcher.FunctionCache = none\n"
        "import numpy as np\n"
        "from bcd_bench_faces.synthesis.rasterizer import downsample\n"
        "print(downsample(np.ones((2, 2, 3), np.float32), 2, np.arange(256).astype(np.uint8)).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=3600)
    assert done.stdout.strip() == "[[[255, 255, 255]]]", done.stderr
