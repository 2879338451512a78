"""Faults that only a suite with true parameters can draw: another identity, head pose or expression, by a known amount.

Each fault redraws the pair's target with one parameter changed, so that what the mesh errors ought to read is known
exactly: it is in the clip's `info`, computed from the true parameters by the same formulas (Appendix C).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bcd_bench.assets.hashing import canonical_json
from bcd_bench.metric_validation.perturbations import TRUTH_KEY
from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.pair import Pair
from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.metrics.mesh_errors import MEDIAPIPE
from bcd_bench_faces.metrics.vertex_errors import FaceModel, MotionErrors, Track, cross_errors, shape_error
from bcd_bench_faces.suites.synthetic_heads import FRAMES, TrueParameters, kept_clip, true_parameters
from bcd_bench_faces.synthesis.sampling import FPS, identity_of, look_of, motion_of

__all__ = ["true_errors", "wrong_expression", "wrong_identity", "wrong_pose"]

STRANGERS: Final = 1_000_000
"""Who and what lends the wrong identity or expression is numbered from here on: nobody in any split."""


def wrong_identity(pair: Pair, dose: float, seed: int) -> Clip:
    """The target with `dose` (0 to 1) of the way from its identity to a stranger's."""
    true = _true(pair)
    stranger = identity_of("test", STRANGERS + _draw(pair, "identity", seed) % STRANGERS)
    return _drawn(pair, true, identity=(true.identity + dose * (stranger - true.identity)).astype(np.float32))


def wrong_pose(pair: Pair, dose: float, seed: int) -> Clip:
    """The target with its head turned by `dose` degrees more."""
    true = _true(pair)
    axis = np.random.default_rng(_draw(pair, "pose", seed)).standard_normal(3)
    turn = Rotation.from_rotvec(np.radians(dose) * axis / np.linalg.norm(axis)).as_matrix()
    return _drawn(pair, true, rotation=(turn @ true.rotation).astype(np.float32))


def wrong_expression(pair: Pair, dose: float, seed: int) -> Clip:
    """The target with `dose` (0 to 1) of the way from its expression to another clip's, frame by frame."""
    true = _true(pair)
    other = motion_of("test", STRANGERS + _draw(pair, "expression", seed) % STRANGERS, FRAMES).expression
    mixed = true.bust_expression + dose * (other - true.bust_expression)
    return _drawn(pair, true, bust_expression=mixed.astype(np.float32))


def _draw(pair: Pair, what: Literal["identity", "pose", "expression"], seed: int) -> int:
    return pair_seed(seed, f"wrong-{what}/{pair.id}")


def _target(pair: Pair) -> ClipRef:
    if pair.target is None:
        raise ValueError(f"pair {pair.id} has no target")
    return pair.target


def _true(pair: Pair) -> TrueParameters:
    return true_parameters(_target(pair))


def _drawn(pair: Pair, true: TrueParameters, **changed: npt.NDArray[np.float32]) -> Clip:
    """The target of `pair` with the `changed` parameters in place of the true ones, and the errors that makes."""
    from bcd_bench_faces.synthesis.renderer import Actor

    target = _target(pair)
    split, person = target.labels["split"], int(target.labels["person"])
    size = int(target.source.arguments["size"])  # type: ignore[attr-defined]
    shown = replace(true, **changed)
    shown = replace(shown, expression=shown.bust_expression[:, HeadModel.load().expression_index])
    digest = hashlib.sha256(canonical_json([split, person]).encode())
    for part in (shown.identity, shown.bust_expression, shown.rotation, shown.translation):
        digest.update(np.ascontiguousarray(part).tobytes())

    def draw() -> npt.NDArray[np.uint8]:
        actor = Actor(shown.identity, look_of(split, person))  # type: ignore[arg-type]
        return actor.frames(shown.bust_expression, shown.rotation, shown.translation, size)

    clip = kept_clip(f"fault-{digest.hexdigest()[:32]}", size, draw)
    return Clip(clip.frames, FPS, target.id, {TRUTH_KEY: true_errors(true, shown)})


@lru_cache(maxsize=1)
def _face() -> FaceModel:
    """The face with every identity component that is rendered, not just those that are fitted."""
    model = HeadModel.load()
    return replace(load_face_model(), identity=model.identity.astype(np.float64))


def true_errors(true: TrueParameters, shown: TrueParameters) -> Mapping[str, float]:
    """Column -> what it should read for a clip with the parameters `shown` in place of the `true` ones."""
    face = _face()
    wanted, found = (Track(one.expression.astype(np.float64), one.rotation.astype(np.float64)) for one in (true, shown))
    motion = MotionErrors.between(face, found, wanted)
    own, other = true.identity.astype(np.float64), shown.identity.astype(np.float64)
    errors = {
        "shape-error": shape_error(face, other, own),
        "motion-error": motion.motion,
        "motion-rotation": motion.rotation,
        "motion-expression": motion.expression,
        "cross-error": float(cross_errors(face, own, wanted, other, found).mean()),
    }
    return {**errors, **{name + MEDIAPIPE: value for name, value in errors.items()}, "ard": motion.rotation}
