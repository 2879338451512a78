"""C-DSVAE as a bcd-bench method: f from the content clip, z_1:T from the motion clip, decoded frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from bcd_bench.plugin.settings import validate
from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.devices import resolve_device
from bcd_bench_baselines.cdsvae.model import CDSVAE, load_model, to_frames, to_unit

__all__ = ["CDSVAEMethod", "MethodConfig"]


class MethodConfig(BaseModel):
    """Settings that `run --set` may change. The literature also scores runs in which one of the two codes is
    sampled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    f: Literal["posterior", "prior"] = "posterior"
    """"posterior": the mean of q(f | content clip); "prior": a sample of p(f), independent of the content clip."""
    z: Literal["posterior", "prior"] = "posterior"
    """"posterior": the means of q(z_t | motion clip); "prior": a sample of p(z_1:T) of the motion clip's length."""


class CDSVAEMethod:
    """Transfer motion by C-DSVAE; an instance holds one set of weights."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = validate(MethodConfig, config, "--set", owner="cdsvae")
        self.model: CDSVAE | None = None

    def load(self, weights: Path | None, device: str) -> None:
        """Load C-DSVAE weights (safetensors). Raises `UsageError` if they are missing or do not fit."""
        if weights is None:
            raise UsageError(
                "method cdsvae needs weights",
                hint="run bcd-bench train cdsvae, then pass --weights train/…/model.safetensors",
            )
        self.device = resolve_device(device)
        self.model, self.card = load_model(weights, str(self.device))

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield one clip per pair, as long as its motion clip; `Failed` for clips whose size differs from the
        model's."""
        size = self._loaded().config.frame_size
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            mismatched = next((clip for clip in (content, motion) if clip.frames.shape[1:3] != size), None)
            if mismatched is not None:
                yield Failed(
                    f"clip {mismatched.id} has {mismatched.frames.shape[1:3]} pixels, the weights require {size}"
                )
                continue
            frames = self.swap(content.frames, motion.frames, pair_seed(seed, pair.id))
            yield Clip(frames, motion.fps, pair.id)

    @torch.inference_mode()
    def swap(self, content: np.ndarray, motion: np.ndarray, seed: int = 0) -> np.ndarray:
        """uint8[S, H, W, 3] and uint8[T, H, W, 3] -> uint8[T, H, W, 3]. `seed` is used for samples from a prior.

        One pair at a time: in a batch, rounding would depend on the other pairs, and a pair takes milliseconds.
        """
        model = self._loaded()
        generator = torch.Generator().manual_seed(seed)
        static_noise = torch.randn(1, model.config.f_dim, generator=generator).to(self.device)
        dynamic_noise = torch.randn(1, len(motion), model.config.z_dim, generator=generator).to(self.device)
        static = static_noise if self.config.f == "prior" else model.posterior_f(self._features(content)).mean
        if self.config.z == "prior":
            dynamic = model.sample_prior_z(dynamic_noise)
        else:
            dynamic = model.posterior_z(self._features(motion)).mean
        result: np.ndarray = to_frames(model.decode(static, dynamic))[0].cpu().numpy()
        return result

    def _features(self, frames: np.ndarray) -> Tensor:
        batch = torch.tensor(frames[None]).to(self.device)
        return self._loaded().features(to_unit(batch))

    def _loaded(self) -> CDSVAE:
        if self.model is None:
            raise RuntimeError("call load() first")
        return self.model
