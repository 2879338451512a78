"""The autoregressive motion model: GPT-2 over the motion codes of a clip (Sec. 4.3, Appendix A.2).

The sequence is [content prompt; m-hat_1, ..., m-hat_T]. Inputs are the quantised motion vectors; the output at a frame
gives one distribution per codebook for the codes of the next frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bcd_bench_bcd.autoregressive.config import MotionConfig
from bcd_bench_bcd.autoregressive.incremental import IncrementalGPT2

__all__ = ["ALONE", "FIRST", "MIDDLE", "Continuation", "MotionGPT", "motion_loss"]

START = FIRST, MIDDLE, ALONE = 0, 1, 2
"""How a sequence starts: with the first frame of a clip, of which content and codes are known as a whole; in the middle
of a clip, as the window of a long clip does; or with a first frame that was encoded alone, as a prompt of one frame is.
The code of a first frame within a clip depends on the frames after it, so the motions that can follow one that was
encoded alone have another distribution."""


class MotionGPT(nn.Module):
    """GPT-2 with a linear map of the content as prefix and one head per codebook.

    `codebook` [N, J, D] is that of the BCD model: codes are embedded as the vectors they stand for.
    """

    codebook: Tensor

    def __init__(self, config: MotionConfig) -> None:
        from transformers import GPT2Config, GPT2Model

        super().__init__()
        self.config = config
        gpt, codes = config.gpt, config.codes
        self.prefix_length = codes.content_tokens if gpt.prefix == "tokens" else 1
        self.gpt2 = GPT2Model(
            GPT2Config(
                vocab_size=1,
                bos_token_id=0,
                eos_token_id=0,
                n_positions=self.prefix_length + gpt.frames,
                n_embd=gpt.width,
                n_layer=gpt.layers,
                n_head=gpt.heads,
                resid_pdrop=gpt.dropout,
                embd_pdrop=gpt.dropout,
                attn_pdrop=gpt.dropout,
            )
        )
        del self.gpt2.wte  # inputs are vectors, not tokens
        motion_width = codes.groups * codes.dim
        self.content_in = nn.Linear(codes.content_width, gpt.width)
        self.motion_in: nn.Module = (
            nn.Identity() if motion_width == gpt.width else nn.Linear(motion_width, gpt.width, bias=False)
        )
        self.start = nn.Parameter(torch.zeros(len(START), gpt.width))
        """Added to the prompt, by how the sequence starts: see `START` (ours)."""
        self.head = nn.Linear(gpt.width, codes.groups * codes.entries)
        self.register_buffer("codebook", torch.zeros(codes.groups, codes.entries, codes.dim))

    @property
    def frames(self) -> int:
        """The most frames of a sequence."""
        return self.config.gpt.frames

    def prompt(self, content: Tensor, start: Tensor | None = None) -> Tensor:
        """Content tokens [B, K, C_c], or already pooled ones [B, 1, C_c], -> the prefix [B, P, width].

        `start` (int64 [B]) holds `FIRST` (all sequences, if it is None), `MIDDLE` or `ALONE`.
        """
        if self.config.gpt.prefix == "pooled":
            content = content.mean(1, keepdim=True)
        if start is None:
            start = torch.full((len(content),), FIRST, device=content.device)
        return self.content_in(content.to(self.head.weight)) + self.start[start][:, None]

    def embed(self, codes: Tensor) -> Tensor:
        """Codes int [B, T, N] -> inputs [B, T, width]."""
        groups = torch.arange(codes.shape[-1], device=codes.device)
        return self.motion_in(self.codebook[groups, codes.long()].flatten(2))

    def forward(self, content: Tensor, codes: Tensor, start: Tensor | None = None) -> Tensor:
        """Logits [B, T, N, J] of every frame's codes, given the content [B, K, C_c] and all earlier frames.

        `codes` are int [B, T, N] with T of at most `frames`; `start` is as in `prompt`.
        """
        inputs = torch.cat([self.prompt(content, start), self.embed(codes[:, :-1])], 1)
        hidden = self.gpt2(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return self.logits(hidden[:, self.prefix_length - 1 :])

    def logits(self, hidden: Tensor) -> Tensor:
        """Outputs of GPT-2 [B, T, width] -> logits [B, T, N, J]."""
        codes = self.config.codes
        out: Tensor = self.head(hidden)
        return out.view(*hidden.shape[:2], codes.groups, codes.entries)

    @torch.no_grad()
    def code_bits(self, content: Tensor, codes: Tensor, *, alone: bool = False) -> Tensor:
        """Ideal code length of clips in bits per frame and group, float32 [B, T, N]: -log2 of the probability of each
        code given the content [B, K, C_c] and the earlier frames of `codes` int [B, T, N].

        `alone` says that content and first code come from the first frame alone. For more than `frames` frames the
        window slides as in `Continuation`.
        """
        parts = []
        for first, size, keep in windows(codes.shape[1], self.frames):
            window = codes[:, first : first + size].long()
            start = MIDDLE if first else ALONE if alone else FIRST
            logits = self(content, window, torch.full((len(codes),), start, device=codes.device))[:, keep:].float()
            nats = -logits.log_softmax(-1).gather(-1, window[:, keep:, :, None])[..., 0]
            parts.append(nats / math.log(2))
        return torch.cat(parts, 1)


def windows(frames: int, context: int) -> list[tuple[int, int, int]]:
    """How a clip of `frames` frames is covered by windows of at most `context` frames: (first frame, size, number of
    leading frames that only give context). When a window is full, its second half starts the next one."""
    covered = [(0, min(frames, context), 0)]
    kept = context // 2
    done = context
    while done < frames:
        size = min(context, frames - done + kept)
        covered.append((done - kept, size, kept))
        done += size - kept
    return covered


def motion_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean cross-entropy in nats over clips, frames and codebooks (A.2) of logits [B, T, N, J] and codes [B, T, N]."""
    return nn.functional.cross_entropy(logits.flatten(0, 2).float(), codes.long().flatten())


class Continuation:
    """Predicts the next frame of B clips, frame by frame, with a key-value cache.

    `logits` are those of the next frame; `append` adds its codes. When `frames` frames are in the window, its second
    half is kept and the cache is recomputed, so clips may have any length at a bounded cost per frame. With
    `cache=False` everything is recomputed for every frame (the reference).
    """

    def __init__(self, model: MotionGPT, content: Tensor, *, cache: bool = True, alone: bool = False) -> None:
        """`content` are the content tokens [B, K, C_c]; `model` is in eval mode. `alone` says that content and first
        code come from the first frame alone."""
        self.model, self.content = model, content
        self._window: list[Tensor] = []
        self._start = ALONE if alone else FIRST
        self._cache = IncrementalGPT2(model.gpt2, len(content)) if cache else None
        self._next: Tensor | None = None

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Logits [B, N, J] of the next frame."""
        if self._next is None:
            self._next = self._advance()
        return self._next

    def append(self, codes: Tensor) -> None:
        """Add the codes int [B, N] of the next frame."""
        self._window.append(codes)
        self._next = None
        if len(self._window) == self.model.frames:
            self._window = self._window[self.model.frames - self.model.frames // 2 :]
            self._start = MIDDLE
            if self._cache is not None:
                self._cache.clear()

    def _advance(self) -> Tensor:
        """Run GPT-2 over the elements that are not in the cache yet."""
        model, cached = self.model, 0 if self._cache is None else self._cache.length
        new = self._window[max(0, cached - model.prefix_length) :]
        parts = [model.embed(torch.stack(new, 1))] if new else []
        if not cached:
            start = torch.full((len(self.content),), self._start, device=self.content.device)
            parts.insert(0, model.prompt(self.content, start))
        inputs = torch.cat(parts, 1)
        if self._cache is None:
            hidden = model.gpt2(inputs_embeds=inputs, use_cache=False).last_hidden_state
        else:
            hidden = self._cache(inputs)
        return model.logits(hidden[:, -1:])[:, 0]
