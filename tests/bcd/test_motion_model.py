"""The autoregressive motion model: what a frame depends on, the cache, windows, code lengths, sampling, files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.autoregressive.config import CodeConfig, GPTConfig, MotionConfig
from bcd_bench_bcd.autoregressive.model import ALONE, FIRST, MIDDLE, Continuation, MotionGPT, motion_loss, windows
from bcd_bench_bcd.autoregressive.ngram import Markov, count_codes
from bcd_bench_bcd.autoregressive.presets import PRESETS, resolve_preset, settings_of
from bcd_bench_bcd.autoregressive.sampling import SamplingConfig, choose, generate_codes
from bcd_bench_bcd.autoregressive.weights import (
    LoadedMotionModel,
    MotionDescription,
    load_motion_model,
    save_motion_model,
)

GROUPS, ENTRIES, TOKENS, WIDTH = 3, 5, 2, 4


def tiny(frames: int = 6, prefix: str = "tokens", **codes: Any) -> MotionGPT:
    torch.manual_seed(0)
    gpt = GPTConfig(layers=2, width=16, heads=2, dropout=0.0, frames=frames, prefix=prefix)  # type: ignore[arg-type]
    shape = {"groups": GROUPS, "entries": ENTRIES, "dim": 2, "content_tokens": TOKENS, "content_width": WIDTH, **codes}
    model = MotionGPT(MotionConfig(codes=CodeConfig(**shape), gpt=gpt)).eval()
    torch.nn.init.normal_(model.codebook)
    torch.nn.init.normal_(model.start)
    return model


def inputs(frames: int, clips: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(ENTRIES, (clips, frames, GROUPS), generator=generator)
    return torch.randn(clips, TOKENS, WIDTH, generator=generator), codes


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["tokens", "pooled"])
def test_a_frame_depends_on_content_and_earlier_frames_only(prefix: str) -> None:
    model = tiny(prefix=prefix)
    content, codes = inputs(5)
    before = model(content, codes)
    assert before.shape == (2, 5, GROUPS, ENTRIES)
    for frame in range(5):
        changed = codes.clone()
        changed[:, frame] = (changed[:, frame] + 1) % ENTRIES
        differs = (model(content, changed) - before).abs().amax((0, 2, 3)) > 1e-6
        assert differs.tolist() == [other > frame for other in range(5)]
    assert (model(content + 1, codes) - before).abs().amax((0, 2, 3)).min() > 1e-4  # also the first frame
    for start in (MIDDLE, ALONE):
        marked = model(content, codes, torch.tensor([start, FIRST]))
        assert torch.equal(marked[1], before[1])
        assert not torch.allclose(marked[0], before[0])


@torch.no_grad()
def test_inputs_are_the_quantised_vectors() -> None:
    """Equal vectors of two codes cannot be told apart; no other property of a code enters."""
    model = tiny()
    model.codebook[:, 1] = model.codebook[:, 0]
    content, codes = inputs(4)
    swapped = torch.where(codes == 0, 1, torch.where(codes == 1, 0, codes))
    torch.testing.assert_close(model(content, codes), model(content, swapped))
    assert isinstance(tiny(groups=8, dim=2).motion_in, torch.nn.Identity)  # N * D is the width, as in Table A9


def test_loss_is_the_mean_cross_entropy_over_clips_frames_and_codebooks() -> None:
    torch.manual_seed(2)
    logits, codes = torch.randn(2, 3, GROUPS, ENTRIES), torch.randint(ENTRIES, (2, 3, GROUPS))
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(-1, keepdims=True)
    terms = [-math.log(p[b, t, n, codes[b, t, n]]) for b in range(2) for t in range(3) for n in range(GROUPS)]
    assert float(motion_loss(logits, codes)) == pytest.approx(float(np.mean(terms)), rel=1e-5)


def test_windows_cover_every_frame_once_with_half_a_window_of_context() -> None:
    assert windows(5, 6) == [(0, 5, 0)]
    assert windows(6, 6) == [(0, 6, 0)]
    assert windows(7, 6) == [(0, 6, 0), (3, 4, 3)]
    assert windows(13, 6) == [(0, 6, 0), (3, 6, 3), (6, 6, 3), (9, 4, 3)]
    for frames in range(1, 30):
        predicted = [first + i for first, size, keep in windows(frames, 6) for i in range(keep, size)]
        assert predicted == list(range(frames))


@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("frames", [4, 6, 17])
def test_cache_no_cache_and_whole_sequence_agree(frames: int, alone: bool) -> None:
    model = tiny().double()
    content, codes = inputs(frames)
    content = content.double()
    bits = {}
    for cache in (True, False):
        state, rows = Continuation(model, content, cache=cache, alone=alone), []
        for t in range(frames):
            nats = -state.logits().log_softmax(-1).gather(-1, codes[:, t, :, None])[..., 0]
            rows.append(nats / math.log(2))
            state.append(codes[:, t])
        bits[cache] = torch.stack(rows, 1)
    torch.testing.assert_close(bits[True], bits[False], rtol=1e-9, atol=1e-9)
    whole = {one: model.code_bits(content, codes, alone=one).double() for one in (False, True)}
    torch.testing.assert_close(whole[alone], bits[True], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(whole[True][:, 0], whole[False][:, 0])


@torch.no_grad()
def test_several_frames_may_be_appended_before_the_next_prediction() -> None:
    model = tiny()
    content, codes = inputs(5)
    one, other = Continuation(model, content), Continuation(model, content)
    for t in range(5):
        one.append(codes[:, t])
        other.logits()
        other.append(codes[:, t])
    torch.testing.assert_close(one.logits(), other.logits())


# ---- sampling ------------------------------------------------------------------------------------------------------
def test_greedy_takes_the_most_probable_code() -> None:
    logits = torch.tensor([[[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]]])
    assert choose(logits, SamplingConfig(), torch.tensor([[0.99, 0.99]])).tolist() == [[1, 0]]


def shares(sampling: SamplingConfig) -> list[float]:
    """How often each of four codes with probabilities 0.1, 0.4, 0.3, 0.2 is chosen, over a grid of numbers."""
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log().expand(1, 2000, 4)
    uniform = ((torch.arange(2000) + 0.5) / 2000)[None]
    return [round(x, 3) for x in (choose(logits, sampling, uniform)[0].bincount(minlength=4) / 2000).tolist()]


def test_temperature_top_k_and_top_p_follow_the_distribution() -> None:
    assert shares(SamplingConfig(temperature=1)) == pytest.approx([0.1, 0.4, 0.3, 0.2], abs=2e-3)
    squares = np.array([0.01, 0.16, 0.09, 0.04])
    assert shares(SamplingConfig(temperature=0.5)) == pytest.approx(list(squares / squares.sum()), abs=2e-3)
    assert shares(SamplingConfig(temperature=1, top_k=2)) == pytest.approx([0, 4 / 7, 3 / 7, 0], abs=2e-3)
    assert shares(SamplingConfig(temperature=1, top_p=0.6)) == pytest.approx([0, 4 / 7, 3 / 7, 0], abs=2e-3)
    assert shares(SamplingConfig(temperature=1, top_p=0.75)) == pytest.approx([0, 4 / 9, 3 / 9, 2 / 9], abs=2e-3)
    assert shares(SamplingConfig(temperature=1, top_p=0.01)) == [0, 1, 0, 0]


def test_a_clip_depends_neither_on_its_batch_nor_on_the_length_of_the_prompt() -> None:
    model = tiny()
    content, codes = inputs(2)
    sampling = SamplingConfig(temperature=1.0)
    both = generate_codes(model, content, codes, 15, sampling, [5, 6])
    alone = generate_codes(model, content[1:], codes[1:], 15, sampling, [6])
    assert torch.equal(both[1:], alone)
    assert torch.equal(both[:, :2], codes)
    resumed = generate_codes(model, content[1:], alone[:, :9], 15, sampling, [6])
    assert torch.equal(resumed, alone)
    other = generate_codes(model, content[1:], codes[1:], 15, sampling, [7])
    assert not torch.equal(other, alone)


def test_top_k_above_the_codebook_is_refused() -> None:
    content, codes = inputs(1)
    with pytest.raises(UsageError, match="top_k 6: a codebook has 5 entries"):
        generate_codes(tiny(), content, codes, 3, SamplingConfig(temperature=1, top_k=6), [0, 0])


# ---- n-gram models -------------------------------------------------------------------------------------------------
def test_markov_and_unigram_probabilities_are_smoothed_counts() -> None:
    codes = np.array([[[0], [1], [1]], [[0], [1], [0]]])
    counts, first, follow = count_codes(codes, 3)
    assert counts.tolist() == [[3, 3, 0]]
    assert first.tolist() == [[2, 0, 0]]
    assert follow.tolist() == [[[0, 2, 0], [1, 1, 0], [0, 0, 0]]]
    markov = Markov(counts, first, follow)
    unigram = np.array([3.5, 3.5, 0.5]) / 7.5
    assert markov.unigram[0] == pytest.approx(unigram)
    assert markov.transition[0, 0] == pytest.approx((np.array([0, 2, 0]) + unigram) / 3)
    assert markov.transition[0, 2] == pytest.approx(unigram)
    initial = (np.array([2, 0, 0]) + unigram) / 3
    expected = [-math.log2(initial[0]), -math.log2(markov.transition[0, 0, 1])]
    assert markov.bits(codes[:1, :2])[0] == pytest.approx(expected)
    assert markov.unigram_bits(codes[:1])[0].sum() == pytest.approx(-3 * math.log2(3.5 / 7.5))
    assert markov.next_probabilities(None)[0] == pytest.approx(initial)
    assert markov.next_probabilities(np.array([2]))[0] == pytest.approx(unigram)


# ---- files ---------------------------------------------------------------------------------------------------------
def loaded(model: MotionGPT) -> LoadedMotionModel:
    codes = inputs(6, clips=4)[1]
    counts, first, follow = (torch.from_numpy(table) for table in count_codes(codes.numpy(), ENTRIES))
    description = MotionDescription(motion=model.config, bcd_sha256="ab" * 32)
    return LoadedMotionModel(model, description, counts, first, follow, codes, {"suite": "blocks"})


def test_file_holds_network_statistics_and_sequences(tmp_path: Path) -> None:
    original = loaded(tiny())
    for compress in (False, True):
        save_motion_model(tmp_path / "m.safetensors", original, compress=compress)
        read = load_motion_model(tmp_path / "m.safetensors")
        content, codes = inputs(4)
        tolerance = 0.02 if compress else 0.0
        torch.testing.assert_close(
            read.model(content, codes), original.model(content, codes), rtol=tolerance, atol=tolerance
        )
        for name in ("counts", "first", "follow", "sequences"):
            assert torch.equal(getattr(read, name), getattr(original, name))
        assert read.bcd_sha256 == "ab" * 32
        assert read.card == {"suite": "blocks"}
        assert len(read.sha256) == 64


def test_damaged_and_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_motion_model(path, loaded(tiny()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"m\.safetensors: not a readable safetensors file"):
        load_motion_model(path)
    path.write_bytes(whole.replace(b'\\"entries\\":5', b'\\"entries\\":6'))
    with pytest.raises(UsageError, match="does not match its configuration"):
        load_motion_model(path)


def test_coder_predicts_in_float64_as_the_network_does() -> None:
    model = loaded(tiny())
    content, codes = inputs(9, clips=1)
    coder = model.coder(content[0])
    state = Continuation(model.model, content)
    for t in range(9):
        logits = coder.logits()
        assert logits.dtype == torch.float64
        torch.testing.assert_close(logits, state.logits()[0].double(), rtol=1e-4, atol=1e-4)
        coder.push(codes[0, t])
        state.append(codes[:, t])
    assert next(model.model.parameters()).dtype == torch.float32  # the coder has a copy of its own


# ---- presets -------------------------------------------------------------------------------------------------------
def test_table_a9_is_the_papers() -> None:
    preset = PRESETS["table-a9"]
    gpt, train = preset.gpt, preset.train
    assert (gpt.width, gpt.layers, gpt.heads) == (1024, 12, 8)
    assert (train.lr, train.batch, train.weight_decay, train.betas) == (1e-4, 256, 0.01, (0.9, 0.999))
    assert train.half_rate == 0.5
    assert SamplingConfig().temperature == 0
    codes = CodeConfig(groups=64, entries=32, dim=16, content_tokens=32, content_width=512)
    with torch.device("meta"):
        model = MotionGPT(MotionConfig(codes=codes, gpt=gpt))
    assert 150e6 < sum(p.numel() for p in model.gpt2.parameters()) < 152e6
    assert isinstance(model.motion_in, torch.nn.Identity)


def test_settings_are_listed_and_wrong_ones_refused() -> None:
    names = {name: meaning for name, _, meaning in settings_of("heads-small")}
    assert "down-sampling" in names["train.half_rate"]
    assert names["gpt.layers"]
    with pytest.raises(UsageError, match=r"did you mean train\.half_rate"):
        resolve_preset("heads-small", {"train.half_rat": 1})
    with pytest.raises(UsageError, match="width 100 is not a multiple of heads 8"):
        resolve_preset("table-a9", {"gpt.width": 100})
    with pytest.raises(UsageError, match="nearest: heads-small"):
        resolve_preset("head-small")
