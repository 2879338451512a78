"""LivePortrait's crops: the original's matrices and pictures, and what a crop and its way back are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bcd_bench_baselines.liveportrait import crop
from bcd_bench_baselines.liveportrait.crop import LAYOUT_106, LAYOUT_203, Layout
from bcd_bench_baselines.liveportrait.method import seen, seen_driving
from tests.baselines.parity import Reference, close, reference

FOUR = Layout((0,), (1,), (2, 3))


@pytest.fixture(scope="module")
def parity() -> Reference:
    return reference("liveportrait")


def picture_of(levels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(levels).permute(2, 0, 1)[None].float()


def levels_of(picture: torch.Tensor) -> np.ndarray:
    return picture[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("name", "layout"), [("crop203", LAYOUT_203), ("crop106", LAYOUT_106)])
def test_source_crop_and_paste_back_are_the_originals(parity: Reference, name: str, layout: Layout) -> None:
    photo, points = picture_of(parity.arrays["photo_u8"]), parity.arrays[f"{name}_lmk"]
    matrix = crop.crop_matrix(points, layout)
    close(matrix, parity.arrays[f"{name}_M_o2c"], most=2e-4, mean=2e-4)
    close(points @ matrix[:2, :2].T + matrix[:2, 2], parity.arrays[f"{name}_pt_crop"], most=2e-4, mean=2e-4)
    back = np.linalg.inv(matrix)
    close(back, parity.arrays[f"{name}_M_c2o"], most=2e-4, mean=2e-4)
    image = seen(photo, matrix) * 255
    close(levels_of(image)[::4, ::4], parity.arrays[f"{name}_img256_sub"].astype(float), most=2, mean=0.1)
    mask = crop.warp(crop.fade_mask(), back.astype(np.float32), (300, 400)).round() / 255
    close(mask[0, 0, ::4, ::4], parity.arrays[f"{name}_mask_sub"], most=1 / 255, mean=1e-4)
    large = crop.warp(photo, matrix, (crop.SIDE, crop.SIDE)).round()
    pasted = crop.paste(255 - large, photo, matrix).clamp(0, 255).floor()
    close(levels_of(pasted)[::4, ::4], parity.arrays[f"{name}_pasteback_sub"].astype(float), most=2, mean=0.1)


def test_driving_crop_is_the_originals(parity: Reference) -> None:
    box = crop.driving_box(parity.arrays["crop203_lmk"], LAYOUT_203)
    close(box, parity.arrays["driving_bbox"], most=1e-3, mean=1e-3)
    close(crop.box_matrix(box), parity.arrays["driving_crop_M_o2c"], most=1e-3, mean=1e-3)
    frame = seen_driving(picture_of(parity.arrays["photo_u8"]), parity.arrays["driving_bbox"]) * 255
    close(levels_of(frame)[::4, ::4], parity.arrays["driving_crop256_sub"].astype(float), most=2, mean=0.1)


def test_lip_and_eye_openings_are_the_originals(parity: Reference) -> None:
    points = parity.arrays["lmk203"]
    assert crop.opening(points, 90, 102, 48, 66) == pytest.approx(float(parity.arrays["lip_ratio"][0, 0]), abs=1e-5)
    assert crop.opening(points, 6, 18, 0, 12) == pytest.approx(float(parity.arrays["eye_ratio"][0, 0]), abs=1e-5)
    assert crop.opening(points, 30, 42, 24, 36) == pytest.approx(float(parity.arrays["eye_ratio"][0, 1]), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_face_that_is_turned_moved_and_scaled_has_the_same_crop(seed: int) -> None:
    """Eyes level, mouth below them, and every point at the same place, whatever the pose in the picture."""
    rng = np.random.default_rng(seed)
    face = np.concatenate([[(30, 40), (70, 40), (40, 80), (60, 80)], rng.uniform(20, 90, (8, 2))])
    angle, factor, shift = rng.uniform(-3, 3), rng.uniform(0.3, 3), rng.uniform(-50, 50, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = []
    for points in (face, factor * face @ turn.T + shift):
        matrix = crop.crop_matrix(points, FOUR)
        places.append(points @ matrix[:2, :2].T + matrix[:2, 2])
    np.testing.assert_allclose(places[0], places[1], atol=1e-2)
    left, right, *mouth = places[0][:4]
    assert left[1] == pytest.approx(right[1], abs=1e-2)
    assert right[0] > left[0]
    assert np.mean(mouth, axis=0)[1] > left[1]
    box = places[0].max(axis=0) - places[0].min(axis=0)
    assert box.max() == pytest.approx(crop.SIDE / 2.3, rel=1e-4)
    middle = (places[0].max(axis=0) + places[0].min(axis=0)) / 2
    np.testing.assert_allclose(middle, [crop.SIDE / 2, crop.SIDE * (0.5 + 0.125)], atol=1e-2)


def test_a_crop_pasted_unchanged_leaves_the_picture_and_what_is_outside_is_never_touched() -> None:
    y, x = np.mgrid[:120, :160]
    picture = picture_of(np.stack([x + 20, 2 * y, 255 - x], axis=-1).astype(np.uint8))
    matrix = crop.crop_matrix(np.array([(60.0, 50), (90, 55), (65, 80), (80, 82)]), FOUR)
    cut = crop.warp(picture, matrix, (crop.SIDE, crop.SIDE)).round()
    change = (crop.paste(cut, picture, matrix) - picture).abs()
    # at the crop's lower right edges the mask is a sixteenth where black begins, as the original's is
    assert change.max() <= 255 / 16 / 4
    assert (change > 1).float().mean() < 0.02
    red = torch.zeros(2, 3, crop.SIDE, crop.SIDE)
    red[:, 0] = 255
    pasted = crop.paste(red, picture, matrix)
    corners = np.array([(0, 0), (crop.SIDE, 0), (0, crop.SIDE), (crop.SIDE, crop.SIDE)], float)
    back = np.linalg.inv(matrix.astype(np.float64))
    low, high = (f((corners @ back[:2, :2].T + back[:2, 2]), axis=0).astype(int) for f in (np.min, np.max))
    outside = torch.ones(120, 160, dtype=torch.bool)
    outside[max(0, low[1] - 1) : high[1] + 2, max(0, low[0] - 1) : high[0] + 2] = False
    assert outside.any()
    assert torch.equal(pasted[0][:, outside], picture[0][:, outside])
    centre = back[:2, :2] @ (256, 256) + back[:2, 2]
    np.testing.assert_allclose(pasted[1, :, int(centre[1]), int(centre[0])], [255, 0, 0])


def test_warping_by_whole_pixels_moves_them_and_fills_with_black() -> None:
    picture = torch.rand(2, 3, 8, 9)
    moved = crop.warp(picture, np.array([[1, 0, 2], [0, 1, -3], [0, 0, 1]], np.float32), (8, 9))
    torch.testing.assert_close(moved[..., :5, 2:], picture[..., 3:, :7], rtol=0, atol=1e-5)
    assert moved[..., :2].abs().max() < 1e-5
    assert moved[..., 5:, :].abs().max() < 1e-5


def test_frames_of_another_size_are_interpolated_between_pixel_centres() -> None:
    frames = torch.randint(0, 256, (1, 3, 224, 224)).float()
    wanted = F.interpolate(frames, size=(256, 256), mode="bilinear", align_corners=False)
    assert (seen_driving(frames, None) * 255 - wanted).abs().max() <= 0.5 + 1e-4
    assert torch.equal(seen(frames, None), seen_driving(frames, None))
