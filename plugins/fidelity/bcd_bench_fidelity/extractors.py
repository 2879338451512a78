"""The extractors: frames of clips through a backbone, with a bounded number of pixels at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from bcd_bench.types.clip import Clip
from bcd_bench.util.devices import resolve_device
from bcd_bench_fidelity.backbones import EFFICIENTNET_LITE0, INCEPTION, Backbone
from bcd_bench_fidelity.fuse_batchnorm import fold, read_weights

__all__ = ["EfficientNetLite0Features", "InceptionFeatures", "passes"]

CPU_FRAMES, GPU_FRAMES = 8, 64
"""Frames per pass. A CPU's caches hold the activations of a few; EfficientNet takes 1.5 times as long with 32."""
PIXELS_PER_PASS = 2**23
"""Maximum number of pixels per pass, for large frames: 100 MB before resizing."""

Segment = tuple[int, int, int]
"""Clip, first frame, and the frame after the last."""


def passes(clips: Sequence[Clip], frames: int) -> Iterator[list[Segment]]:
    """Every frame of `clips` once and in order, as groups of segments of one frame size, at most `frames` per group."""
    group: list[Segment] = []
    room, size = 0, (0, 0)
    for index, clip in enumerate(clips):
        height, width = clip.frames.shape[1:3]
        start = 0
        while start < len(clip):
            if group and (room == 0 or size != (height, width)):
                yield group
                group = []
            if not group:
                size, room = (height, width), max(1, min(frames, PIXELS_PER_PASS // (height * width)))
            stop = min(len(clip), start + room)
            group.append((index, start, stop))
            room -= stop - start
            start = stop
    if group:
        yield group


class _Features(ABC):
    """One network, one feature: `features` float32[T, width] of a clip, one row per frame."""

    backbone: ClassVar[Backbone]
    side: ClassVar[int]
    """Frames are resized to `side` x `side` pixels."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._network: nn.Module | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Cache key: the weights and the preprocessing; the version of the extractor is in its spec."""
        return {"weights": self.backbone.sha256, "preprocessing": self.backbone.preprocessing}

    def load(self, device: str) -> None:
        """Read the weights. Raises `MissingAssetError`, `MissingDependencyError` or `UsageError`."""
        self.load_from(self.backbone.weights(), device)

    def load_from(self, path: Path, device: str = "cpu") -> None:
        """Read the weights from a given file, such as one for a test."""
        self._device = resolve_device(device)
        self._network = self.build(read_weights(path)).to(self._device)

    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any]]:
        """`features` of every clip, in order."""
        found = [np.empty((len(clip), self.backbone.width), np.float32) for clip in clips]
        for segments in self._passes(clips):
            frames = np.concatenate([clips[index].frames[start:stop] for index, start, stop in segments])
            rows = self._infer(frames)
            for index, start, stop in segments:
                found[index][start:stop], rows = rows[: stop - start], rows[stop - start :]
        return [{"features": features} for features in found]

    def _passes(self, clips: Sequence[Clip]) -> Iterator[list[Segment]]:
        """The passes over the frames. On a CPU no pass has frames of two clips, so that the last bits of a clip's
        features depend on nothing but the clip: not on which clips are cached, and not on the number of workers."""
        if self._device.type != "cpu":
            yield from passes(clips, GPU_FRAMES)
            return
        for index, clip in enumerate(clips):
            for segments in passes([clip], CPU_FRAMES):
                yield [(index, start, stop) for _, start, stop in segments]

    @staticmethod
    @abstractmethod
    def build(weights: Mapping[str, Tensor]) -> nn.Module:
        """The network with these weights."""

    @staticmethod
    @abstractmethod
    def scale(frames: Tensor) -> Tensor:
        """Scale pixels float32 0..255 to the network's input range; linear, and applied before the frames are
        resized."""

    def _infer(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features float32[B, width] of frames uint8[B, H, W, 3]."""
        assert self._network is not None, "load comes before extract"
        # TF32 would change distances by more than the guaranteed parity.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            pixels = torch.tensor(frames).to(self._device).permute(0, 3, 1, 2)
            scaled = self.scale(pixels.float())
            resized = functional.interpolate(scaled, (self.side, self.side), mode="bilinear", align_corners=False)
            features: npt.NDArray[np.float32] = self._network(resized).float().cpu().numpy()
        return features


class InceptionFeatures(_Features):
    """2,048 features per frame, those of pytorch-fid's default layer."""

    backbone = INCEPTION
    side = 299

    @staticmethod
    def build(weights: Mapping[str, Tensor]) -> nn.Module:
        from bcd_bench_fidelity.inception import BATCH_NORM_EPS, Convolution, InceptionFID

        with torch.device("meta"):  # no memory and no initialisation for weights that are replaced below
            network = InceptionFID()
        names = [name for name, module in network.named_modules() if isinstance(module, Convolution)]
        return fold(network, weights, [(name, f"{name}.conv", f"{name}.bn") for name in names], BATCH_NORM_EPS)

    @staticmethod
    def scale(frames: Tensor) -> Tensor:
        return frames / 127.5 - 1


class EfficientNetLite0Features(_Features):
    """1,280 features per frame."""

    backbone = EFFICIENTNET_LITE0
    side = 224

    @staticmethod
    def build(weights: Mapping[str, Tensor]) -> nn.Module:
        from bcd_bench_fidelity.efficientnet import BATCH_NORM_EPS, EfficientNetLite0, folds

        with torch.device("meta"):
            network = EfficientNetLite0()
        return fold(network, weights, folds(network), BATCH_NORM_EPS)

    @staticmethod
    def scale(frames: Tensor) -> Tensor:
        return (frames - 127) / 128
