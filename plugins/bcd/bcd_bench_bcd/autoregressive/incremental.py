"""GPT-2 with a key-value cache: the arithmetic of transformers' `GPT2Model` over its weights.

A forward pass of `GPT2Model` spends more time in Python than in products for models of our size and a single new
element, so generation would be hardly faster with its cache than without.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["IncrementalGPT2"]


class IncrementalGPT2:
    """The outputs for new elements of B sequences, given the keys and values of all earlier ones."""

    def __init__(self, gpt2: Any, batch: int) -> None:
        """`gpt2` is a `GPT2Model` in eval mode: dropout is not applied."""
        config = gpt2.config
        self._gpt2, self._heads = gpt2, config.n_head
        self._blocks = [_weights(block) for block in gpt2.h]
        shape = (len(self._blocks), 2, batch, config.n_head, config.n_positions, config.n_embd // config.n_head)
        self._cache = gpt2.wpe.weight.new_empty(shape)
        self.length = 0
        """Elements in the cache."""

    def clear(self) -> None:
        """Start new sequences."""
        self.length = 0

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs [B, T, width] of the inputs [B, T, width] that follow the cached elements; they are added."""
        gpt2, start, stop = self._gpt2, self.length, self.length + inputs.shape[1]
        batch, new, width = inputs.shape
        mask = None
        if new > 1:
            mask = torch.ones(new, stop, dtype=torch.bool, device=inputs.device).tril(start)
        hidden = (inputs + gpt2.wpe.weight[start:stop]).view(-1, width)
        for (norm_1, qkv, out, norm_2, up, down), cache in zip(self._blocks, self._cache, strict=True):
            normed = functional.layer_norm(hidden, (width,), *norm_1)
            parts = _affine(qkv, normed).view(batch, new, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            cache[:, :, :, start:stop] = parts[1:]
            keys, values = cache[:, :, :, :stop].unbind()
            mixed = functional.scaled_dot_product_attention(parts[0], keys, values, attn_mask=mask)
            hidden = hidden + _affine(out, mixed.transpose(1, 2).reshape(-1, width))
            normed = functional.layer_norm(hidden, (width,), *norm_2)
            inner = functional.gelu(_affine(up, normed), approximate="tanh")
            hidden = hidden + _affine(down, inner)
        self.length = stop
        norm = gpt2.ln_f
        return functional.layer_norm(hidden, (width,), norm.weight, norm.bias, norm.eps).view(batch, new, width)


def _weights(block: Any) -> tuple[Any, ...]:
    """Layer norms (weight, bias, eps) and affine maps (bias, weight [in, out]) of a block, in order of use."""
    norms = [(norm.weight, norm.bias, norm.eps) for norm in (block.ln_1, block.ln_2)]
    maps = [
        (layer.bias, layer.weight) for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    ]
    return norms[0], maps[0], maps[1], norms[1], maps[2], maps[3]


def _affine(layer: tuple[Tensor, Tensor], inputs: Tensor) -> Tensor:
    return torch.addmm(layer[0], inputs, layer[1])
