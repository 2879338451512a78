"""Image autoencoders whose latents BCD can use: diffusers models in a local folder, and the tiny one for FLUX.2.

Each maps RGB frames to latents of 1/8 the size and back. They are frozen and not stored in checkpoints, which refer to
them by their hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcd_bench.assets.hashing import hash_json, sha256_file, sha256_path
from bcd_bench.types.errors import MissingAssetError, UsageError, one_line
from bcd_bench_bcd.paper.config import ModelConfig

__all__ = ["Autoencoder", "open_autoencoder", "random_autoencoder", "tiny_network"]

ASSETS = {"sd2-vae": ("sd2-vae",), "taef2": ("taef2-encoder", "taef2-decoder")}
"""Name in `LatentConfig.vae` -> the assets that contain its files."""
PART = 8
"""Frames encoded or decoded at once: a 256 x 256 frame takes about 100 MB in an autoencoder of the size of SD's."""


@dataclass
class Autoencoder:
    """A frozen autoencoder on one device.

    `encode_images` maps float [N, 3, H, W] in [-1, 1] to latents, `decode_latents` maps back; `sha256` is the hash of
    its files.
    """

    name: str
    network: nn.Module
    channels: int
    factor: int
    sha256: str
    tiny: bool

    def to(self, device: torch.device | str) -> Autoencoder:
        self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> means of the latents, float32 [N, C, H / factor, W / factor], on `device`."""
        parts = [self._encode(part.to(self.device)) for part in frames.split(PART)]
        return torch.cat(parts)

    def _encode(self, frames: Tensor) -> Tensor:
        images = frames.permute(0, 3, 1, 2).float() / 255
        if self.tiny:
            latents: Tensor = self.network.encoder(images)
        else:
            encoded: Any = self.network.encode(images * 2 - 1)
            latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents.float()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [N, C, h, w] -> float32 images [N, 3, H, W] in about [-1, 1]."""
        return torch.cat([self._decode(part.to(self.device)) for part in latents.split(PART)])

    def _decode(self, latents: Tensor) -> Tensor:
        if self.tiny:
            images: Tensor = self.network.decoder(latents.float())
            return images.float() * 2 - 1
        decoded: Any = self.network.decode(latents.float())
        return decoded.sample.float()


def open_autoencoder(config: ModelConfig, sha256: str = "", device: torch.device | str = "cpu") -> Autoencoder:
    """Load the autoencoder named in `config.latent`; its files are assets. `sha256` is the expected hash (empty: any).

    Raises `MissingAssetError` if a file is missing, `UsageError` if it is a different autoencoder (hash, number of
    channels or factor) or cannot be loaded.
    """
    from bcd_bench.assets.store import AssetStore
    from bcd_bench.plugin.registry import load_registry

    latent = config.latent
    if latent is None:
        raise ValueError("a model of pixels does not use an autoencoder")
    store = AssetStore(load_registry())
    paths = [store.find(asset) for asset in ASSETS[latent.vae]]
    autoencoder = _tiny(paths) if latent.vae == "taef2" else _from_diffusers(paths[0])
    for quantity, value, expected in (
        ("number of channels", autoencoder.channels, config.channels),
        ("downsampling factor", autoencoder.factor, latent.factor),
    ):
        if value != expected:
            raise UsageError(f"autoencoder {latent.vae}: its {quantity} is {value}, the model requires {expected}")
    if sha256 and autoencoder.sha256 != sha256:
        raise UsageError(
            f"autoencoder {latent.vae} is not the one the model was trained with "
            f"(sha256 {autoencoder.sha256[:12]}…, expected {sha256[:12]}…)",
            hint=f"run bcd-bench assets list to see where {' and '.join(ASSETS[latent.vae])} is found",
        )
    return autoencoder.to(device)


# ---- diffusers -----------------------------------------------------------------------------------------------------
def _from_diffusers(folder: Path) -> Autoencoder:
    """Load an `AutoencoderKL` or `AutoencoderTiny` saved by `save_pretrained`: config.json and safetensors."""
    import diffusers

    try:
        config = json.loads((folder / "config.json").read_text())
        kind = config.get("_class_name", "AutoencoderKL")
        if kind not in ("AutoencoderKL", "AutoencoderTiny"):
            raise UsageError(f"{folder}: contains a {kind}, not an AutoencoderKL or AutoencoderTiny of diffusers")
        network = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise MissingAssetError(
            f"{folder}: not an autoencoder of diffusers ({one_line(error, place=False)})",
            hint="use a folder with config.json and diffusion_pytorch_model.safetensors",
        ) from None
    return _wrapped("sd2-vae", network, sha256_path(folder))


def _wrapped(name: str, network: Any, sha256: str) -> Autoencoder:
    factor = 2 ** (len(network.config.block_out_channels) - 1) if hasattr(network, "quant_conv") else 8
    return Autoencoder(name, _frozen(network), network.config.latent_channels, factor, sha256, tiny=False)


def random_autoencoder(channels: int = 4, *, width: int = 128, layers: int = 2, groups: int = 32) -> Autoencoder:
    """An `AutoencoderKL` with random weights: by default of the size of SD 2.0's, for timing; small ones for tests."""
    import diffusers

    network = diffusers.AutoencoderKL(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=layers,
        latent_channels=channels,
        norm_num_groups=groups,
    )
    return _wrapped("random", network, "0" * 64)


# ---- the tiny autoencoder ------------------------------------------------------------------------------------------
class _Clamp(nn.Module):
    """Soft bound of latents to -3..3, the range that the decoder was trained on."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class _Block(nn.Module):
    """Three convolutions with a residual; with `pooled`, preceded by a normalised branch with a global receptive
    field."""

    def __init__(self, width: int, pooled: bool) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for _ in range(3):
            steps += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*steps[:-1])
        self.pool = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(width, 4 * width, 1, bias=False),
                nn.GroupNorm(4, 4 * width),
                nn.ReLU(),
                nn.Conv2d(4 * width, width, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def tiny_network(state: Mapping[str, Tensor], *, decoder: bool) -> nn.Sequential:
    """Build one half of a tiny autoencoder from its weights: `N.…` belongs to layer N.

    Layers without weights are, in a decoder, the clamp at its start, a ReLU after its first convolution, and otherwise
    an upsampling by two. In an encoder a convolution without bias halves the size. Raises `ValueError` or `KeyError` if
    the weights belong to a different network.
    """
    layers: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        number, _, parameter = name.partition(".")
        layers.setdefault(int(number), {})[parameter] = value
    modules: list[nn.Module] = []
    for index in range(max(layers) + 1):
        weights = layers.get(index)
        if weights is None:
            modules.append(_Clamp() if index == 0 else nn.ReLU() if index == 2 else nn.Upsample(scale_factor=2))
        elif "conv.0.weight" in weights:
            modules.append(_Block(weights["conv.0.weight"].shape[0], "pool.0.weight" in weights))
        else:
            outward, inward = weights["weight"].shape[:2]
            halves = not decoder and "bias" not in weights
            modules.append(nn.Conv2d(inward, outward, 3, 2 if halves else 1, 1, bias="bias" in weights))
    network = nn.Sequential(*modules)
    network.load_state_dict(dict(state))
    return network


def _tiny(paths: list[Path]) -> Autoencoder:
    halves = []
    for path, decoder in zip(paths, (False, True), strict=True):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            halves.append(tiny_network({k: v.float() for k, v in state.items()}, decoder=decoder))
        except Exception as error:  # noqa: BLE001 (torch raises many kinds of errors for files it did not write)
            text = f"{path}: not the weights of a tiny autoencoder ({one_line(error, place=False)})"
            raise MissingAssetError(text, hint="bcd-bench assets verify") from None
    network = nn.Module()
    network.encoder, network.decoder = halves
    convolutions = [layer for layer in halves[0] if isinstance(layer, nn.Conv2d)]
    factor = 2 ** sum(layer.stride[0] == 2 for layer in convolutions)
    sha256 = hash_json([sha256_file(path) for path in paths])
    return Autoencoder("taef2", _frozen(network), convolutions[-1].out_channels, factor, sha256, tiny=True)


def _frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)
