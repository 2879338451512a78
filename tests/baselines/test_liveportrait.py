"""LivePortrait's method around its networks: what it cuts out, carries over, pastes back and refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.common.landmarks import LIPS, POINTS_68, NoFaceError
from bcd_bench_baselines.liveportrait import crop
from bcd_bench_baselines.liveportrait.keypoints import (
    Motion,
    absolute_keypoints,
    degrees_of_bins,
    exaggeration,
    keypoints,
    relative_keypoints,
    rotation_matrix,
)
from bcd_bench_baselines.liveportrait.method import LivePortrait
from bcd_bench_baselines.liveportrait.retargeting import Retargeting
from tests.baselines.test_lia import Held, smooth


class Faces:
    """478 points around `centre` in every frame, or none: eyes level, mouth below, lips open."""

    def __init__(self, centre: tuple[float, float] | None = (32, 32), reach: float = 8) -> None:
        self.centre, self.reach = centre, reach

    def of(self, frames: np.ndarray) -> np.ndarray:
        if self.centre is None:
            raise NoFaceError("no face was found")
        points = np.random.default_rng(0).uniform(-1, 1, (478, 2))
        jaw, eyes, mouth = POINTS_68[:17], POINTS_68[36:48], POINTS_68[48:]
        points[list(jaw)] = np.stack([np.linspace(-1, 1, 17), 1 - np.linspace(-1, 1, 17) ** 2 * 2], axis=1)
        points[list(eyes[:6])], points[list(eyes[6:])] = (-0.5, -0.4), (0.5, -0.4)
        points[list(mouth)] = (0, 0.5)
        points[[LIPS[0], LIPS[1]]] = [(0, 0.45), (0, 0.55)]
        points[[LIPS[2], LIPS[3]]] = [(-0.3, 0.5), (0.3, 0.5)]
        return np.tile(np.asarray(self.centre) + self.reach * points, (len(frames), 1, 1))


class Mirror(LivePortrait):
    """The method with networks that draw what they saw of the source, and tell a pose from an image's brightness."""

    def load_weights(self, weights: Path | None) -> None:
        del weights
        self.faces = Faces() if self.config.wants_landmarks else None  # type: ignore[assignment]
        self.appearance = lambda image: image  # type: ignore[assignment]
        self.seen: list[Tensor] = []
        self.drawn: list[Tensor] = []
        self._detect = self._look
        self.motion = SimpleNamespace(detector=self._look)  # type: ignore[assignment]
        torch.manual_seed(2)
        self.retargeting = Retargeting().eval()
        self._draw = self._reflect

    def _look(self, images: Tensor) -> dict[str, Tensor]:
        self.seen.append(images)
        count = len(images)
        rng = torch.Generator().manual_seed(1)
        bright = images.mean(dim=(1, 2, 3))[:, None]
        bins = -(torch.arange(66) - 30 - 4 * bright).square()
        return {
            "pitch": bins,
            "yaw": -bins.square().sqrt(),
            "roll": bins,
            "t": bright * torch.tensor([0.1, 0.2, 0.3]),
            "exp": bright * torch.randn(63, generator=rng) * 0.1,
            "scale": 1 + bright,
            "kp": torch.randn(63, generator=rng).expand(count, -1),
        }

    def _reflect(self, features: Tensor, x_d: Tensor, x_s: Tensor) -> Tensor:
        del x_s
        self.drawn.append(x_d)
        return F.interpolate(features, scale_factor=2, mode="nearest").expand(len(x_d), -1, -1, -1)


def mirror(**config: Any) -> Mirror:
    method = Mirror({"seeded": 1, **config})
    method.load(None, "cpu")
    return method


def pair(source: np.ndarray, driving: np.ndarray) -> Pair:
    return Pair("p", ClipRef("c", Held(source)), ClipRef("m", Held(driving)))


def test_what_is_cut_out_is_pasted_where_it_was() -> None:
    source, driving = smooth(1, 2), smooth(2, 6)
    method = mirror()
    [clip] = method.transfer([pair(source, driving)], seed=0)
    assert isinstance(clip, Clip)
    assert clip.frames.shape == driving.shape
    assert np.abs(clip.frames.astype(int) - source[0]).max() <= 3  # the mirror draws the source, in every frame
    assert [len(images) for images in method.seen] == [1, 4, 2]
    points = Faces().of(source[:1])[0][list(POINTS_68)]
    matrix = crop.crop_matrix(points, crop.LAYOUT_68)
    middle = matrix[:2, :2] @ (32, 32) + matrix[:2, 2]  # of the face, in the crop of 512
    here = method.seen[0][0, :, int(middle[1] / 2), int(middle[0] / 2)] * 255
    np.testing.assert_allclose(here, source[0, 32, 32], atol=6)


def test_without_paste_back_the_crop_is_the_output_and_without_crop_the_whole_frame_is_seen() -> None:
    source, driving = smooth(1, 1), smooth(2, 1)
    method = mirror(paste_back=False)
    made = method.animate(source[0], driving)
    wanted = F.interpolate(method.seen[0] * 255, size=(64, 64), mode="area")[0].permute(1, 2, 0)
    assert np.abs(made[0] - wanted.numpy()).max() <= 1
    assert np.abs(made[0].astype(int) - source[0]).max() > 20
    whole = mirror(crop=False)
    made = whole.animate(source[0], driving)
    assert whole.faces is None
    assert np.abs(made[0].astype(int) - source[0]).max() < 12  # drawn larger, and averaged again


def test_a_driver_that_is_not_square_is_cut_around_its_face() -> None:
    driving = np.zeros((2, 64, 96, 3), np.uint8)
    driving[:, 10:50, 40:80] = 200
    method = mirror()
    method.faces = Faces((60, 30), reach=10)  # type: ignore[assignment]
    made = method.animate(smooth(1, 1)[0], driving)
    assert made.shape == driving.shape
    assert method.seen[1].shape == (2, 3, 256, 256)
    box = crop.driving_box(Faces((60, 30), 10).of(driving)[0][list(POINTS_68)], crop.LAYOUT_68)
    inside = (min(80, box[2]) - max(40, box[0])) * (min(50, box[3]) - max(10, box[1])) / (box[2] - box[0]) ** 2
    assert method.seen[1].mean().item() == pytest.approx(inside * 200 / 255, rel=0.05)


def test_a_pair_without_a_face_fails_with_the_reason() -> None:
    method = mirror()
    method.faces = Faces(None)  # type: ignore[assignment]
    [result] = method.transfer([pair(smooth(1, 1), smooth(2, 1))], seed=0)
    assert result == Failed("liveportrait: the source: no face was found")


def test_open_lips_are_closed_and_closed_ones_left() -> None:
    source, driving = smooth(1, 1), smooth(2, 2)
    plain, closing = mirror(), mirror(normalize_lip=True)
    for method in (plain, closing):
        method.animate(source[0], driving)
    change = closing.drawn[0] - plain.drawn[0]
    assert change.abs().max() > 1e-3
    x_s = keypoints(Motion(**vars(closing_motion(closing, 0))))
    wanted = closing.retargeting.lips(x_s, torch.full((1, 1), 0.1 / 0.6), torch.zeros(1, 1))
    torch.testing.assert_close(change, wanted.expand(2, -1, -1), atol=1e-4, rtol=1e-3)
    _, moved = closing.carry_over(closing_motion(closing, 0), closing_motion(closing, 1), lip_ratio=0.02)
    torch.testing.assert_close(moved, plain.drawn[0], atol=1e-5, rtol=0)


def closing_motion(method: Mirror, call: int) -> Motion:
    from bcd_bench_baselines.liveportrait.motion_extractor import motion_of

    return motion_of(Mirror._look(SimpleNamespace(seen=[]), method.seen[call]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"mode": "absolute", "region": "lip"}, "liveportrait: --set region: .*mode=relative"),
        ({"mode": "absolute", "normalize_lip": True}, "liveportrait: --set normalize_lip: .*mode=relative"),
        ({"multiplier": 0}, "liveportrait: --set multiplier"),
        ({"colour": "red"}, "liveportrait: --set colour"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LivePortrait(config)


def test_a_folder_without_the_networks_is_refused_by_name(tmp_path: Path) -> None:
    method = LivePortrait({"crop": False})
    with pytest.raises(UsageError, match=r"base_models/appearance_feature_extractor\.pth is not a file"):
        method.load(tmp_path, "cpu")
    (tmp_path / "one.pth").write_bytes(b"")
    with pytest.raises(UsageError, match="is not a folder; expected LivePortrait's with base_models"):
        method.load(tmp_path / "one.pth", "cpu")
    with pytest.raises(UsageError, match="method liveportrait needs weights: the folder liveportrait"):
        method.load(None, "cpu")


# keypoints ----------------------------------------------------------------------------------------------------------


def random_motion(count: int, seed: int) -> Motion:
    rng = torch.Generator().manual_seed(seed)
    angles = [60 * torch.rand(count, 1, generator=rng) - 30 for _ in range(3)]
    points = [torch.randn(count, 21, 3, generator=rng) for _ in range(2)]
    t, scale = torch.randn(count, 3, generator=rng), 1 + torch.rand(count, 1, generator=rng)
    return Motion(*angles, t=t, exp=0.1 * points[0], scale=scale, kp=points[1])


def test_angles_are_the_expected_bin() -> None:
    sure = torch.full((1, 66), -1e9)
    sure[0, 40] = 0
    assert degrees_of_bins(sure).item() == pytest.approx(3 * 40 - 97.5)
    assert degrees_of_bins(torch.zeros(1, 66)).item() == pytest.approx(0)


def test_rotations_are_those_of_three_turns() -> None:
    from scipy.spatial.transform import Rotation

    angles = torch.tensor([[20.0, -35.0, 50.0]])
    found = rotation_matrix(*angles.split(1, dim=1))[0]
    wanted = Rotation.from_euler("xyz", angles[0].numpy(), degrees=True).as_matrix().T  # about fixed axes, x first
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("region", ["all", "exp", "pose", "lip", "eyes"])
def test_a_driver_at_rest_moves_nothing(region: Any) -> None:
    source, rest = random_motion(1, 1), random_motion(1, 2)
    still = Motion.cat([rest, rest])
    torch.testing.assert_close(
        relative_keypoints(source, still, rest, region), keypoints(source).expand(2, -1, -1), atol=1e-4, rtol=1e-4
    )


def test_a_source_that_drives_itself_is_reproduced_in_every_mode() -> None:
    clip = random_motion(3, 4)
    own = Motion(**{**vars(clip), "kp": clip.kp[:1].expand(3, -1, -1)})
    torch.testing.assert_close(relative_keypoints(own[:1], own, own[:1]), keypoints(own), atol=1e-3, rtol=1e-3)
    fixed = Motion(**{**vars(own), "scale": own.scale[:1].expand(3, -1), "exp": own.exp[:1].expand(3, -1, -1)})
    torch.testing.assert_close(absolute_keypoints(own[:1], fixed), keypoints(fixed), atol=1e-5, rtol=1e-5)


def test_parts_of_the_motion_are_its_points() -> None:
    source, driving = random_motion(1, 1), random_motion(2, 2)
    for region, points in (("lip", {6, 12, 14, 17, 19, 20}), ("eyes", {11, 13, 15, 16, 18})):
        moved = relative_keypoints(source, driving, driving[:1], region)[1] - keypoints(source)[0]  # type: ignore[arg-type]
        assert set(torch.nonzero(moved.abs().sum(dim=1) > 1e-4).flatten().tolist()) == points
    only_exp = relative_keypoints(source, driving, driving[:1], "exp")[1] - keypoints(source)[0]
    wanted = source.scale * (driving.exp[1] - driving.exp[0])
    torch.testing.assert_close(only_exp, wanted, atol=1e-5, rtol=1e-4)


def test_exaggeration_is_the_root_of_the_ratio_of_volumes() -> None:
    cloud = torch.randn(1, 21, 3, generator=torch.Generator().manual_seed(3))
    assert exaggeration(2 * cloud, cloud) == pytest.approx(8**0.5, rel=1e-5)
