"""Fitting a parametric head to landmarks: one identity per clip; expression, rotation and translation per frame.

The paper's mesh errors rest on such a fit (Appendix C, after Wood et al., "3D face reconstruction with dense
landmarks", ECCV 2022). This one minimises, with a pinhole camera and pixels of a frame of 256 pixels,

    mean over frames of [ sum over landmarks w huber(projected - seen) + l1 sum(psi) + l2 |psi - psi0|^2 ]
    + prior |beta - beta0|^2

by Levenberg-Marquardt over all frames at once; beta0 and psi0 are prior means. The unknowns of a frame do not affect
other frames, so they are eliminated (Schur complement), which leaves one small system for the identity. Expression
coefficients stay within 0..1: those at a bound that the gradient pushes outwards are fixed for the step. NumPy only, in
float64, and one clip at a time, so that a result depends neither on other clips nor on their order, and is
reproducible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Expected", "FitOptions", "HeadFit", "LandmarkBasis", "fit_clip"]

Floats = npt.NDArray[np.float64]

SIDE = 256.0
"""Scale of the fit: pixels of a frame whose longer side is 256."""
CURVATURE = np.float32
CHUNK = 8
"""Frames whose derivatives are in memory at once: bounds the memory, and fits a CPU's cache."""
KEPT = 512
"""Maximum number of frames for which the normal equations are cached for another attempt (80 kB per frame)."""
POSE = 6
"""Unknowns of a frame before its expression: rotation and translation."""
START = 0.02
"""Initial expression coefficients, away from the bound, so that none is fixed at the start."""
GIVE_UP = 6
"""Number of consecutive rejected steps after which the fit ends."""


@dataclass(frozen=True)
class LandmarkBasis:
    """Mean and modes of a head at the landmark points. Millimetres; x right, y down, z away from the camera."""

    mean: Floats
    """float64[N, 3]"""
    identity: Floats
    """float64[K, N, 3], for coefficients of unit variance"""
    expression: Floats
    """float64[E, N, 3], for coefficients in 0..1"""
    weight: Floats
    """float64[N], of mean 1"""


@dataclass(frozen=True)
class FitOptions:
    """Weights of the fit, in squared pixels of a 256-pixel frame, and stopping criteria."""

    focal: float = 900.0
    """Focal length in pixels of a 256-pixel frame."""
    huber: float = 3.0
    """Residuals above this many pixels count linearly."""
    identity_prior: float = 10.0
    expression_l1: float = 2.0
    expression_l2: float = 5.0
    iterations: int = 13
    tolerance: float = 1e-4
    """Relative decrease of the cost below which the fit ends."""


@dataclass(frozen=True)
class Expected:
    """Prior means for a clip of T frames."""

    identity: Floats
    """float64[K]"""
    expression: Floats
    """float64[T, E] in 0..1"""


@dataclass(frozen=True)
class HeadFit:
    """A fitted clip of T frames. Frames without a fit are NaN, and False in `valid`."""

    identity: Floats
    """float64[K]"""
    expression: Floats
    """float64[T, E] in 0..1"""
    rotation: Floats
    """float64[T, 3, 3]: camera = rotation @ model + translation"""
    translation: Floats
    """float64[T, 3] in mm"""
    reprojection: Floats
    """float64[T]: mean distance over the landmarks in pixels of a 256-pixel frame, unweighted"""
    valid: npt.NDArray[np.bool_]
    """bool[T]"""
    iterations: int


@dataclass(frozen=True)
class _State:
    identity: Floats  # [K]
    expression: Floats  # [F, E]
    rotation: Floats  # [F, 3, 3]
    translation: Floats  # [F, 3]


def fit_clip(
    basis: LandmarkBasis,
    points: npt.NDArray[np.floating],
    size: tuple[int, int],
    options: FitOptions | None = None,
    weight: npt.NDArray[np.floating] | None = None,
    expected: Expected | None = None,
) -> HeadFit:
    """Fit one clip.

    `points` [T, N, 2] or [T, N, 3] are in pixels of frames of `size` (height, width), for the N points of `basis` (a
    third coordinate is ignored). `weight` [T, N] replaces the weights of the basis if they differ between frames. The
    priors have means `expected`, or the mean face at rest. Frames with non-finite values are skipped. Raises
    `ValueError` if the shapes do not match or no frame is left.
    """
    options = options or FitOptions()
    if points.ndim != 3 or points.shape[1] != len(basis.mean) or points.shape[2] not in (2, 3):
        raise ValueError(f"points must be [T, {len(basis.mean)}, 2], not {list(points.shape)}")
    if weight is not None and weight.shape != points.shape[:2]:
        raise ValueError(f"weight must be {list(points.shape[:2])}, not {list(weight.shape)}")
    scale = SIDE / max(size)
    centre = np.array([size[1], size[0]], np.float64) / 2
    target = (points[:, :, :2].astype(np.float64) - centre) * scale
    valid: npt.NDArray[np.bool_] = np.asarray(np.isfinite(target).all(axis=(1, 2)))
    if weight is not None:
        valid &= np.isfinite(weight).all(axis=1)
    if not valid.any():
        raise ValueError("no frame has landmarks")
    frame_weight = None if weight is None else np.ascontiguousarray(weight[valid], np.float64)
    if expected is None:
        expected = Expected(np.zeros(len(basis.identity)), np.zeros((len(points), len(basis.expression))))
    prior = Expected(expected.identity, expected.expression[valid])
    solver = _Solver(basis, np.ascontiguousarray(target[valid]), frame_weight, options, prior)
    state, iterations = solver.solve()
    return HeadFit(
        identity=state.identity,
        expression=_spread(state.expression, valid),
        rotation=_spread(state.rotation, valid),
        translation=_spread(state.translation, valid),
        reprojection=_spread(solver.distances(state), valid),
        valid=valid,
        iterations=iterations,
    )


def _spread(values: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
    """Put the rows of the valid frames at their positions, NaN elsewhere."""
    rows = np.full((len(valid), *values.shape[1:]), np.nan)
    rows[valid] = values
    return rows


class _Solver:
    """The fit of one clip, all of whose frames have landmarks."""

    def __init__(
        self, basis: LandmarkBasis, seen: Floats, weight: Floats | None, options: FitOptions, expected: Expected
    ) -> None:
        self._basis, self._seen, self._options, self._expected = basis, seen, options, expected
        # one row for all frames, or one row per frame
        self._weight = basis.weight[None] if weight is None else weight
        self._identities = len(basis.identity)
        modes = np.concatenate([basis.expression, basis.identity])
        # axis first, then landmark: a derivative is then three scaled sums of whole planes
        # single precision suffices for the curvature: the solution is determined by the gradient and the cost
        self._modes = np.ascontiguousarray(modes.transpose(2, 1, 0), dtype=CURVATURE)
        self._flat_modes = np.ascontiguousarray(modes.reshape(len(modes), -1).T)
        # allocated once, since new memory of this size costs more than the arithmetic
        shape = (min(CHUNK, len(seen)), 2, len(basis.mean))
        self._jacobian = np.empty((*shape, POSE + len(modes)), CURVATURE)
        self._term = np.empty((*shape, len(modes)), CURVATURE)
        self._flat_expression = basis.expression.reshape(len(basis.expression), -1)
        self._kept: tuple[_State, list[tuple[Floats, Floats]]] | None = None

    def solve(self) -> tuple[_State, int]:
        """The best state and the number of steps."""
        options, state, damping = self._options, self._start(), 1e-3
        cost, steps, refused = self._cost(state), 0, 0
        while steps < options.iterations and refused < GIVE_UP:
            trial = self._step(state, damping)
            trial_cost = self._cost(trial)
            if not trial_cost < cost:  # also rejects NaN
                damping, refused = max(damping * 10, 1e-4), refused + 1
                continue
            gain = (cost - trial_cost) / cost
            state, cost, damping, steps, refused = trial, trial_cost, max(damping / 5, 1e-9), steps + 1, 0
            if gain < options.tolerance:
                break
        return state, steps

    def distances(self, state: _State) -> Floats:
        """Mean distance float64[F] between projected and observed landmarks."""
        distances = [
            np.linalg.norm(self._project(state, frames)[1] - self._seen[frames], axis=2).mean(axis=1)
            for frames in self._chunks()
        ]
        return np.concatenate(distances)

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, len(self._seen), CHUNK):
            yield slice(start, min(start + CHUNK, len(self._seen)))

    def _weight_of(self, frames: slice) -> Floats:
        """Weights float64[1 or f, N]"""
        return self._weight if len(self._weight) == 1 else self._weight[frames]

    def _start(self) -> _State:
        """The expected face in the pose of the mean face under scaled orthography: a closed-form solution per frame."""
        weight, mean = self._weight.sum(axis=0) / self._weight.sum(), self._basis.mean
        middle = np.einsum("n,tni->ti", weight, self._seen)
        centre = weight @ mean
        centred = (mean - centre) * weight[:, None]
        affine = np.linalg.solve(centred.T @ (mean - centre), centred.T @ (self._seen - middle[:, None]))
        left, scales, right = np.linalg.svd(affine.transpose(0, 2, 1), full_matrices=False)
        rows = left @ right
        rotation = np.stack([rows[:, 0], rows[:, 1], np.cross(rows[:, 0], rows[:, 1])], axis=1)
        scale = scales.mean(axis=1)
        front = np.concatenate([middle / scale[:, None], (self._options.focal / scale)[:, None]], axis=1)
        return _State(
            identity=self._expected.identity.copy(),
            expression=np.maximum(self._expected.expression, START),
            rotation=rotation,
            translation=front - rotation @ centre,
        )

    def _project(self, state: _State, frames: slice) -> tuple[Floats, Floats, Floats]:
        """Rotated points [f, N, 3] (before the translation), pixels [f, N, 2] and depths [f, N]."""
        face = self._basis.mean + np.tensordot(state.identity, self._basis.identity, 1)
        moved = (state.expression[frames] @ self._flat_expression).reshape(-1, *face.shape) + face
        turned = moved @ state.rotation[frames].transpose(0, 2, 1)
        posed = turned + state.translation[frames, None]
        depth = posed[:, :, 2]
        return turned, posed[:, :, :2] * (self._options.focal / depth)[:, :, None], depth

    def _cost(self, state: _State) -> float:
        options, total = self._options, 0.0
        for frames in self._chunks():
            _, pixels, depth = self._project(state, frames)
            if not (depth > 0).all():
                return float("inf")  # behind the camera
            distance = np.linalg.norm(pixels - self._seen[frames], axis=2)
            robust = np.where(distance < options.huber, distance**2, 2 * options.huber * distance - options.huber**2)
            weight = self._weight_of(frames)
            total += float((robust @ weight[0] if len(weight) == 1 else (robust * weight).sum(axis=1)).sum())
        total += options.expression_l1 * float(state.expression.sum())
        total += options.expression_l2 * float(((state.expression - self._expected.expression) ** 2).sum())
        offset = state.identity - self._expected.identity
        return total / len(self._seen) + options.identity_prior * float(offset @ offset)

    def _step(self, state: _State, damping: float) -> _State:
        """One damped Gauss-Newton step with the frames eliminated from the system of the identity."""
        count, prior = self._identities, self._options.identity_prior * len(self._seen)
        reduced = np.eye(count) * prior
        curvature = np.full(count, float(prior))
        slope = prior * (state.identity - self._expected.identity)
        frame_changes: list[Floats] = []
        coupled: list[Floats] = []
        for frames, (hessian, gradient) in zip(self._chunks(), self._all_equations(state), strict=True):
            free = self._free(state, frames, gradient)
            frame_hessian, shared = hessian[:, :-count, :-count], hessian[:, :-count, -count:]
            frame_hessian = np.where(free[:, :, None] & free[:, None, :], frame_hessian, 0.0)
            diagonal = np.arange(frame_hessian.shape[1])
            frame_hessian[:, diagonal, diagonal] *= 1 + damping
            frame_hessian[:, diagonal, diagonal] += np.where(free, 1e-9, 1.0)
            shared = np.where(free[:, :, None], shared, 0.0)
            slopes = np.where(free, gradient[:, :-count], 0.0)
            solved = np.linalg.solve(frame_hessian, np.concatenate([shared, slopes[:, :, None]], axis=2))
            flat = shared.reshape(-1, count)
            reduced += hessian[:, -count:, -count:].sum(axis=0) - flat.T @ solved[:, :, :-1].reshape(-1, count)
            curvature += np.einsum("tkk->k", hessian[:, -count:, -count:])
            slope = slope + gradient[:, -count:].sum(axis=0) - flat.T @ solved[:, :, -1].ravel()
            frame_changes.append(solved[:, :, -1])
            coupled.append(solved[:, :, :-1])
        reduced[np.diag_indices(count)] += damping * curvature
        shift = -np.linalg.solve(reduced, slope)
        change = -np.concatenate(frame_changes) - np.concatenate(coupled) @ shift
        return _State(
            identity=state.identity + shift,
            expression=np.clip(state.expression + change[:, POSE:], 0.0, 1.0),
            rotation=_rotations(change[:, :3]) @ state.rotation,
            translation=state.translation + change[:, 3:POSE],
        )

    def _free(self, state: _State, frames: slice, gradient: Floats) -> npt.NDArray[np.bool_]:
        """Mask bool[f, POSE + E] of free unknowns; false for those at a bound that would move beyond it."""
        expression = state.expression[frames]
        slope = gradient[:, POSE : POSE + expression.shape[1]]
        free = np.ones((len(expression), POSE + expression.shape[1]), bool)
        free[:, POSE:] = ~(((expression <= 0) & (slope > 0)) | ((expression >= 1) & (slope < 0)))
        return free

    def _all_equations(self, state: _State) -> Iterable[tuple[Floats, Floats]]:
        """The normal equations of every chunk. They are cached, since a rejected step needs those of the same state
        again, unless the clip is so long that memory matters more than time."""
        if self._kept is not None and self._kept[0] is state:
            return self._kept[1]
        equations = (self._normal_equations(state, frames) for frames in self._chunks())
        if len(self._seen) > KEPT:
            return equations
        self._kept = state, list(equations)
        return self._kept[1]

    def _normal_equations(self, state: _State, frames: slice) -> tuple[Floats, Floats]:
        """Gauss-Newton matrix [f, P, P] and gradient [f, P] of each frame's cost, P = POSE + E + K."""
        options = self._options
        turned, pixels, depth = self._project(state, frames)
        residual = pixels - self._seen[frames]
        distance = np.linalg.norm(residual, axis=2)
        robust = np.minimum(1.0, options.huber / np.maximum(distance, 1e-12))
        root = np.sqrt(self._weight_of(frames) * robust)
        length, points = depth.shape
        # derivative of a pixel's two coordinates by the point in space [f, 2, N, 3], weighted
        by_point = np.zeros((length, 2, points, 3))
        scaled = root / depth
        by_point[:, 0, :, 0] = by_point[:, 1, :, 1] = options.focal * scaled
        by_point[:, :, :, 2] = -(pixels * scaled[:, :, None]).transpose(0, 2, 1)
        jacobian = self._jacobian[:length]
        jacobian[..., :3] = _cross(turned[:, None], by_point)
        jacobian[..., 3:POSE] = by_point
        modes, term = jacobian[..., POSE:], self._term[:length]
        by_model = (by_point @ state.rotation[frames, None]).astype(jacobian.dtype)
        np.multiply(by_model[..., 0, None], self._modes[0], out=modes)
        for axis in (1, 2):
            np.multiply(by_model[..., axis, None], self._modes[axis], out=term)
            modes += term
        flat = jacobian.reshape(length, 2 * points, -1)
        hessian = (flat.transpose(0, 2, 1) @ flat).astype(np.float64)
        force = (by_point * (residual * root[:, :, None]).transpose(0, 2, 1)[..., None]).sum(axis=1)
        gradient = np.concatenate(
            [
                _cross(turned, force).sum(axis=1),
                force.sum(axis=1),
                (force @ state.rotation[frames]).reshape(length, -1) @ self._flat_modes,
            ],
            axis=1,
        )
        expression = np.arange(POSE, POSE + len(self._basis.expression))
        hessian[:, expression, expression] += options.expression_l2
        offset = state.expression[frames] - self._expected.expression[frames]
        gradient[:, expression] += options.expression_l1 / 2 + options.expression_l2 * offset
        return hessian, gradient


def _cross(one: Floats, other: Floats) -> Floats:
    """Cross product over the last axis, several times as fast as NumPy's."""
    x, y, z = one[..., 0], one[..., 1], one[..., 2]
    a, b, c = other[..., 0], other[..., 1], other[..., 2]
    return np.stack([y * c - z * b, z * a - x * c, x * b - y * a], axis=-1)


def _rotations(vectors: Floats) -> Floats:
    """Rotation matrices [F, 3, 3] of rotation vectors [F, 3] (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, 2, 1], cross[:, 0, 2], cross[:, 1, 0] = vectors.T
    cross -= cross.transpose(0, 2, 1)
    half = np.sinc(angle / (2 * np.pi))  # sin(a / 2) / (a / 2), exact at zero
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * (cross @ cross))
