"""Compare three ways to find landmarks for the mesh fit, on rendered heads with known truth and on real clips.

    python plugins/faces/tools/compare_landmarks.py --clips LRS3 --output results/validation/landmarks

`mediapipe` is MediaPipe's landmarker, `corrected` the same with a linear correction learned on renders of the training
split, and `dense` the shipped network. On test people of `heads-cross` every pair of clips has a true and a measured
error of each kind; on real clips there is no ground truth, so the report covers how well the fits match the landmarks,
whether both halves of a clip get the same identity, and where the dense points are relative to MediaPipe's. Writes
OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.atomic import write_json_atomic, write_text_atomic
from bcd_bench.io.video import read_video
from bcd_bench.statistics.intervals import area_under_curve
from bcd_bench.util.progress import open_progress
from bcd_bench_faces.dense_landmarks.detector import DenseLandmarker, network_path
from bcd_bench_faces.dense_landmarks.points import project
from bcd_bench_faces.fitting.extractor import DENSE_FIT, dense_basis, dense_expected, dense_weight
from bcd_bench_faces.fitting.levenberg_marquardt import SIDE, FitOptions, HeadFit, LandmarkBasis, fit_clip
from bcd_bench_faces.head_model.correspondence import Correspondence
from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.head_model.model import PIVOT, HeadModel
from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker
from bcd_bench_faces.metrics.vertex_errors import (
    FaceModel,
    Track,
    cross_errors,
    expression_errors,
    motion_errors,
    rotation_angles,
    shape_error,
)
from bcd_bench_faces.suites.synthetic_heads import FRAMES, draw_clip, true_parameters
from bcd_bench_faces.synthesis.renderer import FOCAL, Actor
from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of

Floats = npt.NDArray[np.float64]
Frames = npt.NDArray[np.uint8]
WAYS = ("mediapipe", "corrected", "dense")
COMPONENTS = 60
RIDGE = 0.03


@dataclass(frozen=True)
class Clip:
    """Frames with their detections; MediaPipe's points are float64[T, 468, 3]."""

    name: str
    person: str
    size: tuple[int, int]
    mediapipe: Floats
    dense: Floats
    sigma: Floats
    coefficients: Floats

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """bool[T]: frames in which both found a face."""
        return np.asarray(np.isfinite(self.mediapipe).all(axis=(1, 2)) & np.isfinite(self.dense).all(axis=(1, 2)))


class Correction:
    """MediaPipe's points corrected by a linear function of their shape, learned on renders by ridge regression."""

    def __init__(self, seen: Floats, true: Floats) -> None:
        """`seen` [S, 468, 3] are the measured points, `true` [S, 468, 2] the correct ones."""
        shapes, scale = _normalized(seen)
        self._mean = shapes.mean(axis=0)
        self._axes = np.linalg.svd(shapes - self._mean, full_matrices=False)[2][:COMPONENTS]
        targets = ((true - seen[:, :, :2]) / scale[:, None, None]).reshape(len(seen), -1)
        features = self._features(shapes)
        gram = features.T @ features + RIDGE * len(features) * np.diag((features**2).mean(axis=0))
        self._matrix = np.linalg.solve(gram, features.T @ targets)

    def __call__(self, seen: Floats) -> Floats:
        shapes, scale = _normalized(seen)
        moved = (self._features(shapes) @ self._matrix).reshape(len(seen), -1, 2) * scale[:, None, None]
        return np.asarray(seen[:, :, :2] + moved)

    def _features(self, shapes: Floats) -> Floats:
        return np.concatenate([(shapes - self._mean) @ self._axes.T, np.ones((len(shapes), 1))], axis=1)


def _normalized(seen: Floats) -> tuple[Floats, Floats]:
    centred = seen - seen.mean(axis=1, keepdims=True)
    scale = np.sqrt((centred[:, :, :2] ** 2).sum(axis=2).mean(axis=1))
    return (centred / scale[:, None, None]).reshape(len(seen), -1), scale


def surface_points(identity: Floats, expression: Floats, rotation: Floats, shift: Floats) -> Floats:
    """Positions float64[T, 468, 2] of the points that MediaPipe's landmarks represent, in pixels of 256 wide frames."""
    where = Correspondence.load()
    faces = HeadModel.load().vertices(identity, expression).astype(np.float64)
    points = np.einsum("nk,tnkd->tnd", where.barycentric, faces[:, where.vertices])
    posed = (points - PIVOT) @ rotation.astype(np.float64).transpose(0, 2, 1) + PIVOT + shift[:, None]
    return np.asarray(posed[:, :, :2] / posed[:, :, 2:] * FOCAL + 128)


def learn(renders: int, landmarker: FaceLandmarker) -> Correction:
    """Learn the correction from renders of the training split, three of each person."""
    index = HeadModel.load().expression_index
    measured, true = [], []
    with open_progress().task("renders for the correction", total=renders, unit="renders") as task:
        for person in range(500, 500 + renders // 3):
            motion = motion_of("train", person, 60)
            part = slice(0, 60, 20)
            identity = identity_of("train", person)
            frames = Actor(identity, look_of("train", person)).frames(
                motion.expression[part], motion.rotation[part], motion.translation[part], 256
            )
            truth = surface_points(
                identity, motion.expression[part][:, index], motion.rotation[part], motion.translation[part]
            )
            for frame, where in zip(frames, truth, strict=True):
                faces = landmarker.detect(frame)
                task.advance()
                if faces:
                    measured.append(faces[0].points[:468].astype(np.float64))
                    true.append(where)
    return Correction(np.array(measured), np.array(true))


def found(name: str, person: str, frames: Frames, mediapipe: FaceLandmarker, dense: DenseLandmarker) -> Clip:
    """A clip with both kinds of landmarks; NaN in frames without a face."""
    count = len(frames)
    points = np.full((count, 468, 3), np.nan)
    dense_points = np.full((count, len(dense.vertices), 2), np.nan)
    sigma = np.full((count, len(dense.vertices)), np.nan)
    coefficients = np.full((count, dense.coefficient_count), np.nan)
    for index, frame in enumerate(frames):
        faces, face = mediapipe.detect(frame), dense.detect(frame)
        if faces:
            points[index] = faces[0].points[:468]
        if face is not None:
            dense_points[index], sigma[index], coefficients[index] = face.points, face.sigma, face.coefficients
    return Clip(name, person, (frames.shape[1], frames.shape[2]), points, dense_points, sigma, coefficients)


class Fits:
    """Fits of a clip by each method."""

    def __init__(self, face: FaceModel, correction: Correction, vertices: npt.NDArray[np.int32]) -> None:
        self._correction, self._face = correction, face
        self._bases: Mapping[str, LandmarkBasis] = {
            "mediapipe": Correspondence.load().basis(face),
            "corrected": Correspondence.load().basis(face),
            "dense": dense_basis(face, vertices),
        }

    def points(self, way: str, clip: Clip, rows: npt.NDArray[np.bool_]) -> Floats:
        """Points float64[T, N, 2] of the selected frames."""
        if way == "dense":
            return clip.dense[rows]
        return clip.mediapipe[rows][:, :, :2] if way == "mediapipe" else self._correction(clip.mediapipe[rows])

    def fit(self, way: str, clip: Clip, rows: npt.NDArray[np.bool_]) -> HeadFit:
        """The fit of the selected frames."""
        points = self.points(way, clip, rows)
        if way == "dense":
            weight = dense_weight(clip.sigma[rows], clip.size)
            expected = dense_expected(self._face, clip.coefficients[rows])
            return fit_clip(self._bases[way], points, clip.size, DENSE_FIT, weight, expected)
        return fit_clip(self._bases[way], points, clip.size, FitOptions())


def on_renders(people: int, fits: Fits, look: Callable[[str, str, Frames], Clip], dense: DenseLandmarker) -> Any:
    """Errors against the ground truth, on two clips of each of some test people: their own motion, and another's."""
    face = load_face_model()
    full_face = replace(face, identity=HeadModel.load().identity.astype(np.float64))
    clips, truths = [], []
    with open_progress().task("rendered clips", total=2 * people, unit="clips") as task:
        for person in range(people):
            for motion in (person, (person + 1) % 60):
                clips.append(look(f"{person}-{motion}", str(person), draw_clip("test", person, motion, 256).frames))
                truths.append(true_parameters({"split": "test", "person": person, "motion": motion}))
                task.advance()
    tables: dict[str, Any] = {}
    for way in WAYS:
        distances, fitted, shape, turned, moved = [], [], [], [], []
        for clip, truth in zip(clips, truths, strict=True):
            rows = clip.usable
            fit = fits.fit(way, clip, rows)
            true_identity = truth.identity.astype(np.float64)
            exact = Track(truth.expression[rows].astype(np.float64), truth.rotation[rows].astype(np.float64))
            if way == "dense":
                where = project(
                    dense.vertices, true_identity, exact.expression, exact.rotation, truth.translation[rows]
                )
            else:
                where = surface_points(true_identity, exact.expression, exact.rotation, truth.translation[rows])
            distances.append(np.linalg.norm(fits.points(way, clip, rows) - where, axis=2).mean())
            padded = np.concatenate([fit.identity, np.zeros(len(true_identity) - len(fit.identity))])
            track = Track(fit.expression, fit.rotation)
            shape.append(shape_error(full_face, padded, true_identity))
            turned.append(rotation_angles(track, exact).mean())
            moved.append(expression_errors(face, track, exact).mean())
            fitted.append((padded, track, true_identity, exact, rows))
        tables[way] = {
            "points_px": float(np.mean(distances)),
            "shape_to_truth_mm2": float(np.mean(shape)),
            "rotation_to_truth_deg": float(np.mean(turned)),
            "expression_to_truth_mm2": float(np.mean(moved)),
            "spearman": _ranks(full_face, fitted),
        }
    used = int(sum(clip.usable.sum() for clip in clips))
    return {"clips": len(clips), "frames": len(clips) * FRAMES, "frames_used": used, "ways": tables}


def _ranks(face: FaceModel, fitted: list[Any]) -> dict[str, float]:
    """Spearman's correlation of measured and true errors over all pairs of clips."""
    measured: dict[str, list[float]] = {"shape": [], "motion": [], "rotation": [], "expression": [], "all": []}
    true: dict[str, list[float]] = {name: [] for name in measured}
    for i, (first, one_track, one_true, one_exact, one_rows) in enumerate(fitted):
        for two, two_track, two_true, two_exact, two_rows in fitted[:i]:
            both = one_rows & two_rows
            first_frames, second_frames = both[one_rows], both[two_rows]
            for table, identity, track, other_identity, other_track in (
                (measured, first, one_track.at(first_frames), two, two_track.at(second_frames)),
                (true, one_true, one_exact.at(first_frames), two_true, two_exact.at(second_frames)),
            ):
                if not np.array_equal(one_true, two_true):  # a person's distance to itself is always zero
                    table["shape"].append(shape_error(face, identity, other_identity))
                table["motion"].append(float(motion_errors(face, track, other_track).mean()))
                table["rotation"].append(float(rotation_angles(track, other_track).mean()))
                table["expression"].append(float(expression_errors(face, track, other_track).mean()))
                table["all"].append(float(cross_errors(face, identity, track, other_identity, other_track).mean()))
    return {name: float(spearmanr(measured[name], true[name]).statistic) for name in measured}


def on_clips(
    root: Path, frames: int, fits: Fits, look: Callable[[str, str, Frames], Clip], dense: DenseLandmarker
) -> Any:
    """Reprojection, identity of halves, and distance between the methods, on an LRS3-shaped tree of real clips."""
    face = load_face_model()
    paths = sorted(root.glob("*/*/*.mp4"))
    clips = []
    with open_progress().task("real clips", total=len(paths), unit="clips") as task:
        for path in paths:
            all_frames = read_video(path).frames
            indices = np.linspace(0, len(all_frames) - 1, min(frames, len(all_frames))).astype(int)
            clips.append(look(path.stem, path.parent.name, np.ascontiguousarray(all_frames[indices])))
            task.advance()
    missed = {
        "mediapipe": int(sum((~np.isfinite(clip.mediapipe).all(axis=(1, 2))).sum() for clip in clips)),
        "dense": int(sum((~np.isfinite(clip.dense).all(axis=(1, 2))).sum() for clip in clips)),
    }
    tables: dict[str, Any] = {}
    meshes: dict[str, list[HeadFit]] = {}
    for way in WAYS:
        halves, off = [], []
        for clip in clips:
            for half in (slice(0, frames // 2), slice(frames // 2, None)):
                rows = np.zeros(len(clip.mediapipe), bool)
                rows[half] = True
                rows &= clip.usable
                if rows.any():
                    fit = fits.fit(way, clip, rows)
                    halves.append((clip.name, clip.person, fit))
                    off.append(fit.reprojection.mean())
        meshes[way] = [fit for _, _, fit in halves]
        same, person, different = [], [], []
        for i, (name, subject, first) in enumerate(halves):
            for another, them, mediapipe_fit in halves[:i]:
                group = same if (name, subject) == (another, them) else person if subject == them else different
                group.append(shape_error(face, first.identity, mediapipe_fit.identity))
        tables[way] = {
            "reprojection_px_median": float(np.median(off)),
            "reprojection_px_max": float(np.max(off)),
            "shape_halves_mm2": float(np.mean(same)),
            "shape_people_mm2": float(np.mean(different)),
            "auc_halves": area_under_curve(different, same),
            "auc_clips_of_a_person": area_under_curve(different, person) if person else None,
        }
    where = Correspondence.load()
    gaps = []
    for clip in clips:
        rows = clip.usable
        fit = fits.fit("dense", clip, rows)
        faces = face.mean + np.tensordot(fit.identity, face.identity, 1)
        moved = faces + np.tensordot(fit.expression, face.expression, 1)
        points = np.einsum("nk,tnkd->tnd", where.barycentric, moved[:, where.vertices])
        posed = points @ fit.rotation.transpose(0, 2, 1) + fit.translation[:, None]
        scale = SIDE / max(clip.size)
        observed = (clip.mediapipe[rows][:, :, :2] - np.array(clip.size[::-1]) / 2) * scale
        gaps.append(np.linalg.norm(posed[:, :, :2] / posed[:, :, 2:] * FOCAL - observed, axis=2).mean())
    angles = [
        float(
            rotation_angles(
                Track(first.expression, first.rotation), Track(mediapipe_fit.expression, mediapipe_fit.rotation)
            ).mean()
        )
        for first, mediapipe_fit in zip(meshes["dense"], meshes["mediapipe"], strict=True)
    ]
    return {
        "clips": len(clips),
        "people": len({clip.person for clip in clips}),
        "frames": int(sum(len(clip.mediapipe) for clip in clips)),
        "frames_without_a_face": missed,
        "dense_fit_to_mediapipe_points_px": float(np.mean(gaps)),
        "dense_to_mediapipe_rotation_deg": float(np.mean(angles)),
        "ways": tables,
    }


def table(result: Mapping[str, Any]) -> str:
    """The comparison as markdown."""
    renders, real = result["renders"], result.get("clips")
    lines = [
        "# Landmarks for the mesh fit: three ways compared",
        "",
        f"Rendered test people ({renders['clips']} clips, {renders['frames']} frames at 256 x 256, of which "
        f"{renders['frames_used']} have a face by both): distances to the truth, and Spearman's correlation of "
        "measured and true error over all pairs of clips (shape: of different people).",
        "",
        "| | MediaPipe | MediaPipe, corrected | dense (ours) |",
        "| --- | --- | --- | --- |",
    ]
    rows: list[tuple[str, Any, Callable[[Any], Any]]] = [
        ("points to their true places (px)", renders, lambda way: way["points_px"]),
        ("fitted shape to the true one (mm²)", renders, lambda way: way["shape_to_truth_mm2"]),
        ("head pose to the true one (°)", renders, lambda way: way["rotation_to_truth_deg"]),
        ("expression to the true one (mm²)", renders, lambda way: way["expression_to_truth_mm2"]),
        *(
            (f"Spearman, {name}", renders, lambda way, name=name: way["spearman"][name])  # type: ignore[misc]
            for name in ("shape", "motion", "rotation", "expression", "all")
        ),
    ]
    lines += [_line(title, part, value) for title, part, value in rows]
    if real is not None:
        missed = real["frames_without_a_face"]
        lines += [
            "",
            f"Real clips ({real['clips']} clips of {real['people']} people, {real['frames']} frames; without a face by "
            f"MediaPipe {missed['mediapipe']}, by ours {missed['dense']}), halves of clips fitted apart. The fit to "
            f"the dense points passes MediaPipe's points at {real['dense_fit_to_mediapipe_points_px']:.2f} px on "
            f"average, and its head poses are {real['dense_to_mediapipe_rotation_deg']:.1f}° from those of the other.",
            "",
            "| | MediaPipe | MediaPipe, corrected | dense (ours) |",
            "| --- | --- | --- | --- |",
            _line("reprojection, median (px)", real, lambda way: way["reprojection_px_median"]),
            _line("reprojection, largest (px)", real, lambda way: way["reprojection_px_max"]),
            _line("shape, two halves of a clip (mm²)", real, lambda way: way["shape_halves_mm2"]),
            _line("shape, two people (mm²)", real, lambda way: way["shape_people_mm2"]),
            _line("AUC, halves of a clip against people", real, lambda way: way["auc_halves"]),
            _line("AUC, clips of a person against people", real, lambda way: way["auc_clips_of_a_person"]),
        ]
    origin = result["made_by"]
    lines += [
        "",
        f"Made by `plugins/faces/tools/compare_landmarks.py`; network sha256 {origin['network'][:12]}…, "
        f"{origin['steps']} training steps; correction from {origin['correction_renders']} renders of the "
        "training split.",
        "",
    ]
    return "\n".join(lines)


def _line(title: str, part: Mapping[str, Any], value: Callable[[Any], Any]) -> str:
    cells = [value(part["ways"][way]) for way in WAYS]
    return f"| {title} | " + " | ".join("" if cell is None else f"{cell:.3g}" for cell in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="an LRS3-shaped tree of real clips: split/person/clip.mp4")
    parser.add_argument("--people", type=int, default=12, help="test people, two clips each")
    parser.add_argument("--frames", type=int, default=24, help="frames per real clip, spread over it")
    parser.add_argument("--renders", type=int, default=300, help="renders that the correction is learned on")
    parser.add_argument("--network", type=Path, help="weights to use instead of those shipped")
    parser.add_argument("--output", type=Path, required=True, help="without suffix")
    options = parser.parse_args()
    mediapipe, dense = FaceLandmarker(), DenseLandmarker(options.network)
    fits = Fits(load_face_model(), learn(options.renders, mediapipe), dense.vertices)

    def look(name: str, person: str, frames: Frames) -> Clip:
        return found(name, person, frames, mediapipe, dense)

    result: dict[str, Any] = {"renders": on_renders(options.people, fits, look, dense)}
    if options.clips is not None:
        result["clips"] = on_clips(options.clips, options.frames, fits, look, dense)
    result["made_by"] = {
        "network": sha256_file(options.network or network_path()),
        "steps": dense.card["steps"],
        "correction_renders": options.renders,
    }
    write_json_atomic(options.output.with_suffix(".json"), json.loads(json.dumps(result)))
    write_text_atomic(options.output.with_suffix(".md"), table(result))
    print(table(result))


if __name__ == "__main__":
    main()
