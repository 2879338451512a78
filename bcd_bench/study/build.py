"""Builds a study: chooses pairs, encodes blinded previews, and writes the design."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bcd_bench.figures.sources import Source, choose_pairs, open_runs
from bcd_bench.io.atomic import atomic_path, write_text_atomic
from bcd_bench.run.folder import find_runs, writing
from bcd_bench.study.design import DESIGN_NAME, MEDIA, Group, Item, Method, Study
from bcd_bench.study.questions import QUESTIONS, SCALE
from bcd_bench.study.store import DATABASE_NAME, Store
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import NoProgress
from bcd_bench.view.previews import Previews, preview_key

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.types.clip import ClipRef
    from bcd_bench.types.pair import Pair
    from bcd_bench.util.progress import Progress

__all__ = ["CONSENT", "build_study"]

TITLE = "Video study"
CONSENT = """You will see {videos} short videos and answer three questions about each, in about {minutes} minutes.

Taking part is voluntary. You can stop at any time by closing the page; reload it to go on.

Your answers and the seconds that they took are stored under a random number, for research on video generation. \
Your browser remembers this number, so that you can go on after a break. Your name, your address and other personal \
data are not stored."""
SECONDS_PER_VIDEO = 12
NOISE_BLOCK = 8
"""Pixels: finer noise makes large files."""


def build_study(
    paths: Sequence[Path],
    output: Path,
    registry: Registry,
    *,
    groups: int = 15,
    checks: int = 2,
    seed: int = 0,
    labels: Sequence[str] = (),
    title: str = TITLE,
    consent: str | None = None,
    progress: Progress | None = None,
) -> Study:
    """Write a study of the runs in `paths` to the folder `output`: new, empty, or a study without raters.

    `groups` pairs are chosen at random among those that all runs finished, as far as possible of different subjects.
    `seed` determines the pairs, the order of methods and the checks; the names of files are random. `labels` replaces
    the names of the methods in tables. `consent` may contain {videos} and {minutes}. Raises `UsageError` for fewer than
    two runs, runs over different pairs, too few common pairs, and previews that cannot be encoded.
    """
    _check_output(output)
    folders = [run.path for run in find_runs(paths)]
    if len(folders) < 2:
        raise UsageError(f"a study compares at least two runs, and there is {len(folders)}")
    sources, suite = open_runs(folders, registry, labels)
    names = [source.label for source in sources]
    if len(set(names)) < len(names):
        raise UsageError(f"two methods have one name: {', '.join(names)}", hint="--label with different names")
    spare = choose_pairs(sources, suite, seed=seed, count=groups + 1)
    if len(spare) < groups:
        raise UsageError(
            f"{len(spare)} pairs are finished in all {len(folders)} runs, and the study has {groups} groups",
            hint=f"--groups {len(spare)}, or run the unfinished pairs",
        )
    rng = np.random.default_rng(seed)
    pairs = choose_pairs(sources, suite, seed=seed, count=groups)
    practice = next((pair for pair in spare if pair not in pairs), pairs[0])
    sources = [sources[index] for index in rng.permutation(len(sources))]
    media = _Media()
    made = [_group(pair, sources, media) for pair in pairs]
    from bcd_bench import __version__

    plan = sources[0].run.plan.suite
    study = Study(
        id=_key(),
        title=title,
        consent=_consent(consent or CONSENT, groups * len(sources) + checks + 1),
        seed=seed,
        suite=f"{plan.name}@{plan.version}",
        manifest_sha256=plan.manifest_sha256,
        bcd_bench=__version__,
        methods=[
            Method(label=source.label, run_id=source.run.plan.run_id, path=str(source.run.path.absolute()))
            for source in sources
        ],
        groups=made,
        practice=_practice(practice, sources[int(rng.integers(len(sources)))], media),
        checks=[_check(number, pairs[int(rng.integers(len(pairs)))], rng, media) for number in range(checks)],
    )
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(output / MEDIA, ignore_errors=True)
        media.write(output, progress or NoProgress())
        write_text_atomic(output / DESIGN_NAME, study.model_dump_json(indent=1) + "\n")
        (output / DATABASE_NAME).unlink(missing_ok=True)  # it has no ratings, and is of another design
    return study


class _Media:
    """The clips of a study: every place where one is shown has a random name of its own."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.clips: dict[str, Callable[[], Clip]] = {}

    def reference(self, ref: ClipRef) -> str:
        return self._add(preview_key("study clip", ref.sha256, ref.source.describe()), ref.load)

    def output(self, source: Source, pair_id: str) -> str:
        result = source.results[pair_id]
        key = preview_key("output", result.output_sha256, result.fps)
        return self._add(key, partial(source.output, pair_id), shared=False)

    def noise(self, ref: ClipRef, seed: int) -> str:
        return self._add(preview_key("noise", ref.sha256, seed), partial(_noise, ref, seed))

    def _add(self, key: str, load: Callable[[], Clip], *, shared: bool = True) -> str:
        """The name of a clip. Equal outputs of two methods get two names, so that files do not tell that they are
        equal to references."""
        self.clips[key] = load
        if shared:
            known = next((name for name, other in self.names.items() if other == key), None)
            if known is not None:
                return known
        name = _key()
        self.names[name] = key
        return name

    def write(self, folder: Path, progress: Progress) -> None:
        """Encode the previews, and store each under its random names. Raises `UsageError` if one cannot be encoded."""
        previews = Previews(folder / "previews")
        previews.make(self.clips, progress)
        for reason in previews.failures.values():
            raise UsageError(f"a clip of the study cannot be shown: {reason}")
        (folder / MEDIA).mkdir(exist_ok=True)
        for name, key in self.names.items():
            preview = previews.get(key)
            if preview is None:
                raise UsageError(f"{folder}: a preview is missing", hint="build the study again")
            with atomic_path(folder / MEDIA / f"{name}.mp4") as temporary:
                shutil.copyfile(previews.path(preview), temporary)


def _key() -> str:
    return secrets.token_hex(10)


def _group(pair: Pair, sources: Sequence[Source], media: _Media) -> Group:
    content, motion = media.reference(pair.content), media.reference(pair.motion)
    items = [
        Item(id=_key(), kind="rating", content=content, motion=motion, video=media.output(source, pair.id))
        for source in sources
    ]
    outputs = [source.results[pair.id].output_sha256 or "" for source in sources]
    return Group(pair=pair.id, subject=pair.cluster, items=items, outputs=outputs)


def _practice(pair: Pair, source: Source, media: _Media) -> Item:
    return Item(
        id=_key(),
        kind="practice",
        content=media.reference(pair.content),
        motion=media.reference(pair.motion),
        video=media.output(source, pair.id),
    )


def _check(number: int, pair: Pair, rng: np.random.Generator, media: _Media) -> Item:
    """Checks alternate: scores that the page asks for, and a video of noise."""
    content, motion = media.reference(pair.content), media.reference(pair.motion)
    if number % 2:
        noise = media.noise(pair.motion, int(rng.integers(2**31)))
        return Item(id=_key(), kind="broken", content=content, motion=motion, video=noise)
    scores = rng.permutation(SCALE)[: len(QUESTIONS)]
    expected = {question.key: int(score) for question, score in zip(QUESTIONS, scores, strict=True)}
    return Item(id=_key(), kind="instructed", content=content, motion=motion, video=motion, expected=expected)


def _noise(ref: ClipRef, seed: int) -> Clip:
    """Coloured noise of the size and length of a clip, different in every frame."""
    clip = ref.load()
    frames, height, width = clip.frames.shape[:3]
    rows, columns = -(-height // NOISE_BLOCK), -(-width // NOISE_BLOCK)
    blocks = np.random.default_rng(seed).integers(0, 256, (frames, rows, columns, 3), dtype=np.uint8)
    noise = blocks.repeat(NOISE_BLOCK, axis=1).repeat(NOISE_BLOCK, axis=2)[:, :height, :width]
    return Clip(np.ascontiguousarray(noise), clip.fps)


def _consent(text: str, videos: int) -> str:
    minutes = max(1, round(videos * SECONDS_PER_VIDEO / 60))
    return text.replace("{videos}", str(videos)).replace("{minutes}", str(minutes)).strip()


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UsageError(f"--out {output}: is a file, not a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / DESIGN_NAME).is_file():
        raise UsageError(f"--out {output}: exists and is not a study", hint="choose a new folder")
    if (output / DATABASE_NAME).is_file():
        with Store(output / DATABASE_NAME) as store:
            if store.raters():
                raise UsageError(f"--out {output}: has raters already", hint="choose a new folder")
