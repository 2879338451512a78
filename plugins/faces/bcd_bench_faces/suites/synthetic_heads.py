"""The suite `heads-cross`: rendered talking heads, with ground-truth targets and true parameters for every transfer.

A clip is (split, person, motion): the person's identity and appearance with that motion. Clip n of a split is person n
with motion n; the target of a pair is the content's person with the driving clip's motion, so it is exact by
construction.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.hashing import code_sha256
from bcd_bench.assets.store import cache_folder
from bcd_bench.metric_validation.perturbations import Perturbation
from bcd_bench.types.clip import Clip, ClipRef, Generated
from bcd_bench.types.errors import UsageError
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.suites.paper_results import DEFAULT_METRICS
from bcd_bench_faces.synthesis.sampling import FPS, Split, identity_of, look_of, motion_of

if TYPE_CHECKING:
    from bcd_bench_faces.synthesis.renderer import Actor

__all__ = [
    "FAULTS",
    "FRAMES",
    "SIZES",
    "TrueParameters",
    "actor_of",
    "draw_clip",
    "heads_suite",
    "kept_clip",
    "self_suite_128",
    "suite_64",
    "suite_128",
    "suite_256",
    "true_parameters",
]

VERSION: Final = "1"
"""Bump when the pairs or the pixels change."""
FRAMES: Final = 25
SIZES: Final = (64, 128, 256)
PEOPLE: Final = 60
"""Test people; each is content in as many pairs as `PARTNERS` has entries, and drives as many."""
PARTNERS: Final = (1, 23)
"""Person n gets the motions of persons n + 1 and n + 23 (modulo the number of people)."""
FAULTS: Final = (
    Perturbation(
        "wrong-identity",
        "share",
        (0.25, 0.5, 1.0),
        "The shape of the face moves towards a stranger's, in the same skin, hair and light.",
        ("identity",),
        "bcd_bench_faces.suites.synthetic_perturbations:wrong_identity",
    ),
    Perturbation(
        "wrong-pose",
        "°",
        (2.0, 5.0, 10.0, 20.0),
        "The head is turned about an axis drawn at random, the same in all frames.",
        ("motion",),
        "bcd_bench_faces.suites.synthetic_perturbations:wrong_pose",
    ),
    Perturbation(
        "wrong-expression",
        "share",
        (0.25, 0.5, 1.0),
        "The expression moves towards that of another clip.",
        ("motion",),
        "bcd_bench_faces.suites.synthetic_perturbations:wrong_expression",
    ),
)
"""Rendered by `synthetic_perturbations`, with the errors that metrics should measure."""
DRAW_CLIP: Final = "bcd_bench_faces.suites.synthetic_heads:draw_clip"
MANIFEST_NAME: Final = "bcd_bench_faces.heads:draw_clip"
"""Name of `DRAW_CLIP` in the manifest, independent of the module's name."""


def heads_suite(size: int) -> Suite:
    """120 pairs of 60 people at `size` x `size` pixels, 25 frames at 25 fps."""
    name = "heads-cross" if size == 256 else f"heads-cross-{size}"
    pairs = []
    for step in PARTNERS:
        for person in range(PEOPLE):
            driver = (person + step) % PEOPLE
            pairs.append(
                Pair(
                    id=f"{person:03d}-from-{driver:03d}",
                    content=clip_ref("test", person, person, size),
                    motion=clip_ref("test", driver, driver, size),
                    target=clip_ref("test", person, driver, size),
                )
            )
    summary = f"Rendered talking heads, {size}x{size}: 120 transfers between 60 people, with exact targets."
    return Suite(
        name,
        VERSION,
        tuple(pairs),
        (size, size),
        FPS,
        (*DEFAULT_METRICS, "target-psnr", "target-ssim"),
        1,
        summary,
        perturbations=FAULTS,
    )


def self_suite_128(data: Mapping[str, Path]) -> Suite:
    """`heads-self-128`: every test clip drives itself; requires no files."""
    del data
    references = [clip_ref("test", person, person, 128) for person in range(PEOPLE)]
    pairs = tuple(Pair(f"{n:03d}", reference, reference, reference) for n, reference in enumerate(references))
    metrics = ("csim", "motion-error", "target-psnr", "target-ssim", "coded-size")
    summary = "Rendered talking heads, 128x128: each of 60 test clips drives itself."
    return Suite("heads-self-128", VERSION, pairs, (128, 128), FPS, metrics, 1, summary)


def clip_ref(split: Split, person: int, motion: int, size: int) -> ClipRef:
    """Reference of a clip by its contents. Labels: subject, split, person, motion."""
    return ClipRef(
        id=f"{split}-{person:04d}-{motion:04d}",
        source=Generated(DRAW_CLIP, {"split": split, "person": person, "motion": motion, "size": size}, MANIFEST_NAME),
        labels={"subject": f"{split}-{person:04d}", "split": split, "person": person, "motion": motion},
        frames=FRAMES,
    )


def suite_64(data: Mapping[str, Path]) -> Suite:
    """`heads-cross-64`; requires no files."""
    del data
    return heads_suite(64)


def suite_128(data: Mapping[str, Path]) -> Suite:
    """`heads-cross-128`; requires no files."""
    del data
    return heads_suite(128)


def suite_256(data: Mapping[str, Path]) -> Suite:
    """`heads-cross`; requires no files."""
    del data
    return heads_suite(256)


@dataclass(frozen=True, eq=False)
class TrueParameters:
    """The parameters that a clip was rendered from, as in `HeadModel`."""

    identity: npt.NDArray[np.float32]
    """float32[K] standard deviations."""
    expression: npt.NDArray[np.float32]
    """float32[T, E] in 0..1, by `HeadModel.expression_names` (without gaze and tongue)."""
    bust_expression: npt.NDArray[np.float32]
    """float32[T, 52] in 0..1, by `HeadModel.bust_expression_names`."""
    rotation: npt.NDArray[np.float32]
    """float32[T, 3, 3]."""
    translation: npt.NDArray[np.float32]
    """float32[T, 3] in mm; a vertex v of the head is at R (v - PIVOT) + PIVOT + t relative to the camera."""

    def meshes(self) -> npt.NDArray[np.float32]:
        """The face region float32[T, V, 3] in mm in the camera's frame, as rendered (eyelids follow the gaze)."""
        model = HeadModel.load()
        posed = model.pose(model.bust(self.identity, self.bust_expression), self.rotation, self.translation)
        return np.asarray(posed[:, model.region])


def true_parameters(clip: ClipRef | Mapping[str, str | int]) -> TrueParameters:
    """The true parameters of a clip of a heads suite, by its reference or its labels.

    Raises `UsageError` for any other clip.
    """
    labels = clip.labels if isinstance(clip, ClipRef) else clip
    split, person, number = labels.get("split"), labels.get("person"), labels.get("motion")
    if split not in ("train", "test") or not isinstance(person, int) or not isinstance(number, int):
        raise UsageError("only clips of a heads-cross suite have true parameters")
    motion = motion_of(split, number, FRAMES)  # type: ignore[arg-type]
    return TrueParameters(
        identity=identity_of(split, person),  # type: ignore[arg-type]
        expression=motion.expression[:, HeadModel.load().expression_index],
        bust_expression=motion.expression,
        rotation=motion.rotation,
        translation=motion.translation,
    )


def draw_clip(split: Split, person: int, motion: int, size: int) -> Clip:
    """Render a clip, or read it from the cache; called by the `Generated` sources of the suites.

    Clips are cached losslessly in the cache folder, by the renderer's version and their contents. If the folder cannot
    be written, clips are re-rendered each time.
    """

    def draw() -> npt.NDArray[np.uint8]:
        move = motion_of(split, motion, FRAMES)
        return actor_of(split, person).frames(move.expression, move.rotation, move.translation, size)

    return kept_clip(f"{split}-{person:05d}-{motion:05d}", size, draw)


def kept_clip(name: str, size: int, draw: Callable[[], npt.NDArray[np.uint8]], length: int = FRAMES) -> Clip:
    """The cached clip of this name (which must include all that determines its pixels), else the result of `draw`."""
    from bcd_bench.io.video import read_video, write_video_lossless

    path = cache_folder() / "clips" / "heads" / f"{_renderer_key()}-{size}" / f"{name}.mkv"
    if path.is_file():
        with contextlib.suppress(UsageError):  # damaged: re-rendered and overwritten
            cached = read_video(path)
            if cached.frames.shape == (length, size, size, 3):
                return Clip(cached.frames, FPS, name)
    clip = Clip(draw(), FPS, name)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video_lossless(path, clip)
    return clip


@lru_cache(maxsize=4)
def actor_of(split: Split, person: int) -> Actor:
    """A person, ready to be rendered."""
    from bcd_bench_faces.synthesis.renderer import Actor

    return Actor(identity_of(split, person), look_of(split, person))


@lru_cache(maxsize=1)
def _renderer_key() -> str:
    """Version of the renderer and hash of the code and data that determine pixels: changed code uses no old clips."""
    from bcd_bench_faces.synthesis.renderer import RENDERER_VERSION

    digest = hashlib.sha256()
    package = resources.files("bcd_bench_faces")
    sources = [entry for entry in (package / "synthesis").iterdir() if entry.name.endswith(".py")]
    head_model = package / "head_model"
    model = [head_model / "model.py", head_model / "data" / "head_model.npz"]
    for entry in sorted([*sources, *model], key=lambda item: item.name):
        content = entry.read_bytes()
        digest.update(entry.name.encode() + (code_sha256(content).encode() if entry.name.endswith(".py") else content))
    return f"v{RENDERER_VERSION}-{digest.hexdigest()[:12]}"
