"""BCD as a method of bcd-bench: content of one clip, motion codes of another, one sampled clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from bcd_bench.plugin.base import Method
from bcd_bench.plugin.settings import first_error
from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.devices import resolve_device
from bcd_bench_bcd.autoregressive.pretrained import SHIPPED_MOTION, motion_model_for
from bcd_bench_bcd.autoregressive.weights import LoadedMotionModel, load_motion_model
from bcd_bench_bcd.bitstream.content import CodedContent, ContentCoder, quantized
from bcd_bench_bcd.bitstream.pictures import encode_pictures
from bcd_bench_bcd.extensions.model import ExtendedBCD, landmarks_of
from bcd_bench_bcd.inference.landmarks import NoFaceError
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.inference.pixels import candidates, carries_pixels, carry_pixels, resized, shown_size
from bcd_bench_bcd.inference.weights import Description, LoadedModel, load_model
from bcd_bench_bcd.latents.frame_codec import FrameCodec
from bcd_bench_bcd.metrics.motion_bitrate import AUTOREGRESSIVE_KEY, CONTENT_BITS_KEY, INFO_KEY, PROBABILITIES_KEY
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.paper.quantizer import Quantized

__all__ = ["BCDMethod", "MethodConfig"]

PAPER_SAMPLER, PAPER_LATENT_SAMPLER = SamplerConfig(steps=50), SamplerConfig(steps=128)
"""Table A8 for pixels and Table A7 for latents: 50 and 128 Heun steps with guidance 1.5."""


class MethodConfig(BaseModel):
    """Settings that `run --set` may change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: Literal["default", "paper"] = "default"
    """"default" is the sampler stored in the weights (few steps), "paper" that of Table A8 (for latents A7)."""
    solver: Literal["heun", "euler", "dpmpp-2m"] | None = None
    steps: int | None = Field(None, ge=1)
    guidance: float | None = Field(None, ge=0)
    content_frames: int | None = Field(None, ge=1)
    """Number of leading frames of the content clip that content is encoded from (Table A5); None: all."""
    content_bits: int | None = Field(None, ge=1, le=16)
    """Bits per content value, uniformly quantised per channel, as `bcd-bench encode --content-bits`; None: exact."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products. It is part of the run's fingerprint, so it does not depend on the machine."""


Frames = npt.NDArray[np.uint8]


class _Sent(NamedTuple):
    """What was sent for B clips."""

    tokens: Tensor
    """Content tokens [B, K, C] before they are quantised."""
    content: Tensor
    """Content tokens as the decoder gets them."""
    codes: Tensor
    """Motion codes int64 [B, T, N]."""
    probabilities: Tensor
    """Mean assignment probabilities of each clip's frames (eq. 4), [B, N, J]."""


def fits(frames: Frames, description: Description) -> bool:
    """Whether a model accepts a clip uint8 [T, H, W, 3]: one of its size, or of its aspect ratio if it resizes."""
    (height, width), (model_height, model_width) = frames.shape[1:3], description.model.frame_size
    same_shape = height * model_width == width * model_height
    return (height, width) == description.model.frame_size or (description.inference.resize and same_shape)


class BCDMethod(Method):
    """Transfer motion by BCD (Sec. 3). An instance holds one set of weights."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        try:
            self.settings = MethodConfig.model_validate(dict(config))
        except ValidationError as error:
            raise UsageError(f"bcd: --set {first_error(error)}") from None
        self.model: BCD | None = None

    def load(self, weights: Path | None, device: str) -> None:
        """Load BCD weights (safetensors). Raises `UsageError` if there are none or they do not fit."""
        if weights is None:
            raise UsageError(
                "method bcd needs weights",
                hint="run bcd-bench train bcd, then pass --weights train/…/model.safetensors",
            )
        self.attach(load_model(weights, str(resolve_device(device))))

    def attach(self, loaded: LoadedModel) -> None:
        """Use weights that are loaded already, on their device."""
        self.loaded = loaded
        self.device = next(loaded.model.parameters()).device
        self.model, self.description, self.card = loaded.model, loaded.description, loaded.card
        self.pipeline = Pipeline(self.model, self.description.inference.window)
        self.codec = FrameCodec(self.model, self.description.autoencoder_sha256)
        self.codec.open()
        if isinstance(self.model, ExtendedBCD) and self.model.pixels is not None:
            self.model.pixels.fusion.to(memory_format=torch.channels_last)  # faster convolutions on CPUs
        self.content_coder = ContentCoder(self.model)
        base = self.description.sampler
        if self.settings.sampler == "paper":
            base = PAPER_SAMPLER if self.model.config.latent is None else PAPER_LATENT_SAMPLER
        changes = {"name": self.settings.solver, "steps": self.settings.steps, "guidance": self.settings.guidance}
        self.sampler = base.model_copy(update={key: value for key, value in changes.items() if value is not None})

    @cached_property
    def content_shape(self) -> tuple[int, int]:
        """K and C of the content [B, K, C] that the decoder gets."""
        height, width = self._loaded().config.frame_size
        _, tokens, channels = self.encode_content([np.zeros((1, height, width, 3), np.uint8)]).shape
        return tokens, channels

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width in pixels that the weights were trained at; with `pixel_path` twice as many."""
        return shown_size(self._loaded())

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield one clip per pair, with the length and size of its motion clip.

        Clips whose size differs from the model's are resized if the weights allow it, else the result is `Failed`.
        """
        model = self._loaded()
        results: dict[str, Clip | Failed] = {}
        groups: dict[tuple[int, ...], list[tuple[Pair, Clip, Clip]]] = {}
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            mismatched = next((c for c in (content, motion) if not fits(c.frames, self.description)), None)
            faceless = self._without_face(content, motion) if mismatched is None else None
            if faceless is not None:
                results[pair.id] = faceless
            elif mismatched is not None:
                results[pair.id] = Failed(
                    f"clip {mismatched.id} has {mismatched.frames.shape[1:3]} pixels, the weights require "
                    f"{model.config.frame_size}"
                )
            else:
                groups.setdefault(motion.frames.shape, []).append((pair, content, motion))
        for group in groups.values():
            contents, motions = [c.frames[: self.settings.content_frames] for _, c, _ in group], [m for *_, m in group]
            seeds = [pair_seed(seed, p.id) for p, _, _ in group]
            frames, sent = self._transfer(contents, [m.frames for m in motions], seeds)
            infos = self._infos(contents, sent)
            for (pair, *_), motion, clip, info in zip(group, motions, frames, infos, strict=True):
                results[pair.id] = Clip(clip, motion.fps, pair.id, info)
        return (results[pair.id] for pair in pairs)

    def _without_face(self, content: Clip, motion: Clip) -> Failed | None:
        """The failure if the weights read landmarks and a clip shows no face."""
        try:
            self.check_faces(content.frames[: self.settings.content_frames], motion.frames)
        except NoFaceError as error:
            return Failed(str(error))
        return None

    def check_faces(self, content: Frames, motion: Frames | None = None) -> None:
        """Raise `NoFaceError` if the weights read landmarks and one of the clips uint8 [T, H, W, 3] shows no face."""
        if landmarks_of(self._loaded()) is None:
            return
        for role, frames in (("content", content[candidates(len(content)).numpy()]), ("motion", motion)):
            if frames is not None:
                try:
                    self.pipeline.landmarks(self.values(frames))
                except NoFaceError as error:
                    raise NoFaceError(f"{role}: {error}") from None

    def check_size(self, frames: Frames, error: type[UsageError] = UsageError) -> None:
        """Raise `error` if the weights do not accept the size of a clip uint8 [T, H, W, 3]."""
        if not fits(frames, self.description):
            size = self.description.model.frame_size
            raise error(f"the clip has {frames.shape[1:3]} pixels, the weights require {size}")

    def content_sent(self, tokens: Tensor) -> Tensor:
        """Content tokens [B, K, C] as the decoder gets them: quantised to `content_bits`."""
        bits = self.settings.content_bits
        return tokens if bits is None else quantized(tokens, bits)

    def coded_content(self, clip: Frames, tokens: Tensor) -> CodedContent:
        """The content of a clip uint8 [S, H, W, 3] with tokens [1, K, C] as in a bitstream, exact up to `content_bits`:
        pictures if the weights show the content's pixels, else tokens."""
        if carries_pixels(self._loaded()):
            return encode_pictures(clip)
        return self.content_coder.encode(tokens, self.settings.content_bits)

    def _transfer(
        self, contents: Sequence[Frames], motions: Sequence[Frames], seeds: Sequence[int]
    ) -> tuple[Frames, _Sent]:
        """uint8 content clips (any lengths) and motion clips (of equal length and size) -> uint8[B, T, H, W, 3] of the
        size of the motion clips, and what was sent for them."""
        tokens = self.encode_content(contents)
        content = self.content_sent(tokens)
        motion, means = self.encode_motion_statistics(motions)
        drawn = self.sample(content, motion.motion, seeds)
        parts = zip(drawn, contents, content, motion.motion, strict=True)
        size = motions[0].shape[1:3]
        frames = np.stack([self.render(own, size, *rest) for own, *rest in parts])
        return frames, _Sent(tokens, content, motion.codes, means)

    def _infos(self, contents: Sequence[Frames], sent: _Sent) -> list[dict[str, Any]]:
        """What the metric motion-bitrate needs of every clip."""
        probabilities = sent.probabilities.double().cpu().numpy().round(6).tolist()
        infos = [
            {
                INFO_KEY: codes,
                PROBABILITIES_KEY: probability,
                CONTENT_BITS_KEY: 8 * len(self.coded_content(clip, one[None]).payload),
            }
            for codes, probability, clip, one in zip(
                sent.codes.tolist(), probabilities, contents, sent.tokens, strict=True
            )
        ]
        if self.motion_model is not None:
            bits_per_code = self.motion_model.model.code_bits(sent.content, sent.codes)
            for info, total in zip(infos, bits_per_code.double().sum((1, 2)).tolist(), strict=True):
                info[AUTOREGRESSIVE_KEY] = round(total, 3)
        return infos

    def render(
        self, drawn: Frames, size: tuple[int, ...], content: Frames | None, tokens: Tensor, motion: Tensor
    ) -> Frames:
        """One clip uint8 [T, H, W, 3] of `size` (H, W), from what the transformer draws, uint8 [T, h, w, 3].

        With `pixel_path`, it shows the pixels of the frames `content` uint8 [S, H', W', 3], carried by `tokens` [K, C]
        and `motion` [T, C_m]. Raises `ValueError` if there are none then.
        """
        if not carries_pixels(self._loaded()):
            return resized(drawn, size)
        if content is None:
            raise ValueError("weights with pixel_path need the content's frames")
        with self.autocast():
            shown: Frames = carry_pixels(
                self.pipeline, resized(content, size), self.values(content), tokens, motion, drawn
            )
        return shown

    @cached_property
    def motion_model(self) -> LoadedMotionModel | None:
        """The autoregressive model of the codes that is shipped with the weights, if there is one."""
        if not SHIPPED_MOTION or self.loaded.path is None:
            return None
        path = motion_model_for(self.loaded.codes_sha256)
        return None if path is None else load_motion_model(path, str(self.device))

    @torch.inference_mode()
    def encode_content(self, clips: Sequence[Frames]) -> Tensor:
        """Content [B, K, C] of uint8 clips of any lengths, before it is quantised to `content_bits`."""
        with self.autocast():
            if len({clip.shape for clip in clips}) > 1:
                return torch.cat([self.pipeline.encode_content(self.values(clip)) for clip in clips])
            return self.pipeline.encode_content(self.values(np.stack(clips)))

    def encode_motion(self, clips: Sequence[Frames]) -> Quantized:
        """Quantised motion of uint8 clips of equal length."""
        motion: Quantized = self.encode_motion_statistics(clips)[0]
        return motion

    @torch.inference_mode()
    def encode_motion_statistics(self, clips: Sequence[Frames]) -> tuple[Quantized, Tensor]:
        """As `encode_motion`, and the mean assignment probabilities of each clip's frames (eq. 4), [B, N, J]."""
        quantizer = self._loaded().quantizer
        with self.autocast():
            latents = self.pipeline.motion_latents(self.values(np.stack(clips)))
            motion: Quantized = quantizer(latents)
            return motion, torch.stack([quantizer.histogram(one[None]) for one in latents])

    def sample(self, content: Tensor, motion: Tensor, seeds: Sequence[int]) -> Frames:
        """uint8 clips [B, T, H, W, 3] of the model's size for content [B, K, C] and motion [B, T, C_m]."""
        shape = self._loaded().noise_shape(motion.shape[1])
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        frames: Frames = self.sample_noise(content, motion, noise)
        return frames

    @torch.inference_mode()
    def sample_noise(self, content: Tensor, motion: Tensor, noise: Tensor) -> Frames:
        """As `sample`, for unit normal noise [B, T, S, values]."""
        with self.autocast():
            values = self.pipeline.sample(content, motion, self.sampler, noise.to(self.device))
            frames: Frames = self.codec.frames(values).cpu().numpy()
        return frames

    def values(self, frames: Frames) -> Tensor:
        """uint8 [T, H, W, 3] or [B, T, H, W, 3] -> the model's input, [B, T, C, h, w]."""
        batch = frames if frames.ndim == 5 else frames[None]
        size = self._loaded().config.frame_size
        if batch.shape[2:4] != size:
            batch = np.stack([resized(clip, size) for clip in batch])
        return self.codec.values(torch.tensor(batch).to(self.device))

    def transfer_frames(self, content: Frames, motion: Frames, *, seed: int = 0) -> Frames:
        """Transfer the motion of one clip to the content of another, uint8 [T, H, W, 3] each, of any lengths.

        The result has the length and size of `motion`. `content` may be a single frame. Raises `UsageError` for sizes
        that the weights do not accept.
        """
        for clip in (content, motion):
            self.check_size(clip)
        frames: Frames = self._transfer([content], [motion], [seed])[0][0]
        return frames

    def reconstruct(self, frames: Frames, *, seed: int = 0) -> Frames:
        """Reconstruct a clip from its own content and motion: uint8 [T, H, W, 3] in and out."""
        return self.transfer_frames(frames, frames, seed=seed)

    def motion_codes(self, frames: Frames) -> Tensor:
        """Code indices int64 [T, N] of a clip uint8 [T, H, W, 3]."""
        return self.encode_motion([frames]).codes[0].cpu()

    def autocast(self) -> torch.autocast:
        """The context in which the network runs, in the precision of the settings."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.dtype == "bfloat16")

    def _loaded(self) -> BCD:
        if self.model is None:
            raise RuntimeError("call load() first")
        return self.model
