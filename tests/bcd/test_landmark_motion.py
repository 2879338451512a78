"""Motion read from landmarks: pose, fields, the start of the training, the code, and reading."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.head_pose import half_turn, projected, rigid_pose, rotation_of
from bcd_bench_bcd.extensions.landmark_fields import interpolated_fields
from bcd_bench_bcd.extensions.landmark_motion import LandmarkMotion, LandmarkNetwork
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.pixel_path import PixelNetwork, PixelPath
from bcd_bench_bcd.inference import landmarks as reading
from bcd_bench_bcd.inference.landmarks import LandmarkReader, NoFaceError, filled, landmark_reader
from bcd_bench_bcd.inference.pixels import candidates
from bcd_bench_bcd.inference.weights import Description
from bcd_bench_bcd.landmarks.codebook import RunningCodebook, k_means
from bcd_bench_bcd.landmarks.config import LandmarkTrainConfig
from bcd_bench_bcd.landmarks.loss import point_distance, rate_factor
from bcd_bench_bcd.landmarks.pixel_path import linear_map
from bcd_bench_bcd.landmarks.start import FREE, group_order, principal_components, start_network, transform_code
from bcd_bench_bcd.landmarks.translation import fit
from bcd_bench_bcd.paper.config import QuantizerConfig
from tests.bcd.conftest import BlockClips
from tests.bcd.landmark_toy import HEAD, KNOWN, REST, BlockLandmarks, HeadClips
from tests.bcd.test_canonical_features import canonical_model


def settings(**changes: Any) -> LandmarkMotion:
    tiny = {"landmarks": KNOWN, "points": len(HEAD), "subject": 4, "groups": 3, "entries": 8, "dim": 2, "focal": 7.0}
    return LandmarkMotion(**{**tiny, **changes})


def network(skinning: Tensor | None = None) -> LandmarkNetwork:
    """A network without quantiser that has started on the heads of `HeadClips`."""
    torch.manual_seed(0)
    net = LandmarkNetwork(settings(groups=FREE, dim=1), transformer=16)
    points, _ = HeadClips().random_points(range(20), range(20), 4)
    skinning = torch.from_numpy(HeadClips().point_skinning()) if skinning is None else skinning
    landmarks = torch.from_numpy(points[:, :, :KNOWN])
    start_network(net, torch.from_numpy(HEAD), torch.from_numpy(REST), skinning, landmarks)
    return net.eval()


# ---- pose --------------------------------------------------------------------------------------------------------
def test_rotations() -> None:
    torch.testing.assert_close(rotation_of(torch.zeros(2, 6)), torch.eye(3).repeat(2, 1, 1))
    turn = rotation_of(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).repeat(5, 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(5))
    half = half_turn(turn)
    torch.testing.assert_close(half @ half, turn, atol=1e-4, rtol=0)
    assert (half.diagonal(dim1=1, dim2=2).sum(-1) > turn.diagonal(dim1=1, dim2=2).sum(-1) - 1e-5).all()


def test_the_pose_of_a_known_shape_is_found() -> None:
    turn = torch.from_numpy(Rotation.from_euler("yxz", [[52, 10, 0], [-40, -15, 20]], degrees=True).as_matrix()).float()
    place = torch.tensor([[0.5, -0.2, 12.0], [-0.4, 0.3, 7.0]])
    shape = torch.from_numpy(HEAD) / 100
    found_turn, found_place = rigid_pose(projected(shape, turn, place, 7.0), shape, torch.tensor([0.0, 0, 10]), 7.0)
    torch.testing.assert_close(found_turn, turn, atol=1e-3, rtol=0)
    torch.testing.assert_close(found_place, place, atol=1e-2, rtol=0)


# ---- fields ------------------------------------------------------------------------------------------------------
def test_fields_reproduce_an_affine_move_near_the_points_and_keep_the_upper_border() -> None:
    places = torch.rand(1, 60, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    matrix = torch.tensor([[0.1, -0.2], [0.05, 0.3]])
    moves = places @ matrix.T + torch.tensor([0.1, -0.05])
    both = torch.stack([moves, -moves], 1)
    fields = interpolated_fields(places, torch.ones(1, 60), both, 64)
    assert fields.shape == (1, 2, 2, 64, 64)
    at = torch.nn.functional.grid_sample(fields[:, 0], places[:, None], align_corners=False)[:, :, 0].mT
    torch.testing.assert_close(at, moves, atol=0.01, rtol=0)
    torch.testing.assert_close(fields[:, 1], -fields[:, 0], atol=1e-5, rtol=0)
    upper = 64 * 7 // 10  # the shoulders may begin below
    assert fields[..., :upper, 0].abs().max() < 0.03
    assert fields[..., :upper, -1].abs().max() < 0.03
    assert fields[..., 0, :].abs().max() < 0.03
    below = torch.tensor([0.0, 1 - 1 / 64]) @ matrix.T + torch.tensor([0.1, -0.05])
    torch.testing.assert_close(fields[0, 0, :, -1, 31:33].mean(-1), below, atol=0.06, rtol=0)
    # a point that is not seen has no influence
    moves[:, 0], seen = 9.0, torch.ones(1, 60)
    seen[:, 0] = 0
    again = interpolated_fields(places[:, 1:], seen[:, 1:], moves[:, None, 1:], 64)
    torch.testing.assert_close(interpolated_fields(places, seen, moves[:, None], 64), again, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_content_frame_with_the_motion_to_draw_is_carried_as_it_is() -> None:
    net = network()
    points, _ = HeadClips().random_points([3], [3], 9)
    landmarks = torch.from_numpy(points[0, :, :KNOWN])
    latents, _ = net.encode(landmarks[None])
    geometry = net.geometry(landmarks, latents[0, [4, 7]], PixelPath(sources=2, gap=2), 16)
    sources, fields = geometry.sources, geometry.displacements
    assert sources[:, 0].tolist() == sources[:, 2].tolist() == [4, 7]
    assert ((sources[:, 1] - sources[:, 0]).abs() >= 2).all()
    assert fields.shape == (2, 3, 2, 16, 16)
    assert fields[:, 0].abs().max() < 1e-4
    assert fields[:, 1].abs().max() > 0.02
    assert not fields[:, 2].any()
    # a frame whose landmarks were not read is not carried, and numbers and gaps stay those of all frames
    landmarks[4] = torch.nan
    sources = net.geometry(landmarks, latents[0, [4, 7]], PixelPath(sources=2, gap=2), 16).sources
    assert not (sources == 4).any()
    assert sources[1, 0] == 7
    assert ((sources[:, 1] - sources[:, 0]).abs() >= 2).all()


@torch.no_grad()
def test_steady_sources_are_selected_for_the_driving_frames_around() -> None:
    net = network()
    points, _ = HeadClips().random_points([3], [3], 9)
    landmarks = torch.from_numpy(points[0, :, :KNOWN])
    latents, _ = net.encode(landmarks[None])
    driving, path = latents[0, [4, 4, 7, 4, 4, 4, 4]], PixelPath(sources=1, gap=1)
    assert net.geometry(landmarks, driving, path, 16).sources[:, 0].tolist() == [4, 4, 7, 4, 4, 4, 4]
    net.steady_window = 5
    assert net.geometry(landmarks, driving, path, 16).sources[:, 0].tolist() == [4] * 7


@torch.no_grad()
def test_the_mirror_image_with_the_motion_to_draw_is_carried_as_it_is() -> None:
    net = network()
    flip = torch.tensor([-1.0, 1.0, 1.0])
    half = torch.from_numpy(HEAD[: KNOWN // 2] + np.array([90, 0, 0], np.float32))
    shape = torch.cat([half, half * flip, torch.from_numpy(HEAD[KNOWN:])])
    net.decoder.mean.copy_(shape / 100)
    turn = rotation_of(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)) * 0.2)
    place = torch.from_numpy(REST) + torch.randn(5, 3, generator=torch.Generator().manual_seed(1)) * 30
    landmarks = projected(shape[:KNOWN], turn, place, 7.0)
    images = net.mirrored(landmarks)
    wanted = projected(shape[:KNOWN], torch.diag(flip) @ turn @ torch.diag(flip), place * flip, 7.0)
    torch.testing.assert_close(images, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(net.mirrored(images), landmarks)
    # the motion of the mirror image of frame 3
    motion = net.encode(images[None])[0][0, 3:4]
    geometry = net.geometry(landmarks, motion, PixelPath(sources=1, gap=1, mirrored=True), 16)
    assert geometry.sources[0, 1:].tolist() == [5 + 3, geometry.sources[0, 0]]
    assert geometry.displacements.shape == (1, 3, 2, 16, 16)
    with_image, own_frames = geometry.displacements[0, 1].abs().mean(), geometry.displacements[0, 0].abs().mean()
    assert with_image < 0.3 * own_frames


@torch.no_grad()
def test_the_content_frame_as_it_is_is_not_shown_where_its_head_is() -> None:
    net = network()
    points, _ = HeadClips().random_points([3], [3], 2)
    landmarks = torch.from_numpy(points[0, :, :KNOWN])
    occupied = net.geometry(landmarks, net.encode(landmarks[None])[0][0, :1], PixelPath(sources=1, gap=1), 32).occupied
    assert occupied is not None
    at = torch.nn.functional.grid_sample(occupied[:, None], landmarks[:1, None], align_corners=False)[0, 0, 0]
    assert at[(landmarks[0].abs() < 0.9).all(-1)].min() > 0.9
    corner = occupied[0, 0, 0]
    assert corner == 0
    fusing = PixelNetwork(PixelPath(sources=1), latent=8, motion=6, content=4, patches=5).eval()
    content, own = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    fused = fusing.fuse(
        [content], [torch.zeros(1, 2, dtype=torch.long)], torch.zeros(1, 2, 2, 64, 64), torch.zeros(1, 6), own, occupied
    )
    assert fused.weights[0, 1][occupied[0] == 1].max() < 1e-4
    assert fused.weights[0, 1, 0, 0] == pytest.approx(float(torch.tensor([2.0, -1, -1]).softmax(0)[1]), rel=1e-4)


def test_landmarks_of_content_are_read_in_a_few_frames_of_the_whole_clip() -> None:
    assert candidates(1).tolist() == [0]
    assert candidates(16).tolist() == list(range(16))
    assert candidates(50).tolist()[::5] == [0, 16, 33, 49]


# ---- the start ---------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_the_network_starts_with_the_pose_of_the_mean_head() -> None:
    net = network()
    mean_person, _ = HeadClips().random_points([0], [40], 4)
    landmarks = torch.from_numpy(mean_person[:, :, :KNOWN])
    latents, subject = net.encode(landmarks)
    drawn = net.decode(latents[0], subject.expand(4, -1)).points[:, :KNOWN]
    size = (landmarks[0] - landmarks[0].mean(1, keepdim=True)).norm(dim=-1).mean()
    assert (drawn - landmarks[0]).norm(dim=-1).mean() < 0.1 * size


@torch.no_grad()
def test_shoulders_do_not_turn_with_the_head() -> None:
    skinning = torch.zeros(len(HEAD), 2)
    skinning[:KNOWN, 0] = 1
    net = network(skinning)
    latents, subject = net.encode(torch.from_numpy(HeadClips().random_points([0], [40], 4)[0][:, :, :KNOWN]))
    turned = latents[0].clone()
    turned[:, :6] += 0.3  # of a typical turn
    before, after = (net.decode(motion, subject.expand(4, -1)).points for motion in (latents[0], turned))
    moved = (after - before).norm(dim=-1)
    assert moved[:, KNOWN:].max() < 0.05 * moved[:, :KNOWN].mean()


def test_principal_components_and_the_order_of_groups() -> None:
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 5.0, 0.1, 2.0])
    directions, spread = principal_components(rows, 2)
    values, vectors = np.linalg.eigh((rows.T @ rows / 200).numpy())
    np.testing.assert_allclose(spread.numpy(), np.sqrt(values[::-1][:2]), rtol=1e-4)
    assert abs(directions[0].numpy() @ vectors[:, -1]) == pytest.approx(1, abs=1e-4)
    assert group_order(3, 2) == [0, 5, 1, 4, 2, 3]
    assert group_order(2, 3) == [0, 3, 4, 1, 2, 5]


@torch.no_grad()
def test_a_transform_of_all_latents_changes_nothing() -> None:
    free, coded = network(), LandmarkNetwork(settings(groups=16, dim=4), transformer=16)
    landmarks = torch.from_numpy(HeadClips().random_points(range(40), range(40), 4)[0][:, :, :KNOWN])
    latents, subjects = free.encode(landmarks)
    flat, many = latents.flatten(0, 1), subjects.repeat_interleave(4, 0)
    transform_code(free, coded, flat, many, torch.ones(len(HEAD)))
    before = free.decode(flat, many).points
    new = coded.encode(landmarks)[0].flatten(0, 1)
    torch.testing.assert_close(coded.decode(new, many).points, before, atol=2e-3, rtol=0)
    torch.testing.assert_close(new.mean(0), torch.zeros(64), atol=1e-2, rtol=0)
    # the first channels of the groups say the most
    effects = new.std(0).view(16, 4)
    assert (effects[:, 0] >= effects[:, 3] - 1e-4).all()


# ---- the code ----------------------------------------------------------------------------------------------------
def test_k_means_finds_separate_clusters() -> None:
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    rows = centres.repeat(30, 1) + 0.1 * torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
    found = min(
        (k_means(rows, 3, torch.Generator().manual_seed(seed)) for seed in range(8)),
        key=lambda means: float(torch.cdist(rows, means).min(1).values.sum()),
    )
    assert torch.cdist(centres, found).min(1).values.max() < 0.2


def test_entries_are_running_means_of_their_latents() -> None:
    book = RunningCodebook(QuantizerConfig(groups=1, entries=2, dim=1), torch.device("cpu"))
    book.quantizer.codebook.data.copy_(torch.tensor([[[-1.0], [1.0]]]))
    book.counts, book.sums = torch.full((1, 2), 4.0), torch.tensor([[[-4.0], [4.0]]])
    config = LandmarkTrainConfig(batch=2, code_memory=0.5, steps=10, free_steps=1)
    latents = torch.tensor([[[-3.0], [2.0]], [[2.0], [2.0]]])
    book.follow(latents, 9, config, torch.Generator())
    assert book.counts[0].tolist() == [0.5 * 4 + 0.5 * 2 * 1, 0.5 * 4 + 0.5 * 2 * 3]
    assert book.quantizer.codebook.detach()[0, :, 0].tolist() == pytest.approx([(-2 - 3) / 3, (2 + 6) / 5])


def test_a_rare_entry_restarts_until_the_last_steps() -> None:
    config = LandmarkTrainConfig(batch=2, code_memory=0.5, steps=100, free_steps=20)

    def entry(step: int) -> float:
        book = RunningCodebook(QuantizerConfig(groups=1, entries=2, dim=1), torch.device("cpu"))
        book.quantizer.codebook.data.copy_(torch.tensor([[[0.0], [90.0]]]))
        book.counts, book.sums = torch.tensor([[4.0, 1e-3]]), torch.tensor([[[0.0], [0.09]]])
        book.follow(torch.full((2, 3, 1), 7.0), step, config, torch.Generator().manual_seed(0))
        return float(book.quantizer.codebook.detach()[0, 1, 0])

    assert entry(40) == pytest.approx(7.0)
    assert entry(41) == entry(80) == pytest.approx(90.0)


def test_the_loss_of_positions_and_its_rate() -> None:
    points, targets = torch.zeros(1, 2, 2), torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    assert float(point_distance(points, targets, torch.tensor([[1.0, 3.0]]))) == pytest.approx((5 + 3) / 4, rel=1e-4)
    config = LandmarkTrainConfig(free_steps=10, steps=30, warmup=2)
    rates = [rate_factor(step, config) for step in range(30)]
    assert rates[0] == pytest.approx(0.5, abs=0.01)
    assert rates[10] == pytest.approx(0.5, abs=0.01)  # the second stage warms up again
    assert rates[9] < 0.05 < rates[5] < rates[2]
    assert rates[29] < 0.02


def test_the_translation_is_fitted() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(300, 3, generator=generator)
    wanted = torch.stack([given[:, 0], given[:, 1] * given[:, 2]], 1)
    config = LandmarkTrainConfig(translation_steps=400)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2))
    assert fit(net, given[:250], wanted[:250], given[250:], wanted[250:], config) < 0.2


def test_the_linear_map_between_codes_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(40, 3, generator=generator)
    given[:, 2] = 0.5  # an unused channel
    wanted = given[:, :2] @ torch.tensor([[2.0, 0.0, 1.0], [0.0, -1.0, 1.0]]) + torch.tensor([0.0, 3.0, 0.0])
    weight, bias, left = linear_map(given, wanted)
    torch.testing.assert_close(given @ weight.mT + bias, wanted)
    assert left < 1e-10
    noise = torch.randn(40, 3, generator=generator)
    assert linear_map(given[:, :1], noise)[2] == pytest.approx(1, abs=0.2)


# ---- reading -----------------------------------------------------------------------------------------------------
def test_frames_without_a_face_get_the_nearest_one() -> None:
    points = np.full((5, 2, 2), np.nan, np.float32)
    points[1], points[4] = 1.0, 4.0
    assert filled(points)[:, 0, 0].tolist() == [1, 1, 1, 4, 4]
    with pytest.raises(NoFaceError, match="none of 3 frames"):
        filled(np.full((3, 2, 2), np.nan))


def test_landmarks_are_relative_to_the_frame_and_read_once() -> None:
    extractor = BlockLandmarks()
    calls: list[int] = []
    reader = LandmarkReader(SimpleNamespace(extract=lambda clips: calls.append(1) or extractor.extract(clips)))
    clip = BlockClips().clips([1])[0]
    found = reader.read(clip)
    np.testing.assert_allclose(found[0].mean(0), [4 / 16 - 1, 12 / 16 - 1], atol=1e-6)
    assert np.array_equal(reader.read(clip.copy()), found)
    assert len(calls) == 1


def test_another_landmark_network_is_refused(block_landmarks: None) -> None:
    assert landmark_reader("toy").read(BlockClips().clips([0])[0]).shape == (8, KNOWN, 2)
    with pytest.raises(UsageError, match="trained with the landmark network other, not toy"):
        landmark_reader("other")


def test_a_missing_extractor_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from bcd_bench.plugin.registry import Registry

    monkeypatch.setattr(reading, "load_registry", lambda: Registry.from_modules([]))
    landmark_reader.cache_clear()
    with pytest.raises(UsageError, match="no plugin provides the extractor") as error:
        landmark_reader("x")
    assert "bcd-bench-faces" in str(error.value.hint)


# ---- the model ---------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_the_transformer_gets_translated_motion() -> None:
    base = canonical_model()
    description = Description(
        model=base.config, extensions=Extensions([*base.extensions, settings()]), active_patches=base.active_patches
    )
    model = description.build().eval()
    assert isinstance(model, ExtendedBCD)
    assert model.landmarks is not None
    model.load_state_dict({k: v for k, v in base.state_dict().items() if not k.startswith("quantizer.")}, strict=False)
    model.landmarks.spread.fill_(2.0)
    values = base.values(torch.from_numpy(BlockClips().clips([0, 1])))
    content = base.encode_content(values)
    motion = torch.randn(2, 8, 6)
    translated = model.landmarks.translation(motion / 2)
    patches, sigma = torch.randn(2, *base.noise_shape(8)), torch.ones(2)
    expected = base.denoise(patches, sigma, content, translated)
    torch.testing.assert_close(model.denoise(patches, sigma, content, motion), expected)
    with pytest.raises(ValueError, match="from landmarks"):
        model.latents_of_motion(values)
