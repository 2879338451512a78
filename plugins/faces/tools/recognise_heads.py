"""Check that rendered heads pass as people: detected by the landmarker, and distinguished by the face recogniser.

    python plugins/faces/tools/recognise_heads.py --sizes 64=60,128=60,256=60 --output results/validation/heads-identity

For each size (pixels=people) every test person of `heads-cross` is shown in two motions, the content clip and the
target of the person's first pair, with some frames spread over each. The value of two clips is that of `csim`: one is
the reference, the frames of the other are compared with it. The area under the curve is the probability that a person
in another motion is more similar to the reference than somebody else in their other motion. Intervals come from
resampling people with replacement; a pair of a person with itself never counts as two people. Writes OUTPUT.json and
OUTPUT.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.atomic import write_json_atomic, write_text_atomic
from bcd_bench.statistics.intervals import BOOTSTRAP_SEED, area_under_curve, rate_interval
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.landmarks.extractor import MediaPipeLandmarks
from bcd_bench_faces.metrics.csim import reference
from bcd_bench_faces.recognition.arcface import LANDMARKS, ArcFace
from bcd_bench_faces.recognition.recogniser import find_model
from bcd_bench_faces.suites.synthetic_heads import PEOPLE, SIZES, heads_suite
from bcd_bench_faces.synthesis.renderer import RENDERER_VERSION

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
WANTED = {"detected": 0.99, "auc": 0.95}


def similarities(references: Sequence[Floats], others: Sequence[npt.NDArray[np.float32]]) -> Floats:
    """float64[N, N]: the csim of person i's reference [D] and the frames [T, D] of person j's other clip."""
    similarity = np.empty((len(references), len(others)))
    for j, frames in enumerate(others):
        valid = frames[np.isfinite(frames).all(axis=1)].astype(np.float64)
        similarity[:, j] = (np.asarray(references) @ valid.T).mean(axis=1)
    return similarity


def area(values: Floats, drawn: npt.NDArray[np.intp] | None = None) -> float:
    """The area under the curve of `similarities`, or of a sample of people (indices, some of them repeated)."""
    drawn = np.arange(len(values)) if drawn is None else drawn
    table, different = values[np.ix_(drawn, drawn)], drawn[:, None] != drawn[None]
    return area_under_curve(np.diag(table), table[different])


def interval(values: Floats) -> tuple[float, float]:
    """The central 95 % of the areas of samples of people."""
    rng, count = np.random.default_rng(BOOTSTRAP_SEED), len(values)
    draws = (rng.integers(0, count, count) for _ in range(RESAMPLES))
    areas = [area(values, sample) for sample in draws if len(np.unique(sample)) > 1]
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def look(size: int, people: int, frames: int) -> dict[str, Any]:
    """The results for one size."""
    landmarks, arcface = MediaPipeLandmarks(), ArcFace()
    landmarks.load("cpu")
    arcface.load("cpu")
    hits, subjects = list[bool](), list[str]()
    references, other_clips = list[Floats](), list[npt.NDArray[np.float32]]()
    with open_progress().task(f"{size} x {size}", total=people, unit="people") as task:
        for pair in heads_suite(size).pairs[:people]:
            embeddings = []
            for ref in (pair.content, pair.target):
                assert ref is not None
                all_frames = ref.load().frames
                clip = Clip(all_frames[np.linspace(0, len(all_frames) - 1, frames).astype(int)], 25.0)
                features = landmarks.extract([clip])
                hits += (features[0]["faces"] > 0).tolist()
                subjects += [pair.cluster] * frames
                embeddings.append(np.asarray(arcface.extract([clip], {LANDMARKS: features})[0]["embeddings"]))
            mean = reference(embeddings[0])
            if mean is not None and np.isfinite(embeddings[1]).all(axis=1).any():
                references.append(mean)
                other_clips.append(embeddings[1])
            task.advance()
    if len(references) < 2:
        raise UsageError(
            f"{size} x {size}: a face was found in both clips of {len(references)} people; two are required"
        )
    values, rate = similarities(references, other_clips), rate_interval(np.array(hits, np.float64), subjects)
    return {
        "size": size,
        "people": people,
        "frames": len(hits),
        "frames_with_a_face": sum(hits),
        "detected": float(np.mean(hits)),
        "detected_interval": [rate.low, rate.high],
        "detected_interval_method": rate.method,
        "people_compared": len(references),
        "cosine_same": float(np.diag(values).mean()),
        "cosine_other": float(values[~np.eye(len(values), dtype=bool)].mean()),
        "auc": area(values),
        "auc_interval": list(interval(values)),
        "manifest_sha256": heads_suite(size).manifest_sha256,
    }


def table(result: Mapping[str, Any]) -> str:
    """The results as markdown."""
    origin = result["made_by"]
    lines = [
        "# Do rendered heads pass for people?",
        "",
        "Test people of `heads-cross` in two motions each. *Found*: frames in which MediaPipe's landmarker sees a face "
        f"(wanted: {WANTED['detected']:.0%}). *AUC*: the chance that the csim of a person in another motion is above "
        f"that of somebody else (wanted: {WANTED['auc']:g}). Brackets: 95 % intervals over people; where every frame "
        "has a face, Wilson's, which takes frames as independent. An AUC of 1 throughout says that none of these "
        "people is mistaken for another, not that nobody could be.",
        "",
        "| size | people | frames | found | csim, same person | csim, two people | AUC |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["sizes"]:
        detected, auc = row["detected_interval"], row["auc_interval"]
        lines.append(
            f"| {row['size']} | {row['people']} | {row['frames']} | {row['detected']:.1%} "
            f"[{detected[0]:.1%}, {detected[1]:.1%}] | {row['cosine_same']:.3f} | {row['cosine_other']:.3f} | "
            f"{row['auc']:.4f} [{auc[0]:.4f}, {auc[1]:.4f}] |"
        )
    lines += [
        "",
        f"Made by `plugins/faces/tools/recognise_heads.py`: renderer {origin['renderer']}, {origin['frames_a_clip']} "
        f"frames a clip, landmarker sha256 {origin['landmarker'][:12]}… under mediapipe {origin['mediapipe']}, "
        f"recogniser {origin['recogniser']} sha256 {origin['recogniser_sha256'][:12]}…",
        "",
    ]
    return "\n".join(lines)


def sizes_of(text: str) -> list[tuple[int, int]]:
    """(pixels, people) of "64=60,128=60". Raises `UsageError`."""
    try:
        sizes = [(int(size), int(people)) for size, people in (part.split("=") for part in text.split(","))]
    except ValueError:
        raise UsageError(f"--sizes {text}: must be pixels=people, such as 64=60,128=60") from None
    if any(size not in SIZES or not 2 <= people <= PEOPLE for size, people in sizes):
        raise UsageError(f"--sizes {text}: sizes are {', '.join(map(str, SIZES))}, people 2 to {PEOPLE}")
    return sorted(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64=60,128=60,256=60", help="pixels=people, separated by commas")
    parser.add_argument("--frames", type=int, default=5, help="number of frames used per clip")
    parser.add_argument("--output", type=Path, required=True, help="without suffix")
    options = parser.parse_args()
    model = find_model()
    result: dict[str, Any] = {
        "sizes": [look(size, people, options.frames) for size, people in sizes_of(options.sizes)],
        "made_by": {
            "renderer": RENDERER_VERSION,
            "frames_a_clip": options.frames,
            "landmarker": FACE_LANDMARKER.sha256,
            "mediapipe": version("mediapipe"),
            "recogniser": model.path.name,
            "recogniser_sha256": model.sha256,
        },
    }
    write_json_atomic(options.output.with_suffix(".json"), result)
    write_text_atomic(options.output.with_suffix(".md"), table(result))
    print(table(result))


if __name__ == "__main__":
    main()
