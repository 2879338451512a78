"""Build `bcd_bench_faces/head_model/data/correspondence.npz`: the positions of the landmarker's points on the head
model.

    python plugins/faces/tools/fit_correspondence.py --renders 200

Random people with random expressions and poses are rendered and passed to the landmarker. Each of its points is
assigned the point of the model's surface whose projection is closest to it over all renders, by the mean truncated
squared distance, with the root mean square distance along an image axis as its sigma. The ten points of the irises are
excluded, since the model's face has no eyeballs. The same seed gives the same file on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.head_model.face_region import head_model_sha256
from bcd_bench_faces.head_model.model import PIVOT, HeadModel
from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker
from bcd_bench_faces.synthesis.renderer import FOCAL, RENDERER_VERSION, Actor
from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

SIDE = 256
FRAMES = 3
"""Frames per person, and the distance between them in the person's motion."""
APART = 20
LANDMARKS = 468
"""The first 468 points are on the skin."""
TRUNCATE = 10.0
"""Truncation of distances in mm: a landmark that missed a face altogether carries no further information."""
SHORTLIST = 1500
"""Candidates per landmark that are evaluated exactly: the closest by the plain mean squared distance."""


@dataclass(frozen=True)
class Shot:
    """Data of one render: landmarks float64[468, 2] and vertices of the face [V, 2], both in mm at its depth."""

    landmarks: Floats
    vertices: Floats


def candidates(triangles: Ints) -> tuple[Ints, Floats]:
    """Points of the surface as vertices int32[C, 3] and weights float64[C, 3]: corners, midpoints of edges, and four
    points inside every triangle. A corner is represented by its vertex repeated three times."""
    corners = np.unique(triangles)
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(sides), axis=0)
    groups = [
        (np.stack([corners] * 3, axis=1), (1.0, 0.0, 0.0)),
        (np.stack([edges[:, 0], edges[:, 1], edges[:, 0]], axis=1), (0.5, 0.5, 0.0)),
        *((triangles, inside) for inside in ((1, 1, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4))),
    ]
    vertices = np.concatenate([points for points, _ in groups])
    weights = np.concatenate([np.tile(np.array(w, float) / sum(w), (len(points), 1)) for points, w in groups])
    return vertices.astype(np.int32), weights


def assign(landmarks: Floats, projected: Floats) -> tuple[Ints, Floats]:
    """The closest candidate int32[N] and its sigma float64[N] in mm; landmarks [S, N, 2], candidates [S, C, 2]."""
    count = landmarks.shape[1]
    best, sigma = np.empty(count, np.int32), np.empty(count)
    # squared distances of all pairs by one product: |p - l|^2 = |p|^2 - 2 p l + a term that all candidates share
    flat, flat_landmarks = projected.transpose(1, 0, 2).reshape(projected.shape[1], -1), landmarks.transpose(0, 2, 1)
    rough = (flat**2).sum(axis=1)[:, None] - 2 * flat @ flat_landmarks.reshape(-1, count)
    for index in range(count):
        near = np.argsort(rough[:, index], kind="stable")[:SHORTLIST]
        square = ((projected[:, near] - landmarks[:, index, None]) ** 2).sum(axis=2)
        closest = int(np.argmin(np.minimum(square, TRUNCATE**2).mean(axis=0)))
        best[index], sigma[index] = near[closest], np.sqrt(square[:, closest].mean() / 2)
    return best, sigma


def shots(count: int, landmarker: FaceLandmarker) -> Iterator[Shot | None]:
    """`count` renders of the training split, `FRAMES` per person; None if no face was found."""
    model = HeadModel.load()
    for person in range(-(-count // FRAMES)):
        identity, motion = identity_of("train", person), motion_of("train", person, FRAMES * APART)
        indices = np.arange(min(FRAMES, count - person * FRAMES)) * APART
        expression, rotation = motion.expression[indices], motion.rotation[indices]
        translation = motion.translation[indices]
        frames = Actor(identity, look_of("train", person)).frames(expression, rotation, translation, SIDE)
        faces = model.vertices(identity, expression[:, model.expression_index])
        posed = (faces - PIVOT) @ rotation.transpose(0, 2, 1) + PIVOT + translation[:, None]
        for frame, vertices in zip(frames, posed.astype(np.float64), strict=True):
            detected = landmarker.detect(frame)
            if not detected:
                yield None
                continue
            depth = vertices[:, 2].mean()
            points = detected[0].points[:LANDMARKS, :2].astype(np.float64)
            yield Shot(
                landmarks=(points - SIDE / 2) * depth / FOCAL,
                vertices=vertices[:, :2] * depth / vertices[:, 2:],
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_output = (
        Path(__file__).resolve().parents[1] / "bcd_bench_faces" / "head_model" / "data" / "correspondence.npz"
    )
    parser.add_argument("--output", type=Path, default=default_output)
    parser.add_argument("--renders", type=int, default=200)
    options = parser.parse_args()
    landmarker = FaceLandmarker()
    results = []
    for shot in shots(options.renders, landmarker):
        results.append(shot)
        print(f"\r{len(results)} of {options.renders} renders", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    detected = [shot for shot in results if shot is not None]
    vertices, weights = candidates(HeadModel.load().triangles)
    landmarks = np.stack([shot.landmarks for shot in detected])
    projected = np.stack([np.einsum("ck,ckd->cd", weights, shot.vertices[vertices]) for shot in detected])
    best, sigma = assign(landmarks.astype(np.float32), projected.astype(np.float32))
    provenance = {
        "script": "fit_correspondence.py",
        "renders": len(results),
        "with_a_face": len(detected),
        "people": -(-options.renders // FRAMES),
        "split": "train",
        "renderer": RENDERER_VERSION,
        "landmarker": FACE_LANDMARKER.sha256,
        "head_model": head_model_sha256(),
    }
    np.savez_compressed(
        options.output,
        landmarks=np.arange(LANDMARKS, dtype=np.int16),
        vertices=vertices[best].astype(np.uint16),
        barycentric=weights[best].astype(np.float32),
        sigma=sigma.astype(np.float32),
        provenance=np.array(json.dumps(provenance)),
    )
    print(
        f"{options.output}: {options.output.stat().st_size} bytes; {len(detected)} of {len(results)} renders show faces"
    )
    print("sigma in mm:", {share: round(float(np.quantile(sigma, share)), 2) for share in (0.1, 0.5, 0.9, 1.0)})


if __name__ == "__main__":
    main()
