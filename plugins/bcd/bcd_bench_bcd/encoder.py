"""The disentangling encoder: [c, m] = T5([q; Proj(z_1) .. Proj(z_T)]) (Sec. 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Stack

from bcd_bench_bcd.canvas import CanvasWriter
from bcd_bench_bcd.configs import CanvasConfig, EncoderConfig
from bcd_bench_bcd.stem import ConvStem, PatchReader

__all__ = ["DisentangleEncoder"]


class DisentangleEncoder(nn.Module):
    """Turns a clip into clip-wise content and frame-wise motion features.

    Each frame enters as one token, a linear map of all its values; K learned content queries stand before them. A T5
    encoder (relative positions, so any number of frames) lets them exchange what they know; its outputs at the query
    positions are the content c, those at the frame positions the continuous motion m.

    With the stem "conv" (ours) a frame's token comes from a convolutional network, and the queries look at its grid of
    features, before they enter T5 and after; where there is one query a place, it starts from that place's mean.
    """

    def __init__(
        self, config: EncoderConfig, channels: int, frame_size: tuple[int, int], canvas: CanvasConfig | None = None
    ) -> None:
        super().__init__()
        self.stem: ConvStem | None = None
        if config.stem == "conv":
            self.stem = ConvStem(channels, frame_size, config.width, config.stem_blocks, config.stem_shrink)
            self.readers = nn.ModuleList(PatchReader(config.width, config.heads) for _ in range(2))
        else:
            self.project = nn.Linear(channels * frame_size[0] * frame_size[1], config.width)
        self.canvas = None if canvas is None else CanvasWriter(canvas, channels, config.stem_shrink, config.width)
        self.queries = nn.Parameter(torch.randn(config.content_tokens, config.width) * 0.5)
        self.t5 = T5Stack(
            T5Config(
                vocab_size=1,
                d_model=config.width,
                d_ff=config.feed_forward,
                d_kv=config.width // config.heads,
                num_layers=config.layers,
                num_heads=config.heads,
                dropout_rate=0.0,
                use_cache=False,
                eos_token_id=None,
            )
        )
        del self.t5.embed_tokens  # tokens come in as embeddings; an unused parameter would stall data-parallel training

    def forward(self, frames: Tensor, *, canvas: bool = True) -> tuple[Tensor, Tensor]:
        """`frames` [B, T, C, H, W] (about unit scale) -> content [B, K, width], motion [B, T, width].

        Where there is a canvas, its channels follow those of content, unless it is not wanted.
        """
        if self.stem is None:
            features, tokens = None, self.project(frames.flatten(2))
        else:
            features, tokens = self.stem(frames)
        queries = self.queries.to(tokens.dtype).expand(len(tokens), -1, -1)
        if features is not None:
            if queries.shape[1] == features.shape[2]:  # a query a place: it starts from what stands there on average
                queries = queries + features.mean(1)
            queries = self.readers[0](queries, features)
        hidden = self.t5(inputs_embeds=torch.cat([queries, tokens], 1)).last_hidden_state
        content, motion = hidden.split([queries.shape[1], tokens.shape[1]], 1)
        if features is not None:
            content = self.readers[1](content, features)
        if self.canvas is not None and canvas:
            content = torch.cat([content, self.canvas(frames, features, motion).to(content.dtype)], -1)
        return content, motion
