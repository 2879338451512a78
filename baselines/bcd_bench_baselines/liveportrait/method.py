"""LivePortrait as a bcd-bench method: crop, motion, stitching, image, paste-back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.common.blocks import fold
from bcd_bench_baselines.common.checkpoints import blank, load_published
from bcd_bench_baselines.common.frame_method import CommonConfig, FrameMethod, Frames
from bcd_bench_baselines.common.landmarks import LIPS, POINTS_68, FacePoints, NoFaceError
from bcd_bench_baselines.common.random_weights import fill_seeded
from bcd_bench_baselines.common.torch_compile import compiled
from bcd_bench_baselines.liveportrait import crop
from bcd_bench_baselines.liveportrait.appearance import AppearanceExtractor
from bcd_bench_baselines.liveportrait.generator import SpadeGenerator, SpectralConv2d
from bcd_bench_baselines.liveportrait.keypoints import (
    Motion,
    absolute_keypoints,
    exaggeration,
    keypoints,
    relative_keypoints,
)
from bcd_bench_baselines.liveportrait.motion_extractor import MotionExtractor, motion_of
from bcd_bench_baselines.liveportrait.retargeting import Retargeting
from bcd_bench_baselines.liveportrait.settings import LivePortraitConfig
from bcd_bench_baselines.liveportrait.specs import FILES, HOW_TO
from bcd_bench_baselines.liveportrait.warping import Warping

__all__ = ["LivePortrait"]

SIZE = 256
"""Side of the networks' input images in pixels; outputs have 512."""
OPEN_LIPS = 0.03
"""Minimum opening of the source's lips at which `normalize_lip` closes them."""


class LivePortrait(FrameMethod):
    """LivePortrait's human models (Guo et al., 2024)."""

    Config: ClassVar[type[CommonConfig]] = LivePortraitConfig
    config: LivePortraitConfig
    name = "liveportrait"
    how_to = HOW_TO

    def load_weights(self, weights: Path | None) -> None:
        self.appearance, self.motion = blank(AppearanceExtractor), blank(MotionExtractor)
        self.warping, self.generator = blank(Warping), blank(SpadeGenerator)
        self.retargeting = blank(Retargeting)
        networks: list[nn.Module] = [self.appearance, self.motion, self.warping, self.generator, self.retargeting]
        if weights is None:
            fill_seeded(dict(zip(FILES, networks, strict=True)), self.config.seeded or 0)
            for part in self.generator.modules():
                if isinstance(part, SpectralConv2d):
                    part.estimate()
        else:
            self._load_folder(weights, networks)
        for network in networks:
            fold(network.to(self.device))
        self.faces = FacePoints() if self.config.wants_landmarks else None
        self._detect: Callable[[Tensor], dict[str, Tensor]] = self.motion.detector
        self._draw: Callable[[Tensor, Tensor, Tensor], Tensor] = self.draw
        if self.config.compile:
            self._compile()

    def _load_folder(self, folder: Path, networks: Sequence[nn.Module]) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; expected LivePortrait's with {', '.join(FILES)}", hint=HOW_TO)
        for name, network in zip(FILES, networks, strict=True):
            flat = network is not self.retargeting
            modules = {"": network} if flat else dict(network.named_children())
            load_published(modules, folder / name, model=f"LivePortrait, {Path(name).stem}", flat=flat, hint=HOW_TO)

    def _compile(self) -> None:
        """Compile the two large steps for full batches: see `FrameMethod.full`."""
        frames = torch.zeros(self.config.batch_frames, 3, SIZE, SIZE, device=self.device)
        with torch.inference_mode():
            self._detect = compiled(self.motion.detector, lambda detect: detect(frames))
            points = keypoints(motion_of(self._detect(frames)))
            with self.autocast():
                features = self.appearance(frames[:1])
                self._draw = compiled(self.draw, lambda draw: draw(features, points, points[:1]))

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """As `FrameMethod.transfer`; `Failed` for a pair in which a required face is not found."""
        del seed  # the method is deterministic
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            try:
                yield Clip(self.animate(content.frames[0], motion.frames), motion.fps, pair.id)
            except NoFaceError as error:
                yield Failed(f"liveportrait: {error}")

    @torch.inference_mode()
    def animate(self, source: Frames, driving: Frames) -> Frames:
        """Animate uint8[H, W, 3] by uint8[T, H', W', 3]: uint8[T, H', W', 3].

        Poses and keypoints are computed in float32 for any `dtype`; images are computed in `dtype`. Raises
        `NoFaceError` if the settings require a face and none is found.
        """
        picture = self._levels(source[None])
        points = None if self.faces is None else _found(self.faces, source[None], "the source")[0]
        matrix = (
            crop.crop_matrix(points[[*POINTS_68]], crop.LAYOUT_68) if self.config.crop and points is not None else None
        )
        image = seen(picture, matrix)
        with self.autocast():
            features = self.appearance(image)
        face, box = self._motion(image), self._driving_box(driving)
        moves = [self._motion(seen_driving(self._levels(driving[b]), box)) for b in self.batches(len(driving))]
        ratio = None if points is None else crop.opening(points, *LIPS)
        x_s, x_d = self.carry_over(face, Motion.cat(moves), ratio)
        size = (driving.shape[1], driving.shape[2])
        frames = []
        with self.autocast():
            for part in self.batches(len(driving)):
                target = x_d[part]
                images = self._draw(features, self.full(target), x_s)[: len(target)].float()
                frames.append(_frames(self._finish(images.mul(255).clamp(0, 255).floor(), picture, matrix), size))
        return np.concatenate(frames)

    def draw(self, features: Tensor, x_d: Tensor, x_s: Tensor) -> Tensor:
        """Images [B, 3, 512, 512] in 0..1 of the source's features with its keypoints x_s moved to x_d [B, 21, 3]."""
        images: Tensor = self.generator(self.warping(features, x_d, x_s).features)
        return images

    def carry_over(self, source: Motion, driving: Motion, lip_ratio: float | None = None) -> tuple[Tensor, Tensor]:
        """The source's keypoints [1, 21, 3] and their targets [B, 21, 3] according to the settings. `lip_ratio` is the
        opening of the source's lips, for `normalize_lip`."""
        config, x_s = self.config, keypoints(source)
        if config.mode == "absolute":
            x_d = absolute_keypoints(source, driving)
        else:
            x_d = relative_keypoints(source, driving, driving[:1], config.region)
            if config.driving == "expression-friendly":
                x_d = x_s + exaggeration(x_s, x_d[:1]) * (x_d - x_d[:1])
        if config.stitching:
            x_d = self.retargeting.stitch(x_s, x_d)
        if config.normalize_lip and lip_ratio is not None and lip_ratio >= OPEN_LIPS:
            now = torch.full((1, 1), lip_ratio, device=x_s.device)
            x_d = x_d + self.retargeting.lips(x_s, now, torch.zeros_like(now))
        return x_s, x_s + (x_d - x_s) * config.multiplier

    def _motion(self, images: Tensor) -> Motion:
        """Motion of images [B, 3, 256, 256] in 0..1."""
        count = len(images)
        heads = self.motion.detector(images) if count == 1 else self._detect(self.full(images))
        return motion_of(heads)[slice(count)]

    def _levels(self, frames: Frames) -> Tensor:
        return torch.tensor(frames).to(self.device).permute(0, 3, 1, 2).float()

    def _driving_box(self, driving: Frames) -> npt.NDArray[np.float64] | None:
        """The square crop of a non-square driving clip, around its face in all frames."""
        if not self.config.crop or self.faces is None or driving.shape[1] == driving.shape[2]:
            return None
        points = _found(self.faces, driving, "the driving clip")[:, [*POINTS_68]]
        detected = points[~np.isnan(points).any(axis=(1, 2))]
        return crop.average_box(np.stack([crop.driving_box(frame, crop.LAYOUT_68) for frame in detected]))

    def _finish(self, crops: Tensor, picture: Tensor, matrix: npt.NDArray[np.float32] | None) -> Tensor:
        if matrix is None or not self.config.paste_back:
            return crops
        return crop.paste(crops, picture, matrix).clamp(0, 255).floor()


def _found(faces: FacePoints, frames: Frames, whose: str) -> npt.NDArray[np.float64]:
    try:
        return faces.of(frames)
    except NoFaceError as error:
        raise NoFaceError(f"{whose}: {error}") from None


def seen(picture: Tensor, matrix: npt.NDArray[np.float32] | None) -> Tensor:
    """Network input for a source [1, 3, H, W] in grey levels, cropped or whole: [1, 3, 256, 256] in 0..1."""
    if matrix is None:
        return _shrunk(picture) / 255
    cut = crop.warp(picture, matrix, (crop.SIDE, crop.SIDE)).round()
    return _rounded(F.avg_pool2d(cut, crop.SIDE // SIZE)) / 255


def seen_driving(frames: Tensor, box: npt.NDArray[np.float64] | None) -> Tensor:
    """Network input for driving frames [B, 3, H, W], cropped to a box or whole: [B, 3, 256, 256] in 0..1."""
    if box is not None:
        frames = crop.warp(frames, crop.box_matrix(box), (crop.SIDE, crop.SIDE)).round()
    return _shrunk(frames) / 255


def _shrunk(levels: Tensor) -> Tensor:
    """Bilinear resizing with pixel centres, without smoothing, as the original does with OpenCV."""
    if levels.shape[-2:] == (SIZE, SIZE):
        return levels
    return _rounded(F.interpolate(levels, size=(SIZE, SIZE), mode="bilinear", align_corners=False))


def _rounded(levels: Tensor) -> Tensor:
    """Round to the nearest whole level, halves up."""
    return (levels + 0.5).floor()


def _frames(levels: Tensor, size: tuple[int, int]) -> Frames:
    """Grey levels [B, 3, H, W] -> uint8[B, *size, 3]: area averages for reduction, bilinear for enlargement."""
    have = (levels.shape[-2], levels.shape[-1])
    if have != size:
        smaller = size[0] <= have[0] and size[1] <= have[1]
        levels = _rounded(
            F.interpolate(levels, size=size, mode="area")
            if smaller
            else F.interpolate(levels, size=size, mode="bilinear", align_corners=False)
        )
    frames: Frames = levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return frames
