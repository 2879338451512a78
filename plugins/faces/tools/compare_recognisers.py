"""Compare the recognisers of `csim` and `csim-sface` on real clips: are two clips of one person nearer than of two?

    python plugins/faces/tools/compare_recognisers.py --clips FOLDER --output results/validation/recognisers

FOLDER holds <person>/*.mp4 at any depth. The value of two clips is that of the metric: one clip gives the reference,
the frames of the other are compared with it, some frames spread over each. Each recogniser is tried on faces that are
aligned by MediaPipe's landmarks and by our own dense ones. The area under the curve is the chance that another clip of
a person is nearer than a clip of somebody else. Intervals come from drawing people with replacement; somebody who is
drawn twice is not two people. Since clips are told apart too well for an area to rank the ways, single frames (of
different clips) are compared as well, and d', the distance of the two means over the root mean square of the two
standard deviations. Writes OUTPUT.json and OUTPUT.md.
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
"""Name -> recogniser, and what aligns its crops; the first two are the metrics."""


def people_of(folder: Path) -> list[tuple[str, Path]]:
    """(person, clip) of every video. Raises `UsageError` where fewer than two people have clips."""
    found = [(str(path.parent.relative_to(folder)), path) for path in sorted(folder.rglob("*.mp4"))]
    if len({person for person, _ in found}) < 2:
        raise UsageError(f"{folder}: clips of two people at least are needed, <person>/*.mp4")
    return found


def look(clips: Sequence[tuple[str, Path]], frames: int) -> list[dict[str, npt.NDArray[np.float32]]]:
    """The embeddings float32[frames, D] of every clip by the names of `WAYS`, NaN where no face is found."""
    mediapipe, dense = MediaPipeLandmarks(), DenseLandmarks()
    mediapipe.load("cpu")
    dense.load("cpu")
    networks: dict[str, ArcFaceNetwork | SFaceNetwork] = {
        "ArcFace": ArcFaceNetwork(find_model(), "cpu"),
        "SFace": SFaceNetwork("cpu"),
    }
    found = []
    with open_progress().task("clips", total=len(clips), unit="clips") as task:
        for _, path in clips:
            shown = read_video(path).frames
            shown = np.ascontiguousarray(shown[np.linspace(0, len(shown) - 1, frames).astype(int)])
            clip = Clip(shown, 25.0)
            points = {
                "MediaPipe's landmarks": (five_points, mediapipe.extract([clip])[0]["points"]),
                "our dense landmarks": (dense_five_points, dense.extract([clip])[0]["points"]),
            }
            five = {
                name: [find(one) if np.isfinite(one[0, 0]) else None for one in given]
                for name, (find, given) in points.items()
            }
            found.append(
                {
                    way: embeddings_of(networks[network], networks[network].width, shown, five[by])
                    for way, (network, by) in WAYS.items()
                }
            )
            task.advance()
    return found


def similarities(embeddings: Sequence[npt.NDArray[np.float32]]) -> Floats:
    """float64[N, N]: the metric's value with clip i as the content and clip j as the output; NaN without a face."""
    values = np.full((len(embeddings), len(embeddings)), np.nan)
    references = [reference(one) for one in embeddings]
    for j, one in enumerate(embeddings):
        seen = one[np.isfinite(one).all(axis=1)].astype(np.float64)
        for i, person in enumerate(references):
            if person is not None and len(seen):
                values[i, j] = (seen @ person).mean()
    return values


def separations(
    values: Floats, people: Sequence[str], clips: Sequence[int], draws: Sequence[npt.NDArray[np.intp]]
) -> list[tuple[float, float]]:
    """(area under the curve, d') for samples of people, given how often each (of the sorted names) was drawn.

    `values` [N, N] are of items that show `people` in `clips`; two items of one clip are never compared. A pair counts
    as often as its person, or as the product of its two people.
    """
    _, who = np.unique(np.array(people), return_inverse=True)
    shown = np.array(clips)
    left, right = ((shown[:, None] != shown[None]) & np.isfinite(values)).nonzero()
    alike = who[left] == who[right]
    numbers = values[left, right]
    same, others = numbers[alike], np.sort(numbers[~alike])
    order = np.argsort(numbers[~alike], kind="stable")
    one, two, self_ = who[left][~alike][order], who[right][~alike][order], who[left][alike]
    first, last = (np.searchsorted(others, same, side=side) for side in ("left", "right"))
    found = []
    for drawn in draws:
        own, weights = drawn[self_].astype(np.float64), (drawn[one] * drawn[two]).astype(np.float64)
        below = np.concatenate([[0.0], np.cumsum(weights)])
        if not own.sum() or not below[-1]:
            continue
        area = float((own * (below[first] + below[last])).sum() / 2 / own.sum() / below[-1])
        means = [float(np.average(given, weights=w)) for given, w in ((same, own), (others, weights))]
        spread = [
            float(np.average((given - mean) ** 2, weights=w))
            for given, w, mean in ((same, own, means[0]), (others, weights, means[1]))
        ]
        found.append((area, (means[0] - means[1]) / float(np.sqrt(np.mean(spread)))))
    return found


def row(name: str, embeddings: Sequence[npt.NDArray[np.float32]], people: Sequence[str]) -> dict[str, Any]:
    """The figures of one way."""
    values, count = similarities(embeddings), len(set(people))
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    draws = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(RESAMPLES)]
    frames = np.concatenate(embeddings).astype(np.float64)
    shown = np.repeat(np.arange(len(embeddings)), [len(one) for one in embeddings])
    figures: dict[str, Any] = {}
    for what, cosines, clips in (("", values, np.arange(len(embeddings))), ("frame_", frames @ frames.T, shown)):
        who = [people[clip] for clip in clips]
        [(area, distance)] = separations(cosines, who, clips.tolist(), [np.ones(count, np.intp)])
        low, high = np.quantile(separations(cosines, who, clips.tolist(), draws), [0.025, 0.975], axis=0)
        figures |= {f"{what}auc": area, f"{what}auc_interval": [float(low[0]), float(high[0])]}
        figures |= {f"{what}d_prime": distance, f"{what}d_prime_interval": [float(low[1]), float(high[1])]}
    names = np.array(people)
    alike = names[:, None] == names[None]
    same, others = values[alike & ~np.eye(len(names), dtype=bool)], values[~alike]
    seen = np.concatenate([np.isfinite(one).all(axis=1) for one in embeddings])
    return {
        "way": name,
        "recogniser": WAYS[name][0],
        "aligned_by": WAYS[name][1],
        "frames": len(seen),
        "frames_with_a_face": int(seen.sum()),
        **figures,
        **{
            f"{what}_{how}": float(find(numbers))
            for what, numbers in (("same", same), ("other", others))
            for how, find in (("mean", np.nanmean), ("least", np.nanmin), ("most", np.nanmax))
        },
        "pairs_same": int(np.isfinite(same).sum()),
        "pairs_other": int(np.isfinite(others).sum()),
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures as markdown."""
    made = result["made_by"]
    lines = [
        "# Do the recognisers tell real people apart?",
        "",
        f"{result['clips']} real clips of {result['people']} people, {made['frames_a_clip']} frames a clip. *AUC*: the "
        "chance that another clip of a person is nearer to the content clip than a clip of somebody else. *AUC of "
        "frames*: the same of single frames of different clips. *d'*: the distance of the two means of single frames "
        "over the root mean square of the two standard deviations. In brackets 95 % intervals over people; an AUC of 1 "
        "says that nobody here is mistaken for another, not that nobody could be.",
        "",
        "| | recogniser | aligned by | frames with a face | AUC | AUC of frames | d' of frames | "
        "one person: mean, least | two people: mean, most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in result["ways"]:
        told = {key: one[f"{key}_interval"] for key in ("auc", "frame_auc", "frame_d_prime")}
        lines.append(
            f"| {one['way']} | {one['recogniser']} | {one['aligned_by']} | {one['frames_with_a_face']} of "
            f"{one['frames']} | "
            + " | ".join(f"{one[key]:.4g} [{low:.4g}, {high:.4g}]" for key, (low, high) in told.items())
            + f" | {one['same_mean']:.3f}, {one['same_least']:.3f} | {one['other_mean']:.3f}, {one['other_most']:.3f} |"
        )
    lines += [
        "",
        f"{result['ways'][0]['pairs_same']} ordered pairs of clips of one person, {result['ways'][0]['pairs_other']} "
        "of two.",
        "",
        f"Made by `plugins/faces/tools/compare_recognisers.py`: ArcFace is {made['recogniser']} sha256 "
        f"{made['recogniser_sha256'][:12]}…, SFace sha256 {made['sface_sha256'][:12]}…, mediapipe {made['mediapipe']}, "
        f"onnxruntime {made['onnxruntime']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of <person>/*.mp4")
    parser.add_argument("--frames", type=int, default=4, help="frames of a clip that are looked at")
    parser.add_argument("--output", type=Path, required=True, help="without suffix")
    given = parser.parse_args()
    clips, model = people_of(given.clips), find_model()
    people = [person for person, _ in clips]
    found = look(clips, given.frames)
    result: dict[str, Any] = {
        "clips": len(clips),
        "people": len(set(people)),
        "ways": [row(way, [one[way] for one in found], people) for way in WAYS],
        "made_by": {
            "frames_a_clip": given.frames,
            "recogniser": model.path.name,
            "recogniser_sha256": model.sha256,
            "sface_sha256": SFACE_SHA256,
            "mediapipe": version("mediapipe"),
            "onnxruntime": version("onnxruntime"),
        },
    }
    write_json_atomic(given.output.with_suffix(".json"), result)
    write_text_atomic(given.output.with_suffix(".md"), table(result))
    print(table(result))


if __name__ == "__main__":
    main()
