"""The networks of C-DSVAE: p(f) p(z_1:T) p(x_1:T | f, z_1:T) and q(f | x_1:T) q(z_1:T | x_1:T).

f is one Gaussian vector per clip with a standard normal prior; z_t is one per frame with a learned, autoregressive
prior p(z_t | z_<t) and a causal posterior q(z_t | x_<=t). Frames are decoded one by one from (f, z_t).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.training import save_tensors
from bcd_bench.types.errors import UsageError
from bcd_bench_baselines.cdsvae.presets import ModelConfig

__all__ = ["CDSVAE", "Gaussian", "load_model", "save_model", "to_frames", "to_unit"]

FORMAT = "bcd-bench-cdsvae/1"
NORM_GROUPS = 8


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean and log-variance of equal shape."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + standard deviation * noise."""
        return self.mean + (0.5 * self.log_variance).exp() * noise


def to_unit(frames: Tensor) -> Tensor:
    """uint8[..., H, W, 3] -> float32[..., 3, H, W] in [0, 1]."""
    return frames.movedim(-1, -3).float() / 255


def to_frames(values: Tensor) -> Tensor:
    """float[..., 3, H, W] in [0, 1] -> uint8[..., H, W, 3]."""
    return (values.float().clamp(0, 1) * 255).round().byte().movedim(-3, -1).contiguous()


class FrameEncoder(nn.Sequential):
    """[N, 3, H, W] -> [N, frame_features]. Group norm makes a frame's features independent of its batch (ours)."""

    def __init__(self, config: ModelConfig) -> None:
        quarter, eighth, sixteenth = config.channels
        height, width = (side // 16 for side in config.frame_size)
        super().__init__(
            nn.Conv2d(3, quarter, 4, 4),
            nn.GELU(),
            nn.GroupNorm(NORM_GROUPS, quarter),
            nn.Conv2d(quarter, eighth, 3, 2, 1),
            nn.GELU(),
            nn.GroupNorm(NORM_GROUPS, eighth),
            nn.Conv2d(eighth, sixteenth, 3, 2, 1),
            nn.GELU(),
            nn.GroupNorm(NORM_GROUPS, sixteenth),
            nn.Flatten(),
            nn.Linear(sixteenth * height * width, config.frame_features),
            nn.GELU(),
        )


class FrameDecoder(nn.Sequential):
    """[N, f_dim + z_dim] -> [N, 3, H, W] in [0, 1]."""

    def __init__(self, config: ModelConfig) -> None:
        quarter, eighth, sixteenth = config.channels
        height, width = (side // 16 for side in config.frame_size)
        last = nn.ConvTranspose2d(quarter, 3, 4, 4)
        nn.init.constant_(last.bias, -3.0)  # most of a sprite's frame is black
        super().__init__(
            nn.Linear(config.f_dim + config.z_dim, sixteenth * height * width),
            nn.GELU(),
            nn.Unflatten(1, (sixteenth, height, width)),
            nn.ConvTranspose2d(sixteenth, eighth, 4, 2, 1),
            nn.GELU(),
            nn.GroupNorm(NORM_GROUPS, eighth),
            nn.ConvTranspose2d(eighth, quarter, 4, 2, 1),
            nn.GELU(),
            nn.GroupNorm(NORM_GROUPS, quarter),
            last,
            nn.Sigmoid(),
        )


class CDSVAE(nn.Module):
    """All networks; the methods are the building blocks of the objective and the transfer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.bf16 = False
        """Whether frames are encoded and decoded in bfloat16; everything else is float32."""
        self.encoder, self.decoder = FrameEncoder(config), FrameDecoder(config)
        self.static = nn.LSTM(config.frame_features, config.hidden, batch_first=True, bidirectional=True)
        self.static_head = nn.Linear(2 * config.hidden, 2 * config.f_dim)
        self.dynamic = nn.LSTM(config.frame_features, config.hidden, batch_first=True)
        self.dynamic_head = nn.Linear(config.hidden, 2 * config.z_dim)
        self.prior = nn.LSTM(config.z_dim, config.hidden, batch_first=True)
        self.prior_head = nn.Linear(config.hidden, 2 * config.z_dim)

    def features(self, clips: Tensor) -> Tensor:
        """Clips [B, T, 3, H, W] in [0, 1] -> [B, T, frame_features], each frame independently."""
        with self._precision(clips):
            result: Tensor = self.encoder(clips.flatten(0, 1))
        return result.float().unflatten(0, clips.shape[:2])

    def posterior_f(self, features: Tensor) -> Gaussian:
        """q(f | x_1:T) [B, f_dim]: from the forward state at the last frame and the backward state at the first."""
        _, (states, _) = self.static(features)
        return _gaussian(self.static_head(torch.cat([states[0], states[1]], dim=-1)))

    def posterior_z(self, features: Tensor) -> Gaussian:
        """q(z_t | x_<=t) [B, T, z_dim]."""
        return _gaussian(self.dynamic_head(self.dynamic(features)[0]))

    def prior_z(self, codes: Tensor) -> Gaussian:
        """p(z_t | z_<t) for t = 1..T [B, T, z_dim] along given codes of the same shape; z_0 is 0."""
        before = functional.pad(codes[:, :-1], (0, 0, 1, 0))
        return _gaussian(self.prior_head(self.prior(before)[0]))

    def sample_prior_z(self, noise: Tensor) -> Tensor:
        """z_1:T [B, T, z_dim] sampled from the prior, each given the previous ones."""
        codes = noise.new_zeros(len(noise), 1, self.config.z_dim)
        state, samples = None, []
        for step in noise.unbind(1):
            hidden, state = self.prior(codes, state)
            codes = _gaussian(self.prior_head(hidden)).sample(step[:, None])
            samples.append(codes)
        return torch.cat(samples, 1)

    def decode(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """f [B, f_dim] and z [B, T, z_dim] -> clips [B, T, 3, H, W] in [0, 1]."""
        codes = torch.cat([static[:, None].expand(-1, dynamic.shape[1], -1), dynamic], dim=-1)
        with self._precision(codes):
            frames: Tensor = self.decoder(codes.flatten(0, 1))
        return frames.float().unflatten(0, dynamic.shape[:2])

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, torch.bfloat16, enabled=self.bf16)


def _gaussian(values: Tensor) -> Gaussian:
    return Gaussian(*values.chunk(2, dim=-1))


def save_model(path: Path, model: CDSVAE, extra: dict[str, Any]) -> None:
    """Write float16 weights, with configuration and `extra` (the card, plain JSON) in the header, atomically."""
    state = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    header = {"format": FORMAT, "config": model.config.model_dump_json(), "extra": json.dumps(extra)}
    save_tensors(path, state, header)


def load_model(path: Path, device: str = "cpu") -> tuple[CDSVAE, dict[str, Any]]:
    """Load a file written by `save_model`: the model in eval mode, in float32, and its `extra`.

    Raises `UsageError` for any other file (truncated, a pickle, another architecture).
    """
    from pydantic import ValidationError

    header, state = read_weight_file(path, form=FORMAT, what="C-DSVAE", maker="bcd-bench train cdsvae")
    try:
        model = CDSVAE(ModelConfig.model_validate_json(header["config"]))
        model.load_state_dict(state)  # converts to float32
        extra: dict[str, Any] = json.loads(header.get("extra", "{}"))
    except (KeyError, ValidationError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{path.name}: the weights do not match their configuration: {line}") from None
    return model.to(device).eval(), extra
