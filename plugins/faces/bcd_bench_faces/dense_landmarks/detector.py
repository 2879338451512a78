"""Detection of the dense landmarks of the face in a frame: a first pass over the whole frame, then one or two closer
ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import block_diag
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.types.errors import UsageError
from bcd_bench_faces.dense_landmarks.crops import Square, square_around, take
from bcd_bench_faces.dense_landmarks.network import load_network, to_input
from bcd_bench_faces.dense_landmarks.points import DensePoints, displacements_of, with_mirror_images

__all__ = [
    "CERTAIN",
    "NARROW",
    "SHIPPED",
    "UNSURE",
    "DenseFace",
    "DenseLandmarker",
    "network_path",
    "network_sha256",
    "network_vertices",
]

SHIPPED: Final = Path(
    str(resources.files("bcd_bench_faces.dense_landmarks") / "weights" / "dense-landmarks.safetensors")
)
"""The weight file in this package."""
CERTAIN: Final = 0.5
"""Minimum probability that a crop shows a face. The last pass gives 0.97 or more in 1,008 frames of real clips, and
almost 0 for noise."""
UNSURE: Final = 0.037
"""Maximum mean predicted sigma of the points, relative to the longer side of the face; above it, the face is rejected.
It is 0.007 to 0.01 in test people, at most 0.035 in 1,008 frames of real clips, 0.023 in heads turned by 70 degrees,
and from 0.04 in heads that face away, for which the network still predicts a face with certainty."""
NARROW: Final = 0.11
"""Minimum mean distance of a point from its mirror image, relative to the longer side of the face; below it, the head
is turned too far. It is 0.25 and more in real clips, about 0.19 at 50 degrees, 0.13 at 70, and 0.10 from 80 on."""
NEAR: Final = 0.45
"""Fraction of a first pass's side below which a face needs a closer pass before the last one, which sees the crop and
its mirror image: faces that are smaller in a crop are not trained on (`augment.COARSE`)."""
SMALLEST: Final = 12.0
"""Minimum side of a square in pixels; smaller faces cannot be detected."""
SHIFTS: Final = (0.5, 0.25, 0.75)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DenseFace:
    """A face in one frame."""

    points: Floats
    """float64[N, 2]: x and y in pixels of the frame"""
    sigma: Floats
    """float64[N]: the predicted standard deviation along an axis, in pixels of the frame"""
    certainty: float
    """probability of a face, 0..1"""
    coefficients: Floats
    """float64[K + E]: predicted identity and expression coefficients, in the units of the head model"""


class _Look(NamedTuple):
    points: Floats
    sigma: Floats
    certainty: float
    coefficients: Floats


class DenseLandmarker:
    """The network in use, or that of a file, on the CPU. Frames are processed independently."""

    def __init__(self, path: Path | None = None) -> None:
        network, self.vertices, self.card = load_network(network_path() if path is None else path)
        self._side = network.config.side
        self.coefficient_count = network.config.coefficients
        points = with_mirror_images(self.vertices)
        self._mirror = torch.from_numpy(points.mirror).long()
        self._decoder = network.decoder.double().numpy()
        self._mirrored_decoder = mirrored_coefficients(points) @ self._decoder
        self._network = _fused(network)

    def detect(self, frame: npt.NDArray[np.uint8]) -> DenseFace | None:
        """The face of a frame uint8[H, W, 3] RGB, or None if there is none."""
        size = frame.shape[:2]
        for square in _first_squares(*size):
            look = self._look(frame, square)
            if look.certainty >= CERTAIN:
                break
        else:
            return None
        closer = square_around(look.points)
        if closer.side < NEAR * square.side and _sensible(closer, size):
            closer = square_around(self._look(frame, closer).points)
        if not _sensible(closer, size):
            return None
        points, sigma, certainty, coefficients = self._look(frame, closer, mirrored=True)
        face = np.ptp(points, axis=0).max()
        width = np.linalg.norm(points - points[self._mirror.numpy()], axis=1).mean()
        plausible = sigma.mean() <= UNSURE * face and width >= NARROW * face
        detected = certainty >= CERTAIN and plausible
        return DenseFace(points, sigma, certainty, coefficients) if detected else None

    @torch.inference_mode()
    def _look(self, frame: npt.NDArray[np.uint8], square: Square, *, mirrored: bool = False) -> _Look:
        """The prediction for one crop, or the average over it and its mirror image."""
        crop = take(frame, square, self._side)
        predicted = self._network(to_input(np.stack([crop, crop[:, ::-1]]) if mirrored else crop[None]))
        points, log_sigma, face = predicted.points[0], predicted.log_sigma[0], predicted.face[0]
        coefficients = self._decoder @ predicted.codes[0].double().numpy()
        if mirrored:
            flipped = predicted.points[1][self._mirror]
            flipped = torch.stack([self._side - flipped[:, 0], flipped[:, 1]], dim=1)
            points = (points + flipped) / 2
            log_sigma, face = (log_sigma + predicted.log_sigma[1][self._mirror]) / 2, (face + predicted.face[1]) / 2
            coefficients = (coefficients + self._mirrored_decoder @ predicted.codes[1].double().numpy()) / 2
        frame_points = np.asarray(square.to_picture(points.double().numpy(), self._side), np.float64)
        sigma = log_sigma.double().exp().numpy() * (square.side / self._side)
        return _Look(frame_points, sigma, float(torch.sigmoid(face.double())), coefficients)


def _first_squares(height: int, width: int) -> list[Square]:
    """Squares of the first pass: the whole frame, then squares of its shorter side, then of 0.6 of that."""
    long, short = max(height, width), min(height, width)
    squares = [Square(width / 2, height / 2, float(long))]
    sides = ([float(short)] if short < 0.9 * long else []) + [0.6 * short]
    for side in sides:
        for down in SHIFTS:
            for across in SHIFTS:
                x, y = side / 2 + (width - side) * across, side / 2 + (height - side) * down
                square = Square(x, y, side)
                if square not in squares:
                    squares.append(square)
    return squares


def _sensible(square: Square, size: tuple[int, ...]) -> bool:
    """Whether a square can contain a face of this frame: not tiny, not far larger, and with its centre inside."""
    height, width = size
    inside = 0 <= square.x <= width and 0 <= square.y <= height
    return inside and SMALLEST <= square.side <= 2.5 * max(height, width)


def mirrored_coefficients(points: DensePoints) -> Floats:
    """Matrix float64[K + E, K + E] that maps the coefficients of a face to those of its mirror image.

    Least squares over the points: the model's identities are closed under mirroring to 2 %, and so are its actions.
    """
    parts = (
        np.linalg.lstsq(moved.reshape(len(moved), -1).T, mirrored.reshape(len(moved), -1).T)[0]
        for moved, mirrored in displacements_of(points)
    )
    return np.asarray(block_diag(*parts))


def _fused(network: nn.Module) -> nn.Module:
    """The network with its normalisation fused into its convolutions: equal up to rounding, and faster."""
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, first), (after, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(first, second))
                setattr(module, after, nn.Identity())
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def network_path() -> Path:
    """The weight file in use: `BCD_BENCH_DENSE_LANDMARKS` if set, else the one in this package."""
    override = os.environ.get("BCD_BENCH_DENSE_LANDMARKS")
    return Path(override).expanduser() if override else SHIPPED


def network_sha256() -> str:
    """Hash of the weight file in use. Raises `UsageError` if it cannot be read."""
    return _sha256(network_path())


def network_vertices() -> npt.NDArray[np.int32]:
    """int32[N]: the vertices of the region that are the points of the network in use."""
    return load_network(network_path())[1]


@lru_cache(maxsize=4)
def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror})", hint="set or unset BCD_BENCH_DENSE_LANDMARKS"
        ) from None
