"""The training split of the heads-cross suites: clips, targets of transfers, and points of the heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bcd_bench.types.clip import Clip
from bcd_bench_faces.head_model.model import PIVOT
from bcd_bench_faces.suites.synthetic_heads import FRAMES, actor_of, draw_clip, kept_clip
from bcd_bench_faces.synthesis.sampling import FPS, identity_of, motion_of

__all__ = ["HeadsTrainingClips", "draw_takes", "training_64", "training_128", "training_256", "wider_motion"]

TRAINING_PEOPLE: Final = 3_000
SECOND_TAKES: Final = 1_000_000
"""The second clip of training person n shows training motion n + this number, which no other clip shows."""


class HeadsTrainingClips:
    """Clips of the training split, person n with motion n; none of its people is in the test split."""

    fps = FPS

    def __init__(self, size: int, people: int = TRAINING_PEOPLE) -> None:
        """`people` is the size of the split; any number works, since people are sampled by number."""
        self._size, self._people = size, people

    def __len__(self) -> int:
        return self._people

    def clips(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8[B, 25, size, size, 3] RGB for B indices in 0..len-1. Raises IndexError for others."""
        self._check(indices)
        return np.stack([draw_clip("train", int(index), int(index), self._size).frames for index in indices])

    def takes(self, indices: Sequence[int], frames: int, stride: int) -> npt.NDArray[np.uint8]:
        """Same-identity clip pairs: two unrelated motions of each of B people, uint8[B, 2 * frames, size, size, 3].

        A clip is every `stride`-th frame of a second at 25 frames per second, from its start; the first one shows the
        motion of `clips`. They are rendered separately, so short clips cost less than whole ones. Raises IndexError for
        indices outside 0..len-1 and ValueError for clips longer than 25 frames.
        """
        self._check_takes(indices, frames, stride)
        return np.stack([draw_takes(int(index), frames, stride, self._size).frames for index in indices])

    def take_points(self, indices: Sequence[int], frames: int, stride: int) -> npt.NDArray[np.float32]:
        """Head points in the frames of `takes`, float32[B, 2 * frames, P, 2]: x and y in -1..1 from border to border;
        NaN if a point is turned away. Raises as `takes`.
        """
        from bcd_bench_faces.head_model.points import points_in_frames

        self._check_takes(indices, frames, stride)
        return np.stack(
            [points_in_frames(identity_of("train", int(i)), *_moves_of_takes(int(i), frames, stride)) for i in indices]
        )

    def crossed(
        self, contents: Sequence[int], drivers: Sequence[int], frames: int, stride: int
    ) -> npt.NDArray[np.uint8]:
        """The targets of transfers: every content's person with the motion of its driver, uint8[B, frames, size, size,
        3]: every `stride`-th frame, from the start. Not cached. Raises as `takes`.
        """
        self._check_takes([*contents, *drivers], frames, stride)
        clips = []
        for content, driver in zip(contents, drivers, strict=True):
            expression, rotation, translation = _move_of(int(driver), frames, stride)
            clips.append(actor_of("train", int(content)).frames(expression, rotation, translation, self._size))
        return np.stack(clips)

    def crossed_points(
        self, contents: Sequence[int], drivers: Sequence[int], frames: int, stride: int
    ) -> npt.NDArray[np.float32]:
        """Head points in the frames of `crossed`, as in `take_points`."""
        from bcd_bench_faces.head_model.points import points_in_frames

        self._check_takes([*contents, *drivers], frames, stride)
        return np.stack(
            [
                points_in_frames(identity_of("train", int(content)), *_move_of(int(driver), frames, stride))
                for content, driver in zip(contents, drivers, strict=True)
            ]
        )

    def random_points(
        self, people: Sequence[int], motions: Sequence[int], frames: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Positions float32[B, frames, P, 2] of all head points of people in training motions, in random frames, x and
        y in -1..1; and whether they face the camera, bool[B, frames, P].

        Frames depend on the motion only, and may be fewer than its 25. Every other motion is wider than those of the
        suite: other distances and places, stronger or more actions, further turns. Raises IndexError as `clips`.
        """
        from bcd_bench_faces.head_model.points import all_points_in_frames

        found = [
            all_points_in_frames(identity_of("train", int(person)), *wider_motion(int(motion), frames))
            for person, motion in zip(people, motions, strict=True)
        ]
        return np.stack([points for points, _ in found]), np.stack([facing for _, facing in found])

    def mean_points(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
        """The head points of the mean head, float32[P, 3] in mm relative to the joint of head and neck; the position
        float32[3] of this joint at rest, relative to the camera; and the focal length in half sides of a frame."""
        from bcd_bench_faces.head_model.points import REST, mean_points
        from bcd_bench_faces.synthesis.renderer import FOCAL

        return mean_points(), np.asarray(PIVOT + np.array(REST, np.float32), np.float32), FOCAL / 128

    def point_skinning(self) -> npt.NDArray[np.float32]:
        """Shares float32[P, 2] by which the head points turn with the head and with the neck; shoulders do not turn."""
        from bcd_bench_faces.head_model.points import point_skinning

        return point_skinning()

    def point_weights(self) -> npt.NDArray[np.float32]:
        """How much facial actions move every head point, float32[P] in 0..1: large for lids, brows and lips."""
        from bcd_bench_faces.head_model.points import expression_weights

        return expression_weights()

    @property
    def rest_points(self) -> npt.NDArray[np.float32]:
        """The points of `take_points` for the mean head at rest, float32[P, 2]."""
        from bcd_bench_faces.head_model.points import rest_points

        return rest_points()

    def _check_takes(self, indices: Sequence[int], frames: int, stride: int) -> None:
        self._check(indices)
        if not (frames > 0 < stride and (frames - 1) * stride < FRAMES):
            raise ValueError(f"{frames} frames with stride {stride} exceed the {FRAMES} frames of a clip")

    def _check(self, indices: Sequence[int]) -> None:
        for index in indices:
            if not 0 <= index < self._people:
                raise IndexError(f"training clip {index} is out of range: there are {self._people}")


def wider_motion(
    number: int, frames: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Expression, rotation and translation, as in `Motion`, of random frames of a training motion; of odd numbers wider
    than those of the suite."""
    move = motion_of("train", number, FRAMES)
    rng = np.random.default_rng([number, 7])
    chosen = np.sort(rng.choice(FRAMES, frames, replace=frames > FRAMES))
    expression, rotation, translation = (
        part[chosen].astype(np.float64) for part in (move.expression, move.rotation, move.translation)
    )
    if number % 2:
        translation += rng.normal(0, 1, 3) * (25.0, 20.0, 120.0)
        expression *= rng.uniform(0.6, 1.5)
        if number % 4 == 1:  # actions that no emotion or syllable has
            added = (rng.random(expression.shape[1]) < 0.06) * rng.uniform(0, 0.8, expression.shape)
            expression += added * (rng.random((frames, 1)) < 0.7)
        turn = Rotation.from_euler("yxz", rng.normal(0, 1, 3) * (10.0, 7.0, 7.0), degrees=True)
        rotation = turn.as_matrix() @ rotation
    parts = (np.clip(expression, 0, 1), rotation, translation)
    expression, rotation, translation = (part.astype(np.float32) for part in parts)  # type: ignore[assignment]
    return expression, rotation, translation  # type: ignore[return-value]


def _move_of(
    motion: int, frames: int, stride: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Expression, rotation and translation of a training motion, as in `Motion`: every `stride`-th frame."""
    move = motion_of("train", motion, FRAMES)
    frame_slice = slice(0, (frames - 1) * stride + 1, stride)
    return move.expression[frame_slice], move.rotation[frame_slice], move.translation[frame_slice]


def _moves_of_takes(person: int, frames: int, stride: int) -> list[npt.NDArray[np.float32]]:
    """Expression, rotation and translation of both clips of a training person, as in `Motion`."""
    moves = [motion_of("train", motion, FRAMES) for motion in (person, person + SECOND_TAKES)]
    frame_slice = slice(0, (frames - 1) * stride + 1, stride)
    parts = ("expression", "rotation", "translation")
    return [np.concatenate([getattr(move, part)[frame_slice] for move in moves]) for part in parts]


def draw_takes(person: int, frames: int, stride: int, size: int) -> Clip:
    """Both clips of a training person, concatenated; rendered or read from the cache."""

    def draw() -> npt.NDArray[np.uint8]:
        expression, rotation, translation = _moves_of_takes(person, frames, stride)
        return actor_of("train", person).frames(expression, rotation, translation, size)

    return kept_clip(f"train-{person:05d}-takes-{frames}x{stride}", size, draw, 2 * frames)


def training_64(data: Mapping[str, Path] | None = None) -> HeadsTrainingClips:
    """Training clips of `heads-cross-64`."""
    del data
    return HeadsTrainingClips(64)


def training_128(data: Mapping[str, Path] | None = None) -> HeadsTrainingClips:
    """Training clips of `heads-cross-128`."""
    del data
    return HeadsTrainingClips(128)


def training_256(data: Mapping[str, Path] | None = None) -> HeadsTrainingClips:
    """Training clips of `heads-cross`."""
    del data
    return HeadsTrainingClips(256)
