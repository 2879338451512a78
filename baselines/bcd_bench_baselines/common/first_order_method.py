"""The method shared by FOMM and MCNET: keypoints of all frames are transferred, then frames are decoded in batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.common.best_frame import FrameChooser
from bcd_bench_baselines.common.blocks import fold, gaussian_kernel
from bcd_bench_baselines.common.checkpoints import blank, load_published
from bcd_bench_baselines.common.first_order import SIZE, KeypointDetector
from bcd_bench_baselines.common.frame_method import CommonConfig, FrameMethod, Frames
from bcd_bench_baselines.common.keypoints import Keypoints, movement_scale, relative
from bcd_bench_baselines.common.landmarks import NoFaceError
from bcd_bench_baselines.common.random_weights import fill_seeded
from bcd_bench_baselines.common.tensors import to_uint8, to_unit
from bcd_bench_baselines.common.torch_compile import channels_last, compiled

__all__ = ["FirstOrderConfig", "FirstOrderMethod"]


class FirstOrderConfig(CommonConfig):
    """Settings of the motion transfer, in addition to the common settings."""

    mode: Literal["relative", "absolute"] = "relative"
    """"relative" adds the motion since the reference driving frame to the source's pose, "absolute" uses the driving
    pose."""
    adapt_scale: bool = True
    """Whether to scale relative motion by the ratio of the face sizes in source and driving clip."""
    best_frame: bool = False
    """Whether the reference driving frame is the one closest to the source's pose (by landmarks) instead of the
    first."""


class FirstOrderMethod(FrameMethod):
    """Base class; a subclass defines its `keypoints`, its generator, and how to encode a source and decode frames."""

    Config: ClassVar[type[CommonConfig]] = FirstOrderConfig
    config: FirstOrderConfig
    keypoints: ClassVar[int]
    generator: nn.Module

    @abstractmethod
    def make_generator(self) -> nn.Module:
        """The generator, with uninitialised tensors."""

    @abstractmethod
    def encode(self, image: Tensor, source: Keypoints) -> Sequence[Tensor]:
        """Encode the source image float32[1, 3, 256, 256] into tensors used for every frame, computed once."""

    @abstractmethod
    def decode(self, encoded: Sequence[Tensor], source: Keypoints, target: Keypoints) -> Tensor:
        """Frames float32[B, 3, 256, 256] in [0, 1] of the encoded source in the poses of `target`."""

    def modules(self) -> dict[str, nn.Module]:
        """The networks by the names of their entries in the published file."""
        return {"generator": self.generator, "kp_detector": self.detector}

    def load_weights(self, weights: Path | None) -> None:
        self.detector = blank(lambda: KeypointDetector(self.keypoints))
        self.generator = blank(self.make_generator)
        if weights is None:
            fill_seeded(self.modules(), self.config.seeded or 0, {"down.weight": gaussian_kernel(4)})
        else:
            load_published(self.modules(), weights, model=self.name.upper(), hint=self.how_to)
        for module in self.modules().values():
            fold(module)
            channels_last(module.to(self.device))
        self.chooser = FrameChooser() if self.config.best_frame else None
        self._detect: Callable[[Tensor], tuple[Tensor, Tensor]] = self.detector
        self._decode: Callable[..., Tensor] = self.decode_tensors
        if self.config.compile:
            self._compile()

    def decode_tensors(
        self, encoded: Sequence[Tensor], source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]
    ) -> Tensor:
        """`decode` with plain tensors as arguments, as required by the compiler."""
        return self.decode(encoded, Keypoints(*source), Keypoints(*target))

    def _compile(self) -> None:
        """Compile both steps for full batches: see `FrameMethod.full`."""
        frames = torch.zeros(self.config.batch_frames, 3, *SIZE, device=self.device)
        with torch.inference_mode(), self.autocast():
            image = frames[:1]
            with torch.autocast(self.device.type, enabled=False):
                self._detect = compiled(self.detector, lambda detect: detect(frames))
                source, target = self.detector(image), self.detector(frames)
            encoded = self.encode(image, Keypoints(*source))
            self._decode = compiled(self.decode_tensors, lambda decode: decode(encoded, source, target))

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """As `FrameMethod.transfer`; with `best_frame` a pair without faces is `Failed`."""
        del seed  # the method is deterministic
        for pair in pairs:
            source, motion = pair.content.load().frames[0], pair.motion.load()
            try:
                anchor = 0 if self.chooser is None else self.chooser.choose(source, motion.frames)
            except NoFaceError as error:
                yield Failed(f"best_frame: {error}")
                continue
            yield Clip(self.animate(source, motion.frames, anchor), motion.fps, pair.id)

    @torch.inference_mode()
    def animate(self, source: Frames, driving: Frames, anchor: int = 0) -> Frames:
        """Animate uint8[H, W, 3] by uint8[T, H', W', 3]: uint8[T, H', W', 3]. `anchor` is the index of the reference
        driving frame of relative motion."""
        image = to_unit(source[None], SIZE, self.device)
        pose = self.detect(image)
        poses = Keypoints.join(
            [self.detect(to_unit(driving[s], SIZE, self.device)) for s in self.batches(len(driving))]
        )
        target = self.carry_over(pose, poses, anchor)
        size = (driving.shape[1], driving.shape[2])
        with self.autocast():
            encoded = self.encode(image, pose)
            frames = [to_uint8(self._frames(encoded, pose, target[s]), size) for s in self.batches(len(driving))]
        return np.concatenate(frames)

    def detect(self, images: Tensor) -> Keypoints:
        """Keypoints of images [B, 3, 256, 256], always in float32, since lower precision is not sufficient for
        positions."""
        count = len(images)
        with torch.autocast(self.device.type, enabled=False):
            detected = self.detector(images) if count == 1 else self._detect(self.full(images))
        return Keypoints(*detected)[slice(count)]

    def carry_over(self, source: Keypoints, driving: Keypoints, anchor: int = 0) -> Keypoints:
        """The keypoints of the output frames, according to the settings `mode` and `adapt_scale`."""
        if self.config.mode == "absolute":
            return driving
        start = driving[slice(anchor, anchor + 1)]
        scale = movement_scale(source, start) if self.config.adapt_scale else 1.0
        return relative(source, driving, start, scale)

    def _frames(self, encoded: Sequence[Tensor], source: Keypoints, target: Keypoints) -> Tensor:
        value, jacobian = self.full(target.value), self.full(target.jacobian)
        decoded = self._decode(encoded, (source.value, source.jacobian), (value, jacobian))
        return decoded[: len(target)]
