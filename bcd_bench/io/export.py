"""Export of a suite's pairs as files for tools outside the harness (`bcd-bench export`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bcd_bench.assets.hashing import hash_json
from bcd_bench.io.atomic import read_jsonl, write_json_atomic, write_text_atomic
from bcd_bench.io.image_sequence import write_frames
from bcd_bench.io.video import write_video_lossless
from bcd_bench.plugin.loading import plugin_code
from bcd_bench.plugin.suites import SAFE_NAME, checked_ids
from bcd_bench.run.folder import writing
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.util.progress import NoProgress

if TYPE_CHECKING:
    from bcd_bench.util.progress import Progress

__all__ = ["ExportedPair", "Kind", "export_suite"]

Kind = Literal["mkv", "png"]
"""Lossless FFV1 in Matroska, or folders of PNG frames."""


@dataclass(frozen=True)
class ExportedPair:
    """One line of `pairs.jsonl`: `content` and `motion` are paths relative to the folder, `frames` and `fps` those of
    the driving clip, which an output must match, and `output` is the file name that the method `folder` expects."""

    pair: str
    content: str
    motion: str
    output: str
    frames: int
    fps: float
    height: int
    width: int


def export_suite(
    suite: Suite, folder: Path, *, limit: int | None = None, kind: Kind = "mkv", progress: Progress | None = None
) -> list[ExportedPair]:
    """Write the clips of a suite's pairs (the first `limit`) to `folder/clips`, each once, then `pairs.jsonl`.

    Ground-truth targets are not exported. An interrupted export resumes and skips finished clips. Raises `UsageError`
    if the folder contains a different suite or cannot be written, or if a clip cannot be loaded.
    """
    total = len(suite.pairs)
    ids = checked_ids(suite, total if limit is None else min(limit, total))
    facts = {
        "format": 1, "suite": suite.name, "version": suite.version, "manifest_sha256": suite.manifest_sha256,
        "n_pairs": total, "height": suite.size[0], "width": suite.size[1], "fps": suite.fps, "clips": kind,
    }  # fmt: skip
    with writing(folder):
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        _claim(folder / "suite.json", facts)
    exported = {row["motion"]: row for row in read_jsonl(folder / "pairs.jsonl") if "motion" in row}
    names: dict[str, str] = {}
    lengths = {motion: (row["frames"], row["fps"]) for motion, row in exported.items()}
    rows = []
    with (progress or NoProgress()).task("export", total=len(ids)) as task:
        for pair in suite.pairs[: len(ids)]:
            content = _exported(folder, pair.content, kind, names, None)
            motion = _exported(folder, pair.motion, kind, names, lengths)
            frames, fps = lengths[motion]
            output = f"{pair.id}.mkv" if kind == "mkv" else pair.id
            rows.append(ExportedPair(pair.id, content, motion, output, frames, fps, *suite.size))
            task.advance()
        with writing(folder):
            text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
            write_text_atomic(folder / "pairs.jsonl", text)
    return rows


def _claim(path: Path, facts: dict[str, Any]) -> None:
    """Write `suite.json`, or check that the existing one belongs to the same suite and kind."""
    if not path.exists():
        write_json_atomic(path, facts)
        return
    try:
        existing = json.loads(path.read_bytes())
    except ValueError:
        existing = None
    if existing != facts:
        raise UsageError(
            f"{path.parent} holds a different suite, or the same suite in another format", hint="use a different --out"
        )


def _exported(
    folder: Path, ref: ClipRef, kind: Kind, names: dict[str, str], known: dict[str, tuple[int, float]] | None
) -> str:
    """Path of a clip relative to `folder`, written if missing; its length and frame rate are stored in `known`."""
    described = hash_json(ref.describe())
    key = described if names.setdefault(ref.id.casefold(), described) != described else ref.id
    name = key if SAFE_NAME.fullmatch(key) else described
    relative = f"clips/{name}.mkv" if kind == "mkv" else f"clips/{name}"
    path = folder / relative
    if path.exists() and (known is None or relative in known):
        return relative
    with plugin_code(f"clip {ref.id!r}", "cannot be had"):
        clip: Clip = ref.load()
    if known is not None:
        known[relative] = (len(clip), clip.fps)
    if not path.exists():
        with writing(folder):
            if kind == "mkv":
                write_video_lossless(path, clip)
            else:
                write_frames(path, clip)
    return relative
