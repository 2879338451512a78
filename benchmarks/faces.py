"""All face metrics together: frames a second and where the time goes, against the obvious route; and memory.

    python benchmarks/faces.py speed [--pairs 2] [--repeat 3] [--reference-frames 2] [--unscaled]
    python benchmarks/faces.py memory [--clips 32] [--frames 10]

`speed` scores csim, shape-, motion- and cross-error, ard, auh and flicker on pairs of `heads-cross` (256 x 256, the
exact targets as outputs) as a run does: outputs are decoded from their files, every clip passes both landmarkers once,
and the features are written to an empty cache and read again. The reference looks at single frames: detection (by
MediaPipe's landmarker) and recognition (the same network, through insightface) one after another as insightface's
FaceAnalysis does, and `scipy.optimize.least_squares` for the fit to MediaPipe's points with Huber loss, bounds and our
stopping rule, once with its own numeric derivatives and once with exact ones. It is given `x_scale="jac"`, without
which it takes twenty times as many steps (`--unscaled` measures that too). The reference decodes and scores nothing.

`memory` scores many outputs, each with references of its own, in the blocks of a run. The first block loads the models,
so it is the second that the end is compared with.

Times are medians over the repeats, a repeat being the whole pass and the reference after one another: processor
seconds of all threads, which other work on the machine leaves alone, and wall seconds beside them.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bcd_bench.io.video import read_video, write_video_lossless
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import Registry, load_registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.scoring.features import BatchFeatures, FeatureStore
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_faces.fitting.levenberg_marquardt import START, FitOptions, HeadFit, LandmarkBasis, fit_clip
from bcd_bench_faces.head_model.correspondence import Correspondence
from bcd_bench_faces.head_model.face_region import load_face_model
from bcd_bench_faces.landmarks.alignment import five_points
from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker
from bcd_bench_faces.recognition.recogniser import find_model, session_of

METRICS = ("csim", "shape-error", "motion-error", "cross-error", "ard", "auh", "flicker")
STAGES = {
    "landmarks": "mediapipe-landmarks",
    "recognition": "arcface",
    "dense landmarks": "dense-landmarks",
    "mesh fit": "face-mesh",
}
"""In the order in which they need one another."""
ROLES = ("output", "content", "motion")
WAYS = {"numeric": (False, True), "exact": (True, True), "numeric, unscaled": (False, False)}
"""Of `least_squares`: whether derivatives are exact, and whether variables are scaled by them."""
BLOCK = 4
"""Pairs that a run scores at once at this size."""


class Clock:
    """Processor and wall seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, tuple[float, float]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        before = self.spent.get(name, (0.0, 0.0))
        self.spent[name] = before[0] + time.process_time() - cpu, before[1] + time.perf_counter() - wall


class Scorer:
    """The metrics, and a cache of features in `root` that `forget` empties; the models stay loaded."""

    def __init__(self, registry: Registry, root: Path) -> None:
        self.specs = [registry.metric(name) for name in METRICS]
        self.metrics = {spec.name: load_factory(spec.factory)() for spec in self.specs}
        for metric in self.metrics.values():
            metric.load("cpu")
        self._root = root
        self.store = FeatureStore(registry, device="cpu", root=root)

    def forget(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def score(self, pairs: Sequence[Pair], files: Sequence[Path], clock: Clock) -> list[Any]:
        """Rows of every metric, a stage after the other."""
        with clock.of("decoding"):
            outputs = [read_video(file) for file in files]
            references = [ref.load() for pair in pairs for ref in (pair.content, pair.motion)]
        with clock.of("hashing"):
            for clip in (*outputs, *references):
                _ = clip.sha256
        for stage, extractor in STAGES.items():
            with clock.of(stage):
                self.store.get(extractor, [*outputs, *references])
        with clock.of("scoring"):  # decodes the references again, as metrics that are scored one after another do
            features = BatchFeatures(self.store, pairs, outputs)
            rows = []
            for spec in self.specs:
                items = [
                    Scored(pair, clip, features.of(index, spec.extractors))
                    for index, (pair, clip) in enumerate(zip(pairs, outputs, strict=True))
                ]
                rows += self.metrics[spec.name].score(items)
        if failed := [row.reason for row in rows if isinstance(row, Failed)]:
            raise SystemExit(f"{len(failed)} values could not be had, the first: {failed[0]}")
        return rows


class OneFrame:
    """The fit of one frame as a problem for `least_squares`: the same camera, priors and bounds."""

    def __init__(self, basis: LandmarkBasis, seen: np.ndarray, start: HeadFit) -> None:
        """`seen` [N, 2] in pixels around the middle of a 256-pixel frame."""
        self._basis, self._seen, self._options = basis, seen, FitOptions()
        self._root = np.sqrt(basis.weight)[:, None]
        self._expressions, self._identities = len(basis.expression), len(basis.identity)
        self._modes = np.concatenate([basis.expression, basis.identity]).transpose(1, 2, 0)  # [N, 3, E + K]
        self._turned = start.rotation[0]
        moving = np.full(self._expressions, START)
        self.start = np.concatenate([np.zeros(3), start.translation[0], moving, np.zeros(self._identities)])
        self.low = np.full(len(self.start), -np.inf)
        self.high = -self.low
        self.low[6 : 6 + self._expressions], self.high[6 : 6 + self._expressions] = 0.0, 1.0

    def residuals(self, x: np.ndarray) -> np.ndarray:
        _, placed = self._placed(x)
        pixels = placed[:, :2] / placed[:, 2:] * self._options.focal
        expression = x[6 : 6 + self._expressions]
        one, two = self._options.expression_l1, self._options.expression_l2
        return np.concatenate(
            [
                (self._root * (pixels - self._seen)).ravel(),
                np.sqrt(two) * (expression + one / (2 * two)),  # both terms as one square
                np.sqrt(self._options.identity_prior) * x[6 + self._expressions :],
            ]
        )

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        turned, placed = self._placed(x)
        rotation = _turn(x[:3])[0] @ self._turned
        by_point = np.zeros((len(placed), 2, 3))
        by_point[:, 0, 0] = by_point[:, 1, 1] = self._options.focal / placed[:, 2]
        by_point[:, :, 2] = -placed[:, :2] / placed[:, 2:] ** 2 * self._options.focal
        by_point *= self._root[:, :, None]
        # of the vector of the turn: minus the cross product of the turned point, times the left Jacobian
        by_turn = np.cross(turned[:, None], by_point) @ _turn(x[:3])[1]
        by_modes = by_point @ (rotation @ self._modes)
        rows = np.concatenate([by_turn, by_point, by_modes], axis=2).reshape(2 * len(placed), -1)
        priors = np.sqrt([self._options.expression_l2] * self._expressions)
        priors = np.concatenate([priors, np.sqrt([self._options.identity_prior] * self._identities)])
        return np.concatenate([rows, np.concatenate([np.zeros((len(priors), 6)), np.diag(priors)], axis=1)])

    def error(self, x: np.ndarray) -> float:
        """Mean distance of the landmarks in pixels."""
        _, placed = self._placed(x)
        return float(np.linalg.norm(placed[:, :2] / placed[:, 2:] * self._options.focal - self._seen, axis=1).mean())

    def _placed(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = self._basis.mean + self._modes @ x[6:]
        turned = points @ (_turn(x[:3])[0] @ self._turned).T
        return turned, turned + x[3:6]


def _turn(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation matrix of a vector, and the left Jacobian of the map."""
    angle = max(float(np.linalg.norm(vector)), 1e-9)
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    square = cross @ cross
    sine, cosine = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
    return np.eye(3) + sine * cross + cosine * square, np.eye(3) + cosine * cross + (1 - sine) / angle**2 * square


class Obvious:
    """Frame by frame, each step by the tool that is known for it."""

    def __init__(self) -> None:
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX

        model = find_model().path
        self._landmarker = FaceLandmarker()
        self._network = ArcFaceONNX(str(model), session=session_of(model, "cpu"))
        where = Correspondence.load()
        self._landmarks, self._basis = where.landmarks, where.basis(load_face_model())

    def look(self, frames: np.ndarray, clock: Clock, ways: Sequence[str]) -> dict[str, list[float]]:
        """Reprojection errors in pixels by way, a key of `WAYS`."""
        from insightface.app.common import Face
        from scipy.optimize import least_squares

        errors: dict[str, list[float]] = {way: [] for way in ways}
        for frame in frames:
            with clock.of("detection"):
                points = self._landmarker.detect(frame)[0].points
            with clock.of("recognition"):
                self._network.get(frame[..., ::-1], Face(kps=five_points(points).astype(np.float32)))
            chosen = points[self._landmarks]
            start = fit_clip(self._basis, chosen[None], frame.shape[:2], FitOptions(iterations=0))
            problem = OneFrame(self._basis, chosen[:, :2] - np.array(frame.shape[1::-1]) / 2, start)
            for way in ways:
                exact, scaled = WAYS[way]
                with clock.of(way):
                    found = least_squares(
                        problem.residuals,
                        problem.start,
                        jac=problem.jacobian if exact else "2-point",
                        bounds=(problem.low, problem.high),
                        loss="huber",
                        f_scale=FitOptions().huber,
                        x_scale="jac" if scaled else 1.0,
                        ftol=FitOptions().tolerance,
                    )
                errors[way].append(problem.error(found.x))
        return errors


def speed(count: int, repeat: int, frames: int, ways: Sequence[str]) -> dict[str, Any]:
    registry = load_registry()
    pairs = list(load_suite(registry, "heads-cross", {}).pairs[:count])
    obvious = Obvious()
    with tempfile.TemporaryDirectory() as name:
        folder, targets, files = Path(name), list[Clip](), list[Path]()
        scorer = Scorer(registry, folder / "features")
        for pair in pairs:
            assert pair.target is not None
            targets.append(pair.target.load())
            files.append(folder / f"{pair.id}.mkv")
            write_video_lossless(files[-1], targets[-1])
        clips = [*targets, *(ref.load() for pair in pairs for ref in (pair.content, pair.motion))]
        if any(clip.frames.shape[1:3] != (256, 256) for clip in clips):
            raise SystemExit("the clips are not 256 x 256")
        passed = sum(len(clip) for clip in {clip.sha256: clip for clip in clips}.values())
        shown = np.concatenate([clip.frames[12:13] for clip in targets] * frames)[:frames]
        ours, theirs, errors = list[Clock](), list[Clock](), dict[str, list[float]]()
        fits = list[float]()
        scorer.score(pairs[:1], files[:1], Clock())
        obvious.look(shown[:1], Clock(), ())
        for _ in range(repeat):
            ours.append(Clock())
            scorer.forget()
            scorer.score(pairs, files, ours[-1])
            fits = [float(np.nanmean(fit["reprojection"])) for fit in scorer.store.get("face-mesh", targets)]
            theirs.append(Clock())
            errors = obvious.look(shown, theirs[-1], ways)
    found: dict[str, Any] = {
        "clips": len({clip.sha256 for clip in clips}),
        "frames": passed,
        "output_frames": sum(map(len, targets)),
        "reference_frames": len(shown),
    }
    for place, kind in enumerate(("cpu", "wall")):
        mine = _milliseconds(ours, passed, place)
        other = _milliseconds(theirs, len(shown), place)
        total = median(sum(spent[place] for spent in clock.spent.values()) for clock in ours)
        analysis = sum(mine[stage] for stage in STAGES)
        shared = other["detection"] + other["recognition"]
        found[kind] = {
            "ms_per_frame": {name: round(value, 2) for name, value in mine.items()},
            "frames_per_second": round(passed / total, 1),
            "output_frames_per_second": round(found["output_frames"] / total, 1),
            "reference_ms_per_frame": {name: round(value, 1) for name, value in other.items()},
            "times_as_fast": {way: round((shared + other[way]) / analysis, 1) for way in ways},
        }
    found["reprojection_px"] = {"ours, whole clips": round(float(np.mean(fits)), 3)}
    found["reprojection_px"] |= {way: round(float(np.mean(values)), 3) for way, values in errors.items()}
    return found


def _milliseconds(clocks: Sequence[Clock], frames: int, place: int) -> dict[str, float]:
    """Medians over the repeats, a frame."""
    return {name: 1e3 * median(clock.spent[name][place] for clock in clocks) / frames for name in clocks[0].spent}


class Shifted:
    """The start of a clip in other colours: one that no cache knows, from pixels that are there already."""

    def __init__(self, source: ClipRef, amount: int, frames: int) -> None:
        self._source, self._amount, self._frames = source, amount, frames

    def load(self) -> Clip:
        clip = self._source.load()
        return Clip(np.maximum(clip.frames[: self._frames], np.uint8(self._amount)), clip.fps)

    def describe(self) -> dict[str, Any]:
        return {"kind": "shifted", "amount": self._amount}


def memory(clips: int, frames: int) -> dict[str, Any]:
    """Peak memory after two blocks of outputs and after all of them."""
    registry = load_registry()
    [known] = load_suite(registry, "heads-cross", {}).pairs[:1]
    peaks = dict[str, int]()

    def ref(source: ClipRef, number: int) -> ClipRef:
        return ClipRef(f"{source.id}-{number}", Shifted(source, number, frames))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scorer = Scorer(registry, folder / "features")
        for start in range(0, clips, BLOCK):
            pairs, files = list[Pair](), list[Path]()
            for number in range(start, min(start + BLOCK, clips)):
                assert known.target is not None
                pairs.append(Pair(str(number), ref(known.content, number), ref(known.motion, number)))
                files.append(folder / f"{number}.mkv")
                write_video_lossless(files[-1], ref(known.target, number).load())
            scorer.score(pairs, files, Clock())
            done = min(start + BLOCK, clips)
            if done in (2 * BLOCK, clips):
                peaks[str(done)] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    few, *_, many = peaks.values()
    return {"frames_of_a_clip": frames, "peak_mb_by_outputs": peaks, "times_as_much": round(many / few, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory"))
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--reference-frames", type=int, default=2, help="single frames that the reference looks at")
    parser.add_argument("--unscaled", action="store_true", help="measure least_squares as it comes, too")
    parser.add_argument("--clips", type=int, default=32, help=f"outputs of memory, more than {2 * BLOCK}")
    parser.add_argument("--frames", type=int, default=10, help="frames of a clip of memory")
    given = parser.parse_args()
    if given.clips <= 2 * BLOCK:
        parser.error(f"--clips {given.clips}: more than {2 * BLOCK} are needed")
    ways = list(WAYS) if given.unscaled else list(WAYS)[:2]
    speeds = partial(speed, given.pairs, given.repeat, given.reference_frames, ways)
    print(json.dumps(speeds() if given.what == "speed" else memory(given.clips, given.frames), indent=1))


if __name__ == "__main__":
    main()
