"""`BCD`: a trained model for use from Python, frames in and frames out."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bcd_bench.assets.weights import verify_weights
from bcd_bench.plugin.registry import nearest
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import resolve_device
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.inference.pixels import carries_pixels
from bcd_bench_bcd.inference.pretrained import SHIPPED
from bcd_bench_bcd.inference.weights import LoadedModel, load_model, save_model
from bcd_bench_bcd.latents.frame_codec import FrameCodec
from bcd_bench_bcd.paper.quantizer import Quantized

__all__ = ["BCD"]


class BCD(nn.Module):
    """A trained BCD (Sec. 3) that takes and returns frames.

        >>> bcd = BCD.from_pretrained("heads-small")
        >>> content = bcd.encode_content(photo)       # uint8 [H, W, 3], [T, H, W, 3] or [B, T, H, W, 3]
        >>> motion = bcd.encode_motion(driving)       # motion.codes int64 [B, T, N], motion.motion float [B, T, C]
        >>> frames = bcd.sample(content, motion)      # uint8 [B, T, H, W, 3]

    `model` is the network (`bcd_bench_bcd.paper.model.BCD`, or with extensions), `description` its configuration and
    recipe. Frames have the model's size, see `frame_size`.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__()
        self.loaded = loaded
        self.model, self.description, self.card = loaded.model, loaded.description, loaded.card
        self.pipeline = Pipeline(self.model, self.description.inference.window)
        self.codec = FrameCodec(self.model, self.description.autoencoder_sha256)

    @classmethod
    def from_pretrained(cls, name_or_path: str | PathLike[str], device: str = "cpu") -> BCD:
        """Weights of this package by name, or a file that `bcd-bench train bcd` or `save_pretrained` wrote.

        Raises `UsageError` for a name or file that does not exist or is not of this format, and `MissingAssetError`
        for a shipped file that is missing or altered.
        """
        shipped = {weights.name: weights for weights in SHIPPED}
        path = Path(name_or_path).expanduser()
        if str(name_or_path) in shipped:
            path = verify_weights(shipped[str(name_or_path)], None).path
        elif path.is_dir():
            path = path / "model.safetensors"
        if not path.is_file():
            names = nearest(str(name_or_path), shipped)
            raise UsageError(f"{str(name_or_path)!r}: no such file, and no shipped weights of that name; {names}")
        bcd = cls(load_model(path, str(resolve_device(device))))
        bcd.eval()
        return bcd

    def save_pretrained(self, path: str | PathLike[str], *, compress: bool = False) -> Path:
        """Write the weights with their configuration and recipe (safetensors), and return the file.

        A `path` without the ending `.safetensors` is a folder, in which the file is `model.safetensors`. `compress`
        stores matrices as int8 with a scale per row.
        """
        target = Path(path)
        if target.suffix != ".safetensors":
            target = target / "model.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        save_model(target, self.model, self.description, self.card, compress=compress)
        return target

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.model.config.frame_size
        return height, width

    @property
    def recipe(self) -> tuple[str, ...]:
        """("paper",), or the names of the extensions that the weights were trained with."""
        return self.description.recipe

    @torch.inference_mode()
    def encode_content(self, frames: Any) -> Tensor:
        """Content tokens float32 [B, K, C_c] of clips uint8 [B, T, H, W, 3], of a clip, or of a single frame."""
        return self.pipeline.encode_content(self.values(frames))

    @torch.inference_mode()
    def encode_motion(self, frames: Any) -> Quantized:
        """Quantised motion of clips uint8 [B, T, H, W, 3] or of a clip [T, H, W, 3]: `codes` int64 [B, T, N] are the
        transmitted indices, `motion` float [B, T, C_m] the vectors they stand for."""
        return self.pipeline.encode_motion(self.values(frames))

    @torch.inference_mode()
    def sample(
        self,
        content: Tensor,
        motion: Quantized | Tensor,
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """Clips uint8 [B, T, H, W, 3] for content [B, K, C_c] and motion [B, T, C_m].

        `seed` is one per clip, or one for all; `steps` and `guidance` are those of the weights by default. Raises
        `ValueError` if the batches differ in size.
        """
        vectors = motion if isinstance(motion, Tensor) else motion.motion
        if len(vectors) != len(content):
            raise ValueError(f"{len(content)} contents and {len(vectors)} motions")
        seeds = [seed] * len(vectors) if isinstance(seed, int) else list(seed)
        shape = self.model.noise_shape(vectors.shape[1])
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(one)) for one in seeds])
        changes = {"steps": steps, "guidance": guidance}
        sampler = self.description.sampler.model_copy(update={k: v for k, v in changes.items() if v is not None})
        return self.codec.frames(self.pipeline.sample(content, vectors, sampler, noise.to(vectors.device)))

    def forward(self, content: Any, motion: Any, *, seed: int = 0) -> Tensor:
        """Transfer: frames uint8 [B, T, H, W, 3] with the content of one batch of clips and the motion of another.

        With `pixel_path`, the content's own pixels are shown, which `sample` cannot do: it only gets content tokens.
        """
        if carries_pixels(self.model):
            method = self._method()
            clips = zip(*(_batch(frames).cpu().numpy() for frames in (content, motion)), strict=True)
            return torch.from_numpy(np.stack([method.transfer_frames(c, m, seed=seed) for c, m in clips]))
        return self.sample(self.encode_content(content), self.encode_motion(motion), seed=seed)

    def encode(
        self,
        content: Any,
        motion: Any,
        *,
        fps: float = 25.0,
        seed: int = 0,
        model: str = "adaptive",
        content_crf: int | None = None,
    ) -> bytes:
        """A bitstream of the content of one clip and the motion of another, uint8 [T, H, W, 3] each (or one frame).

        `model` is the probability model of motion codes, "adaptive" or "context"; with `content_crf` (0..63), content
        is sent as pictures coded by AV1; see docs/bitstream.md. Raises `UsageError` for sizes that the weights do not
        accept.
        """
        from bcd_bench_bcd.bitstream.codec import encode_clip

        clips = [np.asarray(frames, np.uint8) for frames in (content, motion)]
        clips = [clip[None] if clip.ndim == 3 else clip for clip in clips]
        method = self._method()
        return encode_clip(method, clips[0], clips[1], fps, seed=seed, model=model, content_crf=content_crf).data

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        """The frames uint8 [T, H, W, 3] of a bitstream: those of `bcd(content, motion, seed=seed)[0]`
        if it was encoded without `content_crf`.

        Raises `BitstreamError` for data that is damaged or was encoded with other weights.
        """
        from bcd_bench_bcd.bitstream.codec import decode_clip

        return decode_clip(self._method(), data).frames

    def _method(self) -> BCDMethod:
        method = BCDMethod({})
        method.attach(self.loaded)
        return method

    def values(self, frames: Any) -> Tensor:
        """The model's input [B, T, C, h, w] for clips uint8 [B, T, H, W, 3], a clip, or a single frame.

        Raises `ValueError` for another type or size.
        """
        batch = _batch(frames)
        if batch.dtype != torch.uint8 or tuple(batch.shape[2:]) != (*self.frame_size, 3):
            height, width = self.frame_size
            raise ValueError(f"frames must be uint8 [..., {height}, {width}, 3], not {batch.dtype} {list(batch.shape)}")
        return self.codec.values(batch.to(next(self.model.parameters()).device))


def _batch(frames: Any) -> Tensor:
    """Clips [B, T, H, W, 3], for clips, a clip, or a single frame."""
    batch = frames if isinstance(frames, Tensor) else torch.tensor(np.asarray(frames))
    while batch.ndim < 5:
        batch = batch[None]
    return batch
