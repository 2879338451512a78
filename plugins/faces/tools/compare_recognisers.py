"""Compare the recognisers of `csim` and `csim-sface` on real clips: are two clips of one person more similar than of
two?

    python plugins/faces/tools/compare_recognisers.py --clips FOLDER --output results/validation/recognisers

FOLDER contains <person>/*.mp4 at any depth. The value of two clips is that of the metric: one clip is the reference,
the frames of the other are compared with it, using some frames spread over each. Each recogniser is run on faces
aligned by MediaPipe's landmarks and by our own dense ones. The area under the curve is the probability that another
clip of a person is more similar than a clip of somebody else. Intervals come from resampling people with replacement; a
person who is drawn twice does not count as two people. Since clips are separated too well for an area to rank the
methods, single frames (of different clips) are compared as well, and d', the distance of the two means divided by the
root mean square of the two standard deviations. Writes OUTPUT.json and OUTPUT.md.
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
from bcd_bench.io.video import read_video
from bcd_bench.statistics.intervals import BOOTSTRAP_SEED
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress
from bcd_bench_faces.dense_landmarks.extractor import DenseLandmarks
from bcd_bench_faces.landmarks.alignment import dense_five_points, five_points
from bcd_bench_faces.landmarks.extractor import MediaPipeLandmarks
from bcd_bench_faces.metrics.csim import reference
from bcd_bench_faces.recognition.arcface import embeddings_of
from bcd_bench_faces.recognition.recogniser import ArcFaceNetwork, find_model
from bcd_bench_faces.recognition.sface import SFACE_SHA256, SFaceNetwork

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
WAYS = {
    "csim": ("ArcFace", "MediaPipe's landmarks"),
    "csim-sface": ("SFace", "our dense landmarks"),
    "ArcFace, dense": ("ArcFace", "our dense landmarks"),
    "SFace, MediaPipe": ("SFace", "MediaPipe's landmarks"),
}
"""Name -> recogniser, and landmarks that align its crops; the first two are the metrics."""


def people_of(folder: Path) -> list[tuple[str, Path]]:
    """(person, clip) of every video. Raises `UsageError` if fewer than two people have clips."""
    clips = [(str(path.parent.relative_to(folder)), path) for path in sorted(folder.rglob("*.mp4"))]
    if len({person for person, _ in clips}) < 2:
        raise UsageError(f"{folder}: clips of at least two people are required, as <person>/*.mp4")
    return clips


def look(clips: Sequence[tuple[str, Path]], frames: int) -> list[dict[str, npt.NDArray[np.float32]]]:
    """The embeddings float32[frames, D] of every clip by the names of `WAYS`, NaN without a face."""
    mediapipe, dense = MediaPipeLandmarks(), DenseLandmarks()
    mediapipe.load("cpu")
    dense.load("cpu")
    networks: dict[str, ArcFaceNetwork | SFaceNetwork] = {
        "ArcFace": ArcFaceNetwork(find_model(), "cpu"),
        "SFace": SFaceNetwork("cpu"),
    }
    embeddings = []
    with open_progress().task("clips", total=len(clips), unit="clips") as task:
        for _, path in clips:
            images = read_video(path).frames
            images = np.ascontiguousarray(images[np.linspace(0, len(images) - 1, frames).astype(int)])
            clip = Clip(images, 25.0)
            points = {
                "MediaPipe's landmarks": (five_points, mediapipe.extract([clip])[0]["points"]),
                "our dense landmarks": (dense_five_points, dense.extract([clip])[0]["points"]),
            }
            five = {
                name: [find(landmarks) if np.isfinite(landmarks[0, 0]) else None for landmarks in all_points]
                for name, (find, all_points) in points.items()
            }
            embeddings.append(
                {
                    way: embeddings_of(networks[network], networks[network].width, images, five[by])
                    for way, (network, by) in WAYS.items()
                }
            )
            task.advance()
    return embeddings


def similarities(embeddings: Sequence[npt.NDArray[np.float32]]) -> Floats:
    """float64[N, N]: the metric's value with clip i as the content and clip j as the output; NaN without a face."""
    values = np.full((len(embeddings), len(embeddings)), np.nan)
    references = [reference(clip_embeddings) for clip_embeddings in embeddings]
    for j, clip_embeddings in enumerate(embeddings):
        valid = clip_embeddings[np.isfinite(clip_embeddings).all(axis=1)].astype(np.float64)
        for i, person in enumerate(references):
            if person is not None and len(valid):
                values[i, j] = (valid @ person).mean()
    return values


def separations(
    values: Floats, people: Sequence[str], clips: Sequence[int], draws: Sequence[npt.NDArray[np.intp]]
) -> list[tuple[float, float]]:
    """(area under the curve, d') for samples of people, given how often each (of the sorted names) was drawn.

    `values` [N, N] are of items that show `people` in `clips`; two items of one clip are never compared. A pair is
    weighted by the count of its person, or by the product of the counts of its two people.
    """
    _, person_index = np.unique(np.array(people), return_inverse=True)
    clip_index = np.array(clips)
    left, right = ((clip_index[:, None] != clip_index[None]) & np.isfinite(values)).nonzero()
    alike = person_index[left] == person_index[right]
    numbers = values[left, right]
    same, different = numbers[alike], np.sort(numbers[~alike])
    order = np.argsort(numbers[~alike], kind="stable")
    first_person, second_person, same_person = (
        person_index[left][~alike][order],
        person_index[right][~alike][order],
        person_index[left][alike],
    )
    first, last = (np.searchsorted(different, same, side=side) for side in ("left", "right"))
    results = []
    for counts in draws:
        same_weights, weights = (
            counts[same_person].astype(np.float64),
            (counts[first_person] * counts[second_person]).astype(np.float64),
        )
        below = np.concatenate([[0.0], np.cumsum(weights)])
        if not same_weights.sum() or not below[-1]:
            continue
        area = float((same_weights * (below[first] + below[last])).sum() / 2 / same_weights.sum() / below[-1])
        means = [float(np.average(samples, weights=w)) for samples, w in ((same, same_weights), (different, weights))]
        spread = [
            float(np.average((samples - mean) ** 2, weights=w))
            for samples, w, mean in ((same, same_weights, means[0]), (different, weights, means[1]))
        ]
        results.append((area, (means[0] - means[1]) / float(np.sqrt(np.mean(spread)))))
    return results


def row(name: str, embeddings: Sequence[npt.NDArray[np.float32]], people: Sequence[str]) -> dict[str, Any]:
    """The results of one method."""
    values, count = similarities(embeddings), len(set(people))
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    draws = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(RESAMPLES)]
    frames = np.concatenate(embeddings).astype(np.float64)
    clip_of_frame = np.repeat(np.arange(len(embeddings)), [len(one) for one in embeddings])
    figures: dict[str, Any] = {}
    for prefix, cosines, clips in (
        ("", values, np.arange(len(embeddings))),
        ("frame_", frames @ frames.T, clip_of_frame),
    ):
        subjects = [people[clip] for clip in clips]
        [(area, distance)] = separations(cosines, subjects, clips.tolist(), [np.ones(count, np.intp)])
        low, high = np.quantile(separations(cosines, subjects, clips.tolist(), draws), [0.025, 0.975], axis=0)
        figures |= {f"{prefix}auc": area, f"{prefix}auc_interval": [float(low[0]), float(high[0])]}
        figures |= {f"{prefix}d_prime": distance, f"{prefix}d_prime_interval": [float(low[1]), float(high[1])]}
    names = np.array(people)
    alike = names[:, None] == names[None]
    same, different = values[alike & ~np.eye(len(names), dtype=bool)], values[~alike]
    detected = np.concatenate([np.isfinite(rows).all(axis=1) for rows in embeddings])
    return {
        "way": name,
        "recogniser": WAYS[name][0],
        "aligned_by": WAYS[name][1],
        "frames": len(detected),
        "frames_with_a_face": int(detected.sum()),
        **figures,
        **{
            f"{prefix}_{how}": float(find(numbers))
            for prefix, numbers in (("same", same), ("other", different))
            for how, find in (("mean", np.nanmean), ("least", np.nanmin), ("most", np.nanmax))
        },
        "pairs_same": int(np.isfinite(same).sum()),
        "pairs_other": int(np.isfinite(different).sum()),
    }


def table(result: Mapping[str, Any]) -> str:
    """The results as markdown."""
    origin = result["made_by"]
    lines = [
        "# Do the recognisers tell real people apart?",
        "",
        f"{result['clips']} real clips of {result['people']} people, {origin['frames_a_clip']} frames a clip. *AUC*: "
        "the chance that another clip of a person is nearer to the content clip than a clip of somebody else. *AUC of "
        "frames*: the same of single frames of different clips. *d'*: the distance of the two means of single frames "
        "over the root mean square of the two standard deviations. In brackets 95 % intervals over people; an AUC of 1 "
        "says that nobody here is mistaken for another, not that nobody could be.",
        "",
        "| | recogniser | aligned by | frames with a face | AUC | AUC of frames | d' of frames | "
        "one person: mean, least | two people: mean, most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way in result["ways"]:
        intervals = {key: way[f"{key}_interval"] for key in ("auc", "frame_auc", "frame_d_prime")}
        lines.append(
            f"| {way['way']} | {way['recogniser']} | {way['aligned_by']} | {way['frames_with_a_face']} of "
            f"{way['frames']} | "
            + " | ".join(f"{way[key]:.4g} [{low:.4g}, {high:.4g}]" for key, (low, high) in intervals.items())
            + f" | {way['same_mean']:.3f}, {way['same_least']:.3f} | {way['other_mean']:.3f}, {way['other_most']:.3f} |"
        )
    lines += [
        "",
        f"{result['ways'][0]['pairs_same']} ordered pairs of clips of one person, {result['ways'][0]['pairs_other']} "
        "of two.",
        "",
        f"Made by `plugins/faces/tools/compare_recognisers.py`: ArcFace is {origin['recogniser']} sha256 "
        f"{origin['recogniser_sha256'][:12]}…, SFace sha256 {origin['sface_sha256'][:12]}…, mediapipe "
        f"{origin['mediapipe']}, onnxruntime {origin['onnxruntime']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of <person>/*.mp4")
    parser.add_argument("--frames", type=int, default=4, help="number of frames used per clip")
    parser.add_argument("--output", type=Path, required=True, help="without suffix")
    options = parser.parse_args()
    clips, model = people_of(options.clips), find_model()
    people = [person for person, _ in clips]
    embeddings = look(clips, options.frames)
    result: dict[str, Any] = {
        "clips": len(clips),
        "people": len(set(people)),
        "ways": [row(way, [clip_embeddings[way] for clip_embeddings in embeddings], people) for way in WAYS],
        "made_by": {
            "frames_a_clip": options.frames,
            "recogniser": model.path.name,
            "recogniser_sha256": model.sha256,
            "sface_sha256": SFACE_SHA256,
            "mediapipe": version("mediapipe"),
            "onnxruntime": version("onnxruntime"),
        },
    }
    write_json_atomic(options.output.with_suffix(".json"), result)
    write_text_atomic(options.output.with_suffix(".md"), table(result))
    print(table(result))


if __name__ == "__main__":
    main()
