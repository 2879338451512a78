"""Perturbations that require true parameters: a different identity, head pose or expression, by a known amount.

Each perturbation re-renders the pair's target with one parameter changed, so the mesh errors that should be measured
are known exactly: they are in the clip's `info`, computed from the true parameters by the same formulas (Appendix C).
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
from bcd_bench_faces.metrics.expression_and_pose import angle_differences
from bcd_bench_faces.metrics.mesh_errors import MEDIAPIPE
from bcd_bench_faces.metrics.vertex_errors import FaceModel, MotionErrors, Track, cross_errors, shape_error
from bcd_bench_faces.suites.synthetic_heads import FRAMES, TrueParameters, kept_clip, true_parameters
from bcd_bench_faces.synthesis.sampling import FPS, identity_of, look_of, motion_of

__all__ = ["true_errors", "wrong_expression", "wrong_identity", "wrong_pose"]

STRANGERS: Final = 1_000_000
"""First number of the people and motions that provide the wrong identity or expression; they are in no split."""


def wrong_identity(pair: Pair, dose: float, seed: int) -> Clip:
    """The target with its identity moved by the fraction `dose` (0 to 1) towards a stranger's."""
    true = _true(pair)
    stranger = identity_of("test", STRANGERS + _draw(pair, "identity", seed) % STRANGERS)
    return _drawn(pair, true, identity=(true.identity + dose * (stranger - true.identity)).astype(np.float32))


def wrong_pose(pair: Pair, dose: float, seed: int) -> Clip:
    """The target with its head rotated by a further `dose` degrees."""
    true = _true(pair)
    axis = np.random.default_rng(_draw(pair, "pose", seed)).standard_normal(3)
    turn = Rotation.from_rotvec(np.radians(dose) * axis / np.linalg.norm(axis)).as_matrix()
    return _drawn(pair, true, rotation=(turn @ true.rotation).astype(np.float32))


def wrong_expression(pair: Pair, dose: float, seed: int) -> Clip:
    """The target with its expression moved by the fraction `dose` (0 to 1) towards another clip's, frame by frame."""
    true = _true(pair)
    target_expression = motion_of("test", STRANGERS + _draw(pair, "expression", seed) % STRANGERS, FRAMES).expression
    mixed = true.bust_expression + dose * (target_expression - true.bust_expression)
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
    """The target of `pair` with the `changed` parameters instead of the true ones, and the resulting errors."""
    from bcd_bench_faces.synthesis.renderer import Actor

    target = _target(pair)
    split, person = target.labels["split"], int(target.labels["person"])
    size = int(target.source.arguments["size"])  # type: ignore[attr-defined]
    perturbed = replace(true, **changed)
    perturbed = replace(perturbed, expression=perturbed.bust_expression[:, HeadModel.load().expression_index])
    digest = hashlib.sha256(canonical_json([split, person]).encode())
    for part in (perturbed.identity, perturbed.bust_expression, perturbed.rotation, perturbed.translation):
        digest.update(np.ascontiguousarray(part).tobytes())

    def draw() -> npt.NDArray[np.uint8]:
        actor = Actor(perturbed.identity, look_of(split, person))  # type: ignore[arg-type]
        return actor.frames(perturbed.bust_expression, perturbed.rotation, perturbed.translation, size)

    clip = kept_clip(f"fault-{digest.hexdigest()[:32]}", size, draw)
    return Clip(clip.frames, FPS, target.id, {TRUTH_KEY: true_errors(true, perturbed)})


@lru_cache(maxsize=1)
def _face() -> FaceModel:
    """The face with all rendered identity components, not only the fitted ones."""
    model = HeadModel.load()
    return replace(load_face_model(), identity=model.identity.astype(np.float64))


def true_errors(true: TrueParameters, shown: TrueParameters) -> Mapping[str, float]:
    """Column -> value that should be measured for a clip with the parameters `shown` instead of the `true` ones."""
    face = _face()
    true_track, shown_track = (
        Track(parameters.expression.astype(np.float64), parameters.rotation.astype(np.float64))
        for parameters in (true, shown)
    )
    motion = MotionErrors.between(face, shown_track, true_track)
    true_identity, shown_identity = true.identity.astype(np.float64), shown.identity.astype(np.float64)
    errors = {
        "shape-error": shape_error(face, shown_identity, true_identity),
        "motion-error": motion.motion,
        "motion-rotation": motion.rotation,
        "motion-expression": motion.expression,
        "cross-error": float(cross_errors(face, true_identity, true_track, shown_identity, shown_track).mean()),
    }
    angles = float(angle_differences(shown_track.rotation, true_track.rotation).mean())
    return {
        **errors,
        **{name + MEDIAPIPE: value for name, value in errors.items()},
        "ard": motion.rotation,
        "apd-3ddfa-angle": motion.rotation,
        **dict.fromkeys(("apd-3ddfa", "apd-3ddfa-target"), angles),
        # Another unit than the columns': only ranks are compared.
        **dict.fromkeys(("aed-3ddfa", "aed-3ddfa-l2", "aed-3ddfa-target"), motion.expression),
    }
