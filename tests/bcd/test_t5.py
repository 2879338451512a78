"""The encoder of T5 against transformers' implementation, an independent one."""

from __future__ import annotations

import pytest
import torch
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Stack

from bcd_bench_bcd.paper.t5 import T5Encoder, relative_bucket

LAYERS, WIDTH, HEADS, FEED_FORWARD = 3, 48, 6, 96


@pytest.fixture(scope="module")
def reference() -> T5Stack:
    torch.manual_seed(0)
    stack = T5Stack(
        T5Config(
            vocab_size=1,
            d_model=WIDTH,
            d_ff=FEED_FORWARD,
            d_kv=WIDTH // HEADS,
            num_layers=LAYERS,
            num_heads=HEADS,
            dropout_rate=0.0,
            use_cache=False,
            eos_token_id=None,
        )
    )
    del stack.embed_tokens
    for value in stack.parameters():  # also those that start as ones
        value.data += 0.1 * torch.randn_like(value)
    return stack.eval()


@pytest.mark.parametrize("length", [1, 5, 40, 300])
def test_outputs_and_gradients_are_those_of_transformers(reference: T5Stack, length: int) -> None:
    encoder = T5Encoder(LAYERS, WIDTH, HEADS, FEED_FORWARD)
    encoder.load_state_dict(reference.state_dict())
    tokens = torch.randn(2, length, WIDTH, generator=torch.Generator().manual_seed(length))
    expected, out = reference(inputs_embeds=tokens).last_hidden_state, encoder(tokens)
    assert torch.allclose(out, expected, atol=1e-6)
    names = [name for name, _ in encoder.named_parameters()]
    theirs, ours = (
        torch.autograd.grad(result.square().sum(), [model.get_parameter(name) for name in names])
        for result, model in ((expected, reference), (out, encoder))
    )
    for their, our in zip(theirs, ours, strict=True):
        assert torch.allclose(our, their, rtol=1e-4, atol=1e-4 * float(their.abs().max()))


def test_initial_weights_have_the_spread_of_transformers() -> None:
    torch.manual_seed(1)
    wide = {"d_model": 128, "d_ff": 512, "d_kv": 32, "num_layers": 1, "num_heads": 4, "vocab_size": 1}
    theirs = T5Stack(T5Config(**wide, eos_token_id=None)).state_dict()
    ours = T5Encoder(1, 128, 4, 512).state_dict()
    assert {*ours, "embed_tokens.weight"} == set(theirs)
    for name, value in ours.items():
        few = value.numel() < 200  # the position biases
        assert float(value.std()) == pytest.approx(float(theirs[name].std()), rel=0.35 if few else 0.05), name
        assert abs(float(value.mean()) - float(theirs[name].mean())) < (0.03 if few else 0.01), name


def test_buckets_of_relative_positions() -> None:
    offsets = torch.tensor([0, 1, -1, 7, -7, 8, -8, 11, 12, 127, 128, 10_000, -10_000])
    assert relative_bucket(offsets).tolist() == [0, 17, 1, 23, 7, 24, 8, 24, 25, 31, 31, 31, 15]
