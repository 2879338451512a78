"""BCD as a bcd-bench method: content of one clip, motion codes of another, one sampled clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from bcd_bench.clips import Clip, Failed, Pair
from bcd_bench.devices import resolve_device
from bcd_bench.errors import UsageError
from bcd_bench.identity import pair_seed
from bcd_bench.video import resize_frame
from bcd_bench_bcd.bitrate import INFO_KEY
from bcd_bench_bcd.configs import ModelConfig, SamplerConfig
from bcd_bench_bcd.latents import FrameCodec
from bcd_bench_bcd.model import BCD, load_model

__all__ = ["BCDMethod", "MethodConfig"]

PAPER_SAMPLER, PAPER_LATENT_SAMPLER = SamplerConfig(steps=50), SamplerConfig(steps=128)
"""Table A8 for pixels and Table A7 for latents: 50 and 128 Heun steps with guidance 1.5."""


class MethodConfig(BaseModel):
    """What `run --config` may change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: Literal["default", "paper"] = "default"
    """"default" is what the weights were made with (few steps), "paper" the recipe of Table A8 (for latents A7)."""
    solver: Literal["heun", "euler", "dpmpp-2m"] | None = None
    steps: int | None = Field(None, ge=1)
    guidance: float | None = Field(None, ge=0)
    content_frames: int | None = Field(None, ge=1)
    """Content comes from so many first frames of its clip (Table A5); None: from all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which matrices are multiplied. Named, never guessed from the machine: it is part of a run's identity."""


def fits(frames: np.ndarray, config: ModelConfig) -> bool:
    """Whether a model can take a clip uint8 [T, H, W, 3]: of its size, or of its proportions if it resizes."""
    (height, width), (own_height, own_width) = frames.shape[1:3], config.frame_size
    return (height, width) == config.frame_size or (config.resize and height * own_width == width * own_height)


def resized(frames: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A clip uint8 [T, H, W, 3] in another size (height, width)."""
    height, width = size
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([resize_frame(frame, (height, width)) for frame in frames])


class BCDMethod:
    """Transfers motion by BCD (Sec. 3); one instance holds one set of weights."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        try:
            self.config = MethodConfig.model_validate(dict(config))
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"bcd: --config {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        self.model: BCD | None = None

    def load(self, weights: Path | None, device: str) -> None:
        """Load BCD weights (safetensors). Raises `UsageError` where there are none or they do not fit."""
        if weights is None:
            raise UsageError(
                "method bcd needs weights", hint="bcd-bench train bcd, then --weights train/…/model.safetensors"
            )
        self.device = resolve_device(device)
        self.model, self.card = load_model(weights, str(self.device))
        self.codec = FrameCodec(self.model)
        self.codec.open()
        base = (
            (PAPER_SAMPLER if self.model.config.latent is None else PAPER_LATENT_SAMPLER)
            if self.config.sampler == "paper"
            else SamplerConfig.model_validate(self.card.get("sampler", {}))
        )
        changes = {"name": self.config.solver, "steps": self.config.steps, "guidance": self.config.guidance}
        self.sampler = base.model_copy(update={key: value for key, value in changes.items() if value is not None})

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """One clip a pair, as long as its motion clip and of its size.

        Clips of other sizes than the model's are resized where the weights allow it, else `Failed`.
        """
        model = self._loaded()
        results: dict[str, Clip | Failed] = {}
        groups: dict[tuple[int, ...], list[tuple[Pair, Clip, Clip]]] = {}
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            wrong = next((c for c in (content, motion) if not fits(c.frames, model.config)), None)
            if wrong is not None:
                results[pair.id] = Failed(
                    f"clip {wrong.id}: {wrong.frames.shape[1:3]} pixels, the weights are for {model.config.frame_size}"
                )
            else:
                groups.setdefault(motion.frames.shape, []).append((pair, content, motion))
        for group in groups.values():
            frames, codes = self._transfer(
                [c.frames[: self.config.content_frames] for _, c, _ in group],
                [m.frames for _, _, m in group],
                [pair_seed(seed, p.id) for p, _, _ in group],
            )
            for (pair, _, motion), clip, used in zip(group, frames, codes.tolist(), strict=True):
                clip = resized(clip, motion.frames.shape[1:3])
                results[pair.id] = Clip(clip, motion.fps, pair.id, {INFO_KEY: used})
        return (results[pair.id] for pair in pairs)

    @torch.inference_mode()
    def _transfer(
        self, contents: Sequence[np.ndarray], motions: Sequence[np.ndarray], seeds: Sequence[int]
    ) -> tuple[np.ndarray, Tensor]:
        """uint8 content clips (any lengths) and motion clips (one length) -> uint8[B, T, H, W, 3] of the model's size,
        codes [B, T, N]."""
        model = self._loaded()
        with self._autocast():
            content = (
                torch.cat([model.encode_content(self._values(clip)) for clip in contents])
                if len({c.shape for c in contents}) > 1
                else model.encode_content(self._values(np.stack(contents)))
            )
            motion = model.encode_motion(self._values(np.stack(motions)))
            shape = model.noise_shape(motion.motion.shape[1])
            noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
            values = model.decode(content, motion.motion, self.sampler, noise.to(self.device))
            frames = self.codec.frames(values)
        return frames.cpu().numpy(), motion.codes.cpu()

    def _values(self, frames: np.ndarray) -> Tensor:
        """uint8 [T, H, W, 3] or [B, T, H, W, 3] -> what the model takes, [B, T, C, h, w]."""
        batch = frames if frames.ndim == 5 else frames[None]
        size = self._loaded().config.frame_size
        if batch.shape[2:4] != size:
            batch = np.stack([resized(clip, size) for clip in batch])
        return self.codec.values(torch.tensor(batch).to(self.device))

    def transfer_frames(self, content: np.ndarray, motion: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """The motion of one clip on the content of another, uint8 [T, H, W, 3] each, of any lengths.

        The result is like `motion`. `content` may be a single frame. Raises `UsageError` for sizes that
        the weights do not take.
        """
        config = self._loaded().config
        for clip in (content, motion):
            if not fits(clip, config):
                raise UsageError(f"{clip.shape[1:3]} pixels, the weights are for {config.frame_size}")
        result = self._transfer([content], [motion], [seed])[0][0]
        return resized(result, motion.shape[1:3])

    def reconstruct(self, frames: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """A clip from its own content and motion: uint8 [T, H, W, 3] in and out."""
        return self.transfer_frames(frames, frames, seed=seed)

    def motion_codes(self, frames: np.ndarray) -> Tensor:
        """Code indices int64 [T, N] of a clip uint8 [T, H, W, 3]."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"),
        ):
            return self._loaded().encode_motion(self._values(frames)).codes[0].cpu()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def _loaded(self) -> BCD:
        if self.model is None:
            raise RuntimeError("call load() first")
        return self.model
