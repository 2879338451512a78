"""Random numbers of training: from seeds alone, for a batch as a whole or for each clip."""

from __future__ import annotations

import pytest
import torch

from bcd_bench_bcd.paper.rng import Rng, as_rng
from bcd_bench_bcd.training.rng import ClipRng, clip_generators, step_generator


def test_a_steps_numbers_depend_on_seed_and_step_alone() -> None:
    first, again, other = (Rng(step_generator(0, step)).normal(4, 3) for step in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_clips_numbers_do_not_depend_on_its_batch_mates() -> None:
    alone = ClipRng(clip_generators(0, 3, [5])).normal(1, 4)
    together = ClipRng(clip_generators(0, 3, [2, 5])).normal(2, 4)
    assert torch.equal(together[1:], alone)


def test_for_the_batch_as_a_whole_any_number_can_be_drawn() -> None:
    one = step_generator(0, 3)
    assert torch.equal(Rng(one).shared.normal(3, 2), torch.randn(3, 2, generator=step_generator(0, 3)))
    assert ClipRng(clip_generators(0, 3, [2, 5])).shared.normal(3, 2).shape == (3, 2)


def test_frames_of_a_clip_keep_their_numbers_in_any_batch() -> None:
    alone = ClipRng(clip_generators(0, 3, [5])).uniform_by_frame((2, 4, 3), 1)
    together = ClipRng(clip_generators(0, 3, [2, 5])).uniform_by_frame((2, 8, 3), 2)
    assert torch.equal(together[:, 4:], alone)


def test_an_rng_is_taken_as_it_is_and_a_generator_is_wrapped() -> None:
    rng = ClipRng(clip_generators(0, 3, [5]))
    assert as_rng(rng) is rng
    assert torch.equal(as_rng(step_generator(0, 3)).uniform(4), torch.rand(4, generator=step_generator(0, 3)))


def test_copies_of_a_batch_have_numbers_of_their_own() -> None:
    twice = ClipRng(clip_generators(0, 3, [2, 5])).uniform(4, 3)
    assert torch.equal(twice[:2], ClipRng(clip_generators(0, 3, [2, 5])).uniform(2, 3))
    assert not torch.equal(twice[2:], twice[:2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_numbers_drawn_on_a_gpu_come_from_the_same_seeds() -> None:
    cuda = torch.device("cuda")
    first, again, other = (Rng(step_generator(0, step)).normal(4, 3, device=cuda) for step in (7, 7, 8))
    assert first.device.type == "cuda"
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
