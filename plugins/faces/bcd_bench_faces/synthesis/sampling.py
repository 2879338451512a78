"""Samples the identity, appearance and motion of people, by seed, split and number alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.synthesis.appearance import Look, random_look

__all__ = ["FPS", "IDENTITY_LIMIT", "SEED", "Motion", "Split", "identity_of", "look_of", "motion_of"]

Split = Literal["train", "test"]
Floats = npt.NDArray[np.float32]

SEED: Final = 1
FPS: Final = 25.0
IDENTITY_LIMIT: Final = 2.5
"""Identity coefficients are standard normal, clipped to this limit, so that faces stay plausible."""
POSE: Final = {"yaw": 22.0, "pitch": 9.0, "roll": 6.0}
"""Degrees: the standard deviation of a clip's mean pose is half of it, that of rotations within a clip about 45 %."""
LARGE_SHARE: Final = 0.15
"""Fraction of clips with twice the yaw. Yaw never exceeds `YAW_LIMIT` degrees, pitch 22, roll 18."""
YAW_LIMIT: Final = 50.0
_SPLITS: Final = {"train": 0, "test": 1}
_STREAMS: Final = {"identity": 0, "look": 1, "motion": 2}

EMOTIONS: Final[dict[str, dict[str, float]]] = {
    "neutral": {},
    "joy": {"mouthSmile": 0.75, "cheekSquint": 0.5, "eyeSquint": 0.3, "mouthDimple": 0.25},
    "sadness": {"mouthFrown": 0.7, "browInnerUp": 0.8, "mouthShrugLower": 0.35},
    "surprise": {"browInnerUp": 0.7, "browOuterUp": 0.8, "eyeWide": 0.8, "jawOpen": 0.15},
    "anger": {"browDown": 0.9, "noseSneer": 0.4, "mouthPress": 0.5, "eyeSquint": 0.4},
    "disgust": {"noseSneer": 0.9, "mouthUpperUp": 0.5, "browDown": 0.4},
}
"""Actions of an emotion at full strength; names of two-sided actions omit the side."""
VISEMES: Final[tuple[dict[str, float], ...]] = (
    {"jawOpen": 0.42, "mouthLowerDown": 0.25, "mouthUpperUp": 0.15},
    {"jawOpen": 0.28, "mouthStretch": 0.35, "mouthLowerDown": 0.3},
    {"jawOpen": 0.16, "mouthFunnel": 0.6},
    {"jawOpen": 0.10, "mouthPucker": 0.75},
    {"mouthPress": 0.55, "mouthRollLower": 0.25, "mouthRollUpper": 0.15},
    {"jawOpen": 0.08, "mouthRollLower": 0.45, "mouthUpperUp": 0.3},
    {"jawOpen": 0.18, "mouthSmile": 0.25, "mouthStretch": 0.15},
)
"""Mouth shapes of speech: open, spread, rounded, pursed, closed, on the teeth, relaxed."""
_BLINK: Final = np.array([0.35, 0.9, 1.0, 0.85, 0.5, 0.2])


@dataclass(frozen=True, eq=False)
class Motion:
    """T frames of motion. A vertex v of the head moves to R (v - PIVOT) + PIVOT + t in the camera's frame."""

    expression: Floats
    """float32[T, 52] in 0..1, by the model's `bust_expression_names`."""
    rotation: Floats
    """float32[T, 3, 3]: rotation of the head, from the model's axes to the camera's."""
    translation: Floats
    """float32[T, 3] in mm."""

    def __len__(self) -> int:
        return len(self.expression)


def _generator(split: Split, number: int, stream: str) -> np.random.Generator:
    if number < 0:
        raise ValueError(f"people and motions are numbered from 0, not {number}")
    seed = np.random.SeedSequence((SEED, _SPLITS[split], number, _STREAMS[stream]))
    return np.random.Generator(np.random.PCG64(seed))


def identity_of(split: Split, person: int) -> Floats:
    """Identity coefficients float32[K]; the splits share no seed, so they share no person."""
    components = len(HeadModel.load().bust_identity)
    coefficients = _generator(split, person, "identity").standard_normal(components)
    return np.clip(coefficients, -IDENTITY_LIMIT, IDENTITY_LIMIT).astype(np.float32)


def look_of(split: Split, person: int) -> Look:
    """The appearance of a person."""
    return random_look(_generator(split, person, "look"))


def motion_of(split: Split, number: int, frames: int) -> Motion:
    """A motion: head pose, speech, blinks, gaze and an emotion."""
    rng = _generator(split, number, "motion")
    names = HeadModel.load().bust_expression_names
    actions: dict[str, npt.NDArray[np.float64]] = {name: np.zeros(frames) for name in names}
    rotation, translation = _pose(rng, frames)
    _speech(rng, actions, frames)
    _emotion(rng, actions, frames)
    _blinks(rng, actions, frames)
    _gaze(rng, actions, frames)
    actions["jawOpen"] = np.minimum(actions["jawOpen"], 0.65)
    expression = np.clip(np.stack([actions[name] for name in names], axis=1), 0, 1)
    return Motion(expression.astype(np.float32), rotation, translation)


def _smooth(rng: np.random.Generator, frames: int, seconds: float) -> npt.NDArray[np.float64]:
    """Noise of unit standard deviation that varies on a scale of about `seconds`."""
    width = seconds * FPS
    noise = gaussian_filter1d(rng.standard_normal(frames + 8 * int(np.ceil(width))), width)
    margin = 4 * int(np.ceil(width))
    return np.asarray(noise[margin : margin + frames] * np.sqrt(2 * np.sqrt(np.pi) * width))


def _pose(rng: np.random.Generator, frames: int) -> tuple[Floats, Floats]:
    wide = 2.0 if rng.uniform() < LARGE_SHARE else 1.0
    turns = []
    for axis, limit in (("yaw", YAW_LIMIT), ("pitch", 22.0), ("roll", 18.0)):
        spread = POSE[axis] * (wide if axis == "yaw" else 1.0)
        middle = rng.normal(0, 0.5 * spread)
        turn = middle + 0.45 * spread * _smooth(rng, frames, 0.35) + 0.06 * spread * _smooth(rng, frames, 0.1)
        turns.append(limit * np.tanh(turn / limit))
    rotation = Rotation.from_euler("yxz", np.stack(turns, axis=1), degrees=True).as_matrix()
    position = np.array([0.0, -16.0, 1120.0]) + rng.normal(0, 1, 3) * (9.0, 7.0, 55.0)
    drift = np.stack([_smooth(rng, frames, 0.4) for _ in range(3)], axis=1) * (4.0, 3.0, 9.0)
    return rotation.astype(np.float32), (position + drift).astype(np.float32)


def _add(actions: dict[str, npt.NDArray[np.float64]], name: str, amount: npt.NDArray[np.float64], skew: float) -> None:
    """Add to an action, or to its left and right versions with a small asymmetry `skew`."""
    if name in actions:
        actions[name] += amount
    else:
        actions[name + "Left"] += amount * (1 + skew)
        actions[name + "Right"] += amount * (1 - skew)


def _speech(rng: np.random.Generator, actions: dict[str, npt.NDArray[np.float64]], frames: int) -> None:
    """Syllables of 0.12 to 0.3 seconds, each a mouth shape that rises and falls; with pauses, or no speech at all."""
    talkative = rng.uniform(0.55, 1.1) if rng.uniform() < 0.85 else 0.0
    skew = rng.normal(0, 0.08)
    time, at = np.arange(frames) / FPS, -rng.uniform(0, 0.3)
    while at < frames / FPS:
        length = rng.uniform(0.12, 0.30)
        shape, strength = VISEMES[rng.integers(len(VISEMES))], rng.uniform(0.5, 1.15) * talkative
        swell = np.clip(1 - np.abs(time - at - length / 2) / (0.75 * length), 0, 1)
        for name, amount in shape.items():
            _add(actions, name, strength * amount * swell**2 * (3 - 2 * swell), skew)
        at += length + (rng.uniform(0.2, 0.6) if rng.uniform() < 0.08 else 0.0)


def _emotion(rng: np.random.Generator, actions: dict[str, npt.NDArray[np.float64]], frames: int) -> None:
    name = list(EMOTIONS)[rng.integers(len(EMOTIONS))]
    strength = np.clip(rng.uniform(0.2, 0.9) + 0.25 * _smooth(rng, frames, 0.5), 0, 1)
    skew = rng.normal(0, 0.1)
    for action, amount in EMOTIONS[name].items():
        _add(actions, action, amount * strength, skew)
    for action in ("browInnerUp", "browOuterUp", "browDown"):  # brows accompany speech
        _add(actions, action, np.clip(0.22 * _smooth(rng, frames, 0.25) - 0.08, 0, 1), skew)


def _blinks(rng: np.random.Generator, actions: dict[str, npt.NDArray[np.float64]], frames: int) -> None:
    lids = np.zeros(frames + 2 * len(_BLINK))
    at = rng.exponential(1.6) * FPS
    while at < frames:
        start = int(at) + len(_BLINK) - 2
        lids[start : start + len(_BLINK)] = np.maximum(lids[start : start + len(_BLINK)], _BLINK)
        at += (0.5 + rng.exponential(2.5)) * FPS
    lids = lids[len(_BLINK) : len(_BLINK) + frames]
    for side in ("Left", "Right"):
        actions["eyeBlink" + side] += lids
        actions["eyeWide" + side] *= 1 - lids
        actions["eyeSquint" + side] *= 1 - lids


def _gaze(rng: np.random.Generator, actions: dict[str, npt.NDArray[np.float64]], frames: int) -> None:
    """Fixations of 0.3 to 1.2 seconds with quick jumps between them. The wearer's left is the picture's right."""
    across, up = np.zeros(frames), np.zeros(frames)
    at, target = 0, rng.normal(0, (0.35, 0.2))
    while at < frames:
        stop = at + int(rng.uniform(0.3, 1.2) * FPS)
        across[at:stop], up[at:stop] = target
        at, target = stop, rng.normal(0, (0.45, 0.25))
    across, up = (np.clip(gaussian_filter1d(part, 0.7), -0.9, 0.9) for part in (across, up))
    actions["eyeLookOutLeft"] += np.clip(across, 0, 1)
    actions["eyeLookInRight"] += np.clip(across, 0, 1)
    actions["eyeLookInLeft"] += np.clip(-across, 0, 1)
    actions["eyeLookOutRight"] += np.clip(-across, 0, 1)
    for side in ("Left", "Right"):
        actions["eyeLookUp" + side] += np.clip(up, 0, 1)
        actions["eyeLookDown" + side] += np.clip(-up, 0, 1)
