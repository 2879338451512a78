"""C-DSVAE: the objective against hand formulas, the views it contrasts, the networks, the method."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bcd_bench.testing import practice_pairs
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench_baselines.cdsvae.augment import blur, colour_matrices, distort_content, shuffle_frames
from bcd_bench_baselines.cdsvae.method import CDSVAEMethod
from bcd_bench_baselines.cdsvae.model import CDSVAE, Gaussian, load_model, save_model, to_frames, to_unit
from bcd_bench_baselines.cdsvae.objective import dependence, info_nce, kl, log_density, training_loss
from bcd_bench_baselines.cdsvae.presets import PRESETS, ModelConfig, ObjectiveConfig, resolve_preset
from bcd_bench_baselines.cdsvae.specs import TRAINABLES

TINY = ModelConfig(channels=(8, 8, 16), frame_features=16, hidden=12, f_dim=6, z_dim=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> Gaussian:
    values = torch.randn(2, *shape, generator=generator(seed))
    return Gaussian(values[0], values[1])


@pytest.fixture(scope="module")
def tiny() -> CDSVAE:
    torch.manual_seed(0)
    return CDSVAE(TINY).eval().requires_grad_(False)


# ---- formulas --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_kl_is_that_of_torch_distributions(seed: int) -> None:
    q, p = gaussian(5, 7, seed=seed), gaussian(5, 7, seed=seed + 10)
    expected = kl_divergence(*(Normal(g.mean, (0.5 * g.log_variance).exp()) for g in (q, p)))
    torch.testing.assert_close(kl(q, p), expected)
    assert kl(q, q).abs().max() < 1e-6


def test_info_nce_is_the_explicit_loop() -> None:
    codes, views = torch.randn(2, 6, 5, generator=generator())
    loss = 0.0
    for first, second in ((codes, views), (views, codes)):
        for i in range(6):
            similarity = [float(torch.cosine_similarity(first[i], second[j], dim=0)) / 0.5 for j in range(6)]
            loss -= math.log(math.exp(similarity[i]) / sum(math.exp(s) for s in similarity)) / 12
    assert float(info_nce(codes, views, 0.5)) == pytest.approx(loss, rel=1e-5)


def test_info_nce_knows_equal_from_unrelated() -> None:
    codes = torch.eye(8)
    assert float(info_nce(codes, codes, 0.01)) < 1e-6
    assert float(info_nce(codes, torch.ones(8, 8), 0.5)) == pytest.approx(math.log(8), rel=1e-5)


def test_log_density_is_that_of_torch_distributions() -> None:
    values, q = torch.randn(3, 4, 5, generator=generator(1)), gaussian(3, 4, 5)
    found = log_density(values, q)
    for i in range(4):
        for j in range(4):
            expected = Normal(q.mean[:, j], (0.5 * q.log_variance[:, j]).exp()).log_prob(values[:, i]).sum(-1)
            torch.testing.assert_close(found[:, i, j], expected)


def test_dependence_is_the_explicit_minibatch_weighted_sum() -> None:
    count, length, total = 5, 3, 100
    q_f, q_z = gaussian(count, 2, seed=1), gaussian(count, length, 2, seed=2)
    f, z = torch.randn(count, 2, generator=generator(3)), torch.randn(count, length, 2, generator=generator(4))

    def density(value: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> float:
        return float(Normal(mean, (0.5 * log_variance).exp()).log_prob(value).sum().exp())

    terms = []
    for t in range(length):
        for i in range(count):
            of_f = [density(f[i], q_f.mean[j], q_f.log_variance[j]) for j in range(count)]
            of_z = [density(z[i, t], q_z.mean[j, t], q_z.log_variance[j, t]) for j in range(count)]
            weight = 1 / (count * total)
            joint = weight * sum(a * b for a, b in zip(of_f, of_z, strict=True))
            terms.append(math.log(joint / (weight * sum(of_f) * weight * sum(of_z))))
    assert float(dependence(f, q_f, z, q_z, total)) == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_dependence_is_larger_where_one_code_tells_the_other() -> None:
    count = 64
    sharp = torch.full((count, 2), -4.0)
    means = torch.randn(count, 2, generator=generator()) * 3
    others = means[torch.randperm(4, generator=generator(1)).repeat(count // 4)]  # of few kinds, unrelated to means
    q_f = Gaussian(means, sharp)
    told, untold = (Gaussian(m[:, None], sharp[:, None]) for m in (means, others))
    assert dependence(means, q_f, told.mean, told, 64) > dependence(means, q_f, untold.mean, untold, 64) + 2


def test_the_total_is_the_weighted_sum_of_the_terms(tiny: CDSVAE) -> None:
    clips = torch.rand(4, 5, 3, 64, 64, generator=generator())
    weights = ObjectiveConfig(kl_f=2, kl_z=3, contrast_f=5, contrast_z=7, dependence=11, decoded_frames=None)
    losses = training_loss(tiny, clips, weights, total=50, generator=generator(1))
    expected = (
        losses.reconstruction
        + 2 * losses.kl_f
        + 3 * losses.kl_z
        + 5 * losses.contrast_f
        + 7 * losses.contrast_z
        + 11 * losses.dependence
    )
    torch.testing.assert_close(losses.total, expected)
    features = tiny.features(clips)
    q_f, q_z = tiny.posterior_f(features), tiny.posterior_z(features)
    prior = Normal(torch.zeros(()), torch.ones(()))
    expected = kl_divergence(Normal(q_f.mean, (0.5 * q_f.log_variance).exp()), prior).sum(1).mean()
    torch.testing.assert_close(losses.kl_f, expected)
    noise = generator(1)
    torch.randn(q_f.mean.shape, generator=noise)
    z = q_z.sample(torch.randn(q_z.mean.shape, generator=noise))
    torch.testing.assert_close(losses.kl_z, kl(q_z, tiny.prior_z(z)).sum((1, 2)).mean())


def test_decoding_some_frames_estimates_the_error_of_all(tiny: CDSVAE) -> None:
    clips = torch.rand(3, 4, 3, 64, 64, generator=generator())
    with torch.no_grad():
        means = {
            frames: np.mean(
                [
                    float(
                        training_loss(
                            tiny, clips, ObjectiveConfig(decoded_frames=frames), total=50, generator=generator(seed)
                        ).reconstruction
                    )
                    for seed in range(12)
                ]
            )
            for frames in (1, 9)
        }
    assert means[1] == pytest.approx(means[9], rel=0.02)


# ---- views -----------------------------------------------------------------------------------------------------------
def test_shuffling_keeps_frames_and_changes_their_order() -> None:
    sequences = torch.arange(40.0).view(5, 8)[:, :, None].expand(5, 8, 2)
    shuffled = shuffle_frames(sequences, generator())
    assert torch.equal(shuffled.sort(1).values, sequences)
    assert not torch.equal(shuffled, sequences)
    assert len({tuple((row - row.min()).tolist()) for row in shuffled[..., 0]}) == 5


def test_shuffled_features_are_the_features_of_the_shuffled_clip(tiny: CDSVAE) -> None:
    clips = torch.rand(3, 6, 3, 64, 64, generator=generator())
    shuffled = tiny.features(shuffle_frames(clips, generator(5)))
    torch.testing.assert_close(shuffled, shuffle_frames(tiny.features(clips), generator(5)))


def test_distortion_changes_colours_alike_in_all_frames() -> None:
    frame = torch.rand(6, 1, 3, 64, 64, generator=generator())
    distorted = distort_content(frame.expand(-1, 4, -1, -1, -1), 1.0, generator(1))
    torch.testing.assert_close(distorted, distorted[:, :1].expand_as(distorted))
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    assert ((distorted[:, 0] - frame[:, 0]).abs().mean((1, 2, 3)) > 0.01).all()
    assert torch.equal(distort_content(frame, 0.0, generator(1)), frame.clamp(0, 1)) or torch.allclose(
        distort_content(frame, 0.0, generator(1)), frame, atol=1e-5
    )


def test_a_turn_of_hue_keeps_luma_and_some_clips_lose_their_colours() -> None:
    matrices = colour_matrices(400, 1.0, generator())
    luma = torch.tensor([0.299, 0.587, 0.114])
    brightness = (luma @ matrices) / luma
    torch.testing.assert_close(brightness, brightness[:, :1].expand(-1, 3), rtol=1e-3, atol=1e-3)
    assert 0.2 <= float(brightness.min()) < 0.4
    assert 1.6 < float(brightness.max()) <= 1.81
    colourless = (matrices.std(1).abs().max(1).values < 1e-3).float().mean()
    assert 0.12 < float(colourless) < 0.28


def test_blur_is_the_gaussian_of_each_clip() -> None:
    clips = torch.zeros(2, 1, 3, 16, 16)
    clips[:, :, :, 8, 8] = 1
    blurred = blur(clips, torch.tensor([0.5, 2.0]))
    for row, sigma in enumerate((0.5, 2.0)):
        taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma**2))
        kernel = np.outer(taps, taps) / taps.sum() ** 2
        np.testing.assert_allclose(blurred[row, 0, 1, 6:11, 6:11].numpy(), kernel, atol=1e-6)


# ---- networks --------------------------------------------------------------------------------------------------------
def test_shapes_and_ranges(tiny: CDSVAE) -> None:
    clips = torch.rand(2, 5, 3, 64, 64)
    features = tiny.features(clips)
    static, dynamic = tiny.posterior_f(features), tiny.posterior_z(features)
    assert features.shape == (2, 5, 16)
    assert static.mean.shape == static.log_variance.shape == (2, 6)
    assert dynamic.mean.shape == tiny.prior_z(dynamic.mean).mean.shape == (2, 5, 4)
    frames = tiny.decode(static.mean, dynamic.mean)
    assert frames.shape == clips.shape
    assert 0 <= float(frames.min()) <= float(frames.max()) <= 1


def test_dynamic_posterior_and_prior_look_back_only(tiny: CDSVAE) -> None:
    features = torch.randn(1, 6, 16, generator=generator())
    later = features.clone()
    later[:, 3:] += 1
    before, after = (tiny.posterior_z(x).mean for x in (features, later))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])
    codes = torch.randn(1, 6, 4, generator=generator())
    changed = codes.clone()
    changed[:, 2] += 1
    before, after = (tiny.prior_z(x).mean for x in (codes, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])  # p(z_3) has not seen z_3
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_drawing_from_the_prior_follows_it(tiny: CDSVAE) -> None:
    noise = torch.randn(3, 5, 4, generator=generator())
    drawn = tiny.sample_prior_z(noise)
    torch.testing.assert_close(drawn, tiny.prior_z(drawn).sample(noise))


def test_frames_survive_the_way_to_the_network_and_back() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    assert torch.equal(to_frames(to_unit(frames)), frames)


def test_weights_are_kept_and_others_refused(tiny: CDSVAE, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, tiny, {"suite": "somewhere"})
    loaded, card = load_model(path)
    assert card == {"suite": "somewhere"}
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, tiny.state_dict()[name].half().float()), name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="not a readable safetensors file"):
        load_model(path)
    torch.save(tiny.state_dict(), path)
    with pytest.raises(UsageError, match="not a readable safetensors file"):
        load_model(path)
    with pytest.raises(UsageError, match="is a folder"):
        load_model(tmp_path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path, {"format": "other"})
    with pytest.raises(UsageError, match="not C-DSVAE weights"):
        load_model(path)
    config = TINY.model_copy(update={"hidden": 13}).model_dump_json()
    save_file(tiny.state_dict(), path, {"format": "bcd-bench-cdsvae/1", "config": config})
    with pytest.raises(UsageError, match="do not match their configuration"):
        load_model(path)


# ---- the method ------------------------------------------------------------------------------------------------------
@pytest.fixture
def method(tiny: CDSVAE, tmp_path: Path) -> Any:
    save_model(tmp_path / "tiny.safetensors", tiny, {})

    def make(**config: str) -> CDSVAEMethod:
        made = CDSVAEMethod({"f": "posterior", "z": "posterior", **config})
        made.load(tmp_path / "tiny.safetensors", "cpu")
        return made

    return make


def test_a_swap_is_the_static_code_of_one_and_the_dynamic_codes_of_the_other(method: Any) -> None:
    rng = np.random.default_rng(0)
    content, motion = (rng.integers(0, 256, (n, 64, 64, 3), np.uint8) for n in (3, 7))
    model = method().model
    static, dynamic = (model.features(to_unit(torch.from_numpy(x)[None])) for x in (content, motion))
    expected = to_frames(model.decode(model.posterior_f(static).mean, model.posterior_z(dynamic).mean))[0]
    assert np.array_equal(method().swap(content, motion), expected.detach().numpy())


def test_a_prior_replaces_what_its_clip_shows(method: Any) -> None:
    rng = np.random.default_rng(0)
    one, two, other = (rng.integers(0, 256, (4, 64, 64, 3), np.uint8) for _ in range(3))
    drawn = method(f="prior")
    assert np.array_equal(drawn.swap(one, two, 5), drawn.swap(other, two, 5))
    assert not np.array_equal(drawn.swap(one, two, 5), drawn.swap(one, two, 6))
    assert not np.array_equal(drawn.swap(one, two, 5), drawn.swap(one, other, 5))
    drawn = method(z="prior")
    assert np.array_equal(drawn.swap(one, two, 5), drawn.swap(one, other, 5))
    assert drawn.swap(one, two[:2], 5).shape == (2, 64, 64, 3)


def test_other_sizes_fail_and_unknown_settings_are_refused(method: Any) -> None:
    from bcd_bench.testing import Cut  # noqa: F401 (practice pairs are cut from practice clips)

    class Small:
        def load(self) -> Clip:
            return Clip(np.zeros((2, 32, 32, 3), np.uint8), 8.0, "small")

    class Pair:
        id = "a"
        content = motion = Small()

    (result,) = method().transfer([Pair()], seed=0)
    assert isinstance(result, Failed)
    assert result.reason == "clip small has (32, 32) pixels, the weights require (64, 64)"
    results = list(method().transfer(practice_pairs(2), seed=0))
    assert all(isinstance(r, Clip) for r in results)
    with pytest.raises(UsageError, match="--set z"):
        CDSVAEMethod({"z": "mean"})
    with pytest.raises(UsageError, match="needs weights"):
        CDSVAEMethod({}).load(None, "cpu")


def test_presets_of_the_spec_are_those_there_are() -> None:
    assert {name: preset.summary for name, preset in PRESETS.items()} == TRAINABLES[0].presets
    assert resolve_preset("sprites", {"train.lr": 0.5}).train.lr == 0.5
    with pytest.raises(UsageError, match=r"did you mean train\.lr"):
        resolve_preset("sprites", {"train.lrr": 1})
    with pytest.raises(UsageError, match=r"--set train\.batch"):
        resolve_preset("sprites", {"train.batch": 1})
    with pytest.raises(UsageError, match="unknown preset"):
        resolve_preset("faces")
