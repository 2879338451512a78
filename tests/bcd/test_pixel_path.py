"""The pixel path: what is carried from where, how it is fused, and its losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import savgol_filter

from bcd_bench_bcd.extensions.field_smoothing import FieldSmoothing, smoothed
from bcd_bench_bcd.extensions.fusion_damping import FusionDamping
from bcd_bench_bcd.extensions.motion_smoothing import MotionSmoothing, smoothed_over_time
from bcd_bench_bcd.extensions.pixel_path import GRID, Carried, Fusion, PixelNetwork, PixelPath, grid_positions, look_up
from bcd_bench_bcd.extensions.steady_sources import SteadySources, averaged_over_time
from bcd_bench_bcd.pixels.config import PixelTrainConfig
from bcd_bench_bcd.pixels.critic import Critic
from bcd_bench_bcd.pixels.loss import (
    Targets,
    local_contrast,
    part_map,
    pixel_loss,
    point_error,
    psnr,
    structural_dissimilarity,
)
from bcd_bench_bcd.pixels.presets import resolve_preset
from bcd_bench_bcd.pixels.start import with_mirror_image


def network(sources: int = 2, gap: int = 3) -> PixelNetwork:
    torch.manual_seed(0)
    return PixelNetwork(PixelPath(sources=sources, gap=gap), latent=8, motion=6, content=4, patches=5).eval()


def pictures(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ---- what is carried ---------------------------------------------------------------------------------------------
def test_a_look_up_at_the_pixel_centres_returns_the_picture() -> None:
    picture = torch.rand(2, 3, 6, 10)
    where = grid_positions(6, 10)[None].expand(2, -1, -1, -1)
    torch.testing.assert_close(look_up(picture, where), picture, atol=1e-5, rtol=0)
    moved = where + torch.tensor([2 * 2 / 10, -1 * 2 / 6]).view(1, 2, 1, 1)
    row, column = np.meshgrid(np.arange(6), np.arange(10), indexing="ij")
    wanted = picture[:, :, np.clip(row - 1, 0, 5), np.clip(column + 2, 0, 9)]
    torch.testing.assert_close(look_up(picture, moved), wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_displacements_are_the_driving_field_and_then_the_field_of_the_content_frame() -> None:
    net = network(sources=1)
    for flow, shift in ((net.driving_flow, (0.25, 0.0)), (net.content_flow, (0.125, -0.5))):
        flow.layers[-1].bias.copy_(torch.tensor(shift).repeat_interleave(32 * 32))
    geometry = net.geometry(torch.zeros(5, 4), torch.zeros(3, 8), torch.zeros(2, 6))
    sources, displacements = geometry.sources, geometry.displacements
    assert geometry.occupied is None
    assert sources.shape == (2, 2)
    assert torch.equal(sources[:, 0], sources[:, 1])  # the same frame once more, as it is
    assert displacements.shape == (2, 2, 2, GRID, GRID)
    assert not displacements[:, 1].any()
    torch.testing.assert_close(displacements[0, 0, :, 20, 30], torch.tensor([0.375, -0.5]))


@torch.no_grad()
def test_content_frames_are_those_that_move_least_and_lie_apart() -> None:
    net = network(sources=2, gap=3)
    net.content_flow.layers[-1].bias.fill_(0.0)

    def fields(amounts: list[float]) -> torch.Tensor:
        return torch.tensor(amounts).view(-1, 1, 1, 1).expand(-1, 2, 32, 32)

    still = torch.zeros(1, 2, 32, 32)
    assert net._select(still, fields([0.3, 0.1, 0.2, 0.25, 0.4, 0.22])).tolist() == [[1, 5]]
    assert net._select(still, fields([0.3, 0.1])).tolist() == [[1, 1]]  # none is far enough
    assert net._select(still, fields([0.3])).tolist() == [[0, 0]]  # a photo
    assert net._select(-fields([0.3, 0.1]), fields([0.3, 0.5, 0.5, 0.5, 0.1])).tolist() == [[0, 4], [4, 0]]


@torch.no_grad()
def test_at_the_start_the_first_carried_picture_is_shown_at_the_size_of_the_content() -> None:
    net = network()
    own = pictures(2, 32)
    displacements = torch.zeros(2, 3, 2, GRID, GRID)
    for size in (32, 64):
        content = pictures(4, size, seed=size)
        sources = torch.tensor([[1, 3, 1], [2, 0, 2]])
        fused = net.fuse([content], [sources], displacements, torch.zeros(2, 6), own)
        share = torch.tensor([2.0, 0.0, -1.0, -1.0]).softmax(0)
        wanted = (share[0] + share[2]) * content[sources[:, 0]] + share[1] * content[sources[:, 1]]
        drawn = torch.nn.functional.interpolate(own, (size, size), mode="bilinear") if size > 32 else own
        torch.testing.assert_close(fused.picture, wanted + share[3] * drawn, atol=1e-5, rtol=0)
        torch.testing.assert_close(fused.drawn, own)
        torch.testing.assert_close(fused.weights.sum(1), torch.ones(2, 32, 32))


@torch.no_grad()
def test_numbers_beyond_the_content_frames_are_their_mirror_images() -> None:
    net, content, own = network(), pictures(4), pictures(1, seed=1)
    displacements = torch.randn(1, 3, 2, GRID, GRID, generator=torch.Generator().manual_seed(4)) * 0.1
    for sources in ([[6, 1, 6]], [[2, 5, 2]]):
        index = torch.tensor(sources)
        fused = net.fuse([content], [index], displacements, torch.zeros(1, 6), own).picture
        both = torch.cat([content, content.flip(-1)])
        torch.testing.assert_close(net.fuse([both], [index], displacements, torch.zeros(1, 6), own).picture, fused)


@torch.no_grad()
def test_a_network_is_widened_for_mirror_images_without_changing_the_rest() -> None:
    old, new = Fusion(6, 3), Fusion(6, 4)
    for parameter in old.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    new.load_state_dict(with_mirror_image(old))
    generator = torch.Generator().manual_seed(0)
    carried = torch.randn(2, 4, 3, 32, 32, generator=generator)
    displacements = torch.randn(2, 4, 2, GRID, GRID, generator=generator)
    own, motion = torch.randn(2, 3, 32, 32, generator=generator), torch.randn(2, 6, generator=generator)
    rest = [0, 1, 3]  # number 2 is the mirror image
    fields, logits, features = old(carried[:, rest], displacements[:, rest], own, motion)
    wide_fields, wide_logits, wide_features = new(carried, displacements, own, motion)
    torch.testing.assert_close(wide_features, features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wide_fields[:, rest], fields, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(wide_logits[:, [*rest, 4]], logits, atol=1e-5, rtol=1e-5)
    assert not wide_fields[:, 2].any()
    assert (wide_logits[:, 2] == -2).all()


@torch.no_grad()
def test_damping_scales_the_corrections_of_the_fields_and_lowers_the_weight_of_the_drawn_picture() -> None:
    net = network()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    content, own, sources = pictures(4, 64, seed=1), pictures(2, seed=3), torch.tensor([[0, 3, 0], [2, 1, 2]])
    displacements = torch.randn(2, 3, 2, GRID, GRID, generator=torch.Generator().manual_seed(4)) * 0.1
    motion = torch.randn(2, 6, generator=torch.Generator().manual_seed(5))

    def fused(damping: FusionDamping | None) -> Carried:
        net.damping = damping
        return net.fuse([content], [sources], displacements, motion, own)

    plain, same = fused(None), fused(FusionDamping(corrections=1, drawn=0))
    torch.testing.assert_close(same.picture, plain.picture)
    corrections = plain.displacements - displacements
    assert corrections.abs().max() > 1e-3
    half, none = (fused(FusionDamping(corrections=share, drawn=0)) for share in (0.5, 0))
    torch.testing.assert_close(half.displacements, displacements + corrections / 2)
    torch.testing.assert_close(half.weights, plain.weights)
    assert torch.equal(none.displacements, displacements)
    first = look_up(
        torch.nn.functional.interpolate(content[sources[:, 0]], (32, 32), mode="area"),
        grid_positions(32, 32) + torch.nn.functional.interpolate(displacements[:, 0], (32, 32), mode="area"),
    )
    torch.testing.assert_close(none.first, first)
    lower = fused(FusionDamping(corrections=1, drawn=-3)).weights
    odds = plain.weights[:, -1] / plain.weights[:, 0]
    torch.testing.assert_close(lower[:, -1] / lower[:, 0], odds * np.exp(-3))
    torch.testing.assert_close(lower[:, 1] / lower[:, 0], plain.weights[:, 1] / plain.weights[:, 0])


def test_fields_are_averaged_over_windows_and_repeat_their_border() -> None:
    fields = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5) ** 2
    means = smoothed(fields, 3)
    torch.testing.assert_close(means[1, 2, 1, 2], fields[1, 2, 0:3, 1:4].mean())
    corner = fields[0, 1, :2, :2]
    torch.testing.assert_close(
        means[0, 1, 0, 0], (4 * corner[0, 0] + 2 * (corner[0, 1] + corner[1, 0]) + corner[1, 1]) / 9
    )
    assert torch.equal(smoothed(fields, 1), fields)
    with pytest.raises(ValueError, match="window must be odd"):
        FieldSmoothing(window=4)


@torch.no_grad()
def test_clips_are_fused_independently_of_the_others() -> None:
    net = network()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    content, own = [pictures(4, seed=1), pictures(6, seed=2)], pictures(3, seed=3)
    sources = [torch.tensor([[0, 3, 0]]), torch.tensor([[5, 1, 5], [2, 2, 2]])]
    displacements = torch.randn(3, 3, 2, GRID, GRID, generator=torch.Generator().manual_seed(4)) * 0.1
    motion = torch.randn(3, 6, generator=torch.Generator().manual_seed(5))
    together = net.fuse(content, sources, displacements, motion, own).picture
    alone = net.fuse(content[1:], sources[1:], displacements[1:], motion[1:], own[1:]).picture
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[:1], net.fuse(content[:1], sources[:1], displacements[:1], motion[:1] + 1,
                                                     own[:1]).picture)  # fmt: skip


# ---- over time ---------------------------------------------------------------------------------------------------
def test_smoothing_over_time_keeps_parabolas_and_averages_the_rest() -> None:
    steps = torch.arange(12.0)
    parabolas = torch.stack([torch.ones(12), 3 * steps - 5, 0.5 * steps**2 - 4 * steps], 1)
    torch.testing.assert_close(smoothed_over_time(parabolas, 7), parabolas, atol=1e-4, rtol=1e-5)
    noise = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    for count, window in ((12, 7), (12, 5), (9, 9), (8, 7), (6, 5)):
        wanted = savgol_filter(noise[:count].double().numpy(), window, 2, axis=0, mode="interp")
        torch.testing.assert_close(smoothed_over_time(noise[:count], window).double(), torch.from_numpy(wanted))


def test_short_clips_get_a_smaller_window_or_stay_as_they_are() -> None:
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(smoothed_over_time(noise, 7), smoothed_over_time(noise, 5))
    assert not torch.allclose(smoothed_over_time(noise[:5], 7), noise[:5])
    for count in (1, 2, 3, 4):
        assert torch.equal(smoothed_over_time(noise[:count], 7), noise[:count])
    for wrong, reason in ((6, "window must be odd"), (3, "greater than or equal to 5")):
        with pytest.raises(ValueError, match=reason):
            MotionSmoothing(window=wrong)


def test_moves_are_averaged_over_time_and_repeat_their_ends() -> None:
    moves = torch.arange(15.0).view(5, 3) ** 2
    means = averaged_over_time(moves, 3)
    torch.testing.assert_close(means[2], moves[1:4].mean(0))
    torch.testing.assert_close(means[0], (2 * moves[0] + moves[1]) / 3)
    torch.testing.assert_close(averaged_over_time(moves[:2], 9)[0], (5 * moves[0] + 4 * moves[1]) / 9)
    assert torch.equal(averaged_over_time(moves, 1), moves)
    with pytest.raises(ValueError, match="window must be odd"):
        SteadySources(window=4)


# ---- losses ------------------------------------------------------------------------------------------------------
def test_structural_dissimilarity_is_that_of_its_definition() -> None:
    a, b = pictures(1, 16, seed=1), pictures(1, 16, seed=2)
    assert float(structural_dissimilarity(a, a).abs().max()) < 1e-5
    window_a, window_b = a[0, 0, 3:10, 5:12].double().numpy(), b[0, 0, 3:10, 5:12].double().numpy()
    c1, c2 = 0.02**2, 0.06**2
    covariance = ((window_a - window_a.mean()) * (window_b - window_b.mean())).mean()
    similarity = (2 * window_a.mean() * window_b.mean() + c1) * (2 * covariance + c2)
    similarity /= (window_a.mean() ** 2 + window_b.mean() ** 2 + c1) * (window_a.var() + window_b.var() + c2)
    assert float(structural_dissimilarity(a, b)[0, 0, 3, 5]) == pytest.approx((1 - similarity) / 2, abs=1e-4)


def test_local_contrast_is_the_standard_deviation_of_windows() -> None:
    picture = pictures(1, 16)
    window = picture[0, 1, 4:11, 2:9].double().numpy()
    assert local_contrast(picture).shape == (1, 3, 10, 10)
    assert float(local_contrast(picture)[0, 1, 4, 2]) == pytest.approx(window.std(), abs=1e-4)


def test_points_are_where_the_fields_lead() -> None:
    here = torch.tensor([[[0.0, 0.0], [0.5, -0.5], [float("nan"), 0.0]]])
    there = here + torch.tensor([0.3, 0.4])
    targets = Targets(torch.zeros(1, 3, 8, 8), here, there[:, None])
    still = torch.zeros(1, 1, 2, GRID, GRID)
    right = torch.tensor([0.3, 0.4]).view(1, 1, 2, 1, 1).expand(1, 1, 2, GRID, GRID)
    weights = torch.tensor([1.0, 3.0, 5.0])
    assert float(point_error(still, targets, weights)) == pytest.approx(0.5, abs=1e-4)
    assert float(point_error(right, targets, weights)) == pytest.approx(0.0, abs=2e-3)
    targets.source_points[0, 0, 1] = here[0, 1]  # only the point of weight 1 is wrong by 0.5
    assert float(point_error(still, targets, weights)) == pytest.approx(0.125, abs=2e-3)


def test_parts_are_weighted_around_their_points() -> None:
    axis = grid_positions(64, 64)[0, 0]
    points = torch.tensor([[[float(axis[40]), float(axis[10])], [0.0, 0.0], [float("nan"), 0.5]]])
    parts = part_map(points, torch.tensor([1.0, 0.0, 1.0]))
    assert float(parts[0, 10, 40]) == pytest.approx(1 / 3)
    assert np.unravel_index(int(parts[0].argmax()), (64, 64)) == (10, 40)
    assert float(parts[0, 32, 32]) < 1e-6


@torch.no_grad()
def test_every_term_enters_the_loss_with_its_weight() -> None:
    net = network()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    displacements = torch.randn(2, 3, 2, GRID, GRID, generator=torch.Generator().manual_seed(4)) * 0.1
    fused = net.fuse(
        [pictures(4)], [torch.tensor([[0, 3, 0], [1, 2, 1]])], displacements, torch.zeros(2, 6), pictures(2)
    )
    points = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(6)) - 0.5
    targets = Targets(pictures(2, seed=8), points, points[:, None].expand(-1, 3, -1, -1) + 0.1)
    off = {f"train.{name}": 0 for name in ("structure", "contrast", "carried", "drawn", "points", "smoothness")}

    def loss(**changes: Any) -> float:
        return float(
            pixel_loss(fused, targets, torch.ones(5), resolve_preset("heads-pixels", {**off, **changes}).train)[0]
        )

    terms = pixel_loss(fused, targets, torch.ones(5), resolve_preset("heads-pixels").train)[1]
    assert loss() == pytest.approx(float(terms["pixels"]), rel=1e-5)
    for name in ("structure", "contrast", "carried", "drawn", "points", "smoothness"):
        assert loss(**{f"train.{name}": 2}) == pytest.approx(float(terms["pixels"] + 2 * terms[name]), rel=1e-5), name
        assert float(terms[name]) > 1e-3
    unweighted = (fused.picture - targets.frames).abs().mean()
    assert loss(**{"train.part_weight": 0}) == pytest.approx(float(unweighted), rel=1e-5)


def test_the_critic_tells_pictures_from_targets_and_says_how() -> None:
    torch.manual_seed(0)
    critic = Critic(PixelTrainConfig(critic_lr=2e-3), torch.device("cpu"))
    target = pictures(4)
    blurred = torch.nn.functional.avg_pool2d(target, 5, 1, 2)
    same = critic.terms(target, target)
    assert float(same["features"]) == 0
    assert float(same["adversarial"]) == pytest.approx(-float(critic.network(target)[0].mean()), abs=1e-3)
    losses = [float(critic.learn(blurred, target)) for _ in range(60)]
    assert losses[0] == pytest.approx(2, abs=0.3)
    assert losses[-1] < 1
    assert float(critic.terms(blurred, target)["adversarial"]) > float(critic.terms(target, target)["adversarial"])
    assert float(critic.terms(blurred, target)["features"]) > 0.01
    picture = blurred.clone().requires_grad_()
    sum(critic.terms(picture, target).values(), torch.zeros(())).backward()
    assert picture.grad is not None
    assert picture.grad.abs().max() > 0
    assert all(parameter.grad is None or not parameter.requires_grad for parameter in critic.network.parameters())


def test_psnr() -> None:
    assert float(psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2))) == pytest.approx(20.0)
