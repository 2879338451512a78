"""Folders of videos and photos, `<identity>/<clip>.<ending>`: listed safely, with the same names on every machine."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bcd_bench.io.links import FOLLOW_LINKS, follows_links, leads_outside
from bcd_bench.types.errors import UsageError

__all__ = ["ENDINGS", "PHOTOS", "TreeVideo", "list_videos", "safe_ids"]

ENDINGS = (".mp4", ".mkv", ".mov", ".avi", ".webm")
PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
OUTSIDE = f"a link that points outside the folder (set {FOLLOW_LINKS}=1 to follow)"
LONGEST_PART = 35
"""Maximum length of an identity or a clip name in an id: a pair's id names two clips and may have 200 characters."""


@dataclass(frozen=True)
class TreeVideo:
    """One video or photo of a tree. Names are in Unicode's NFC form, independent of the file system."""

    path: Path
    identity: str
    clip: str
    """The file's name without its ending, or with it if another file differs only in the ending."""

    @property
    def is_photo(self) -> bool:
        """Whether the ending is that of a photo."""
        return self.path.suffix.lower() in PHOTOS

    @property
    def name(self) -> str:
        """Display name: the path in the tree."""
        return f"{self.identity}/{self.clip}"


def list_videos(root: Path, endings: Iterable[str] = ENDINGS) -> tuple[list[TreeVideo], list[str]]:
    """The videos of a tree sorted by name, and a line for each one that is skipped.

    Only files with the given endings (in any case) in folders directly below `root` count; hidden ones never do. A link
    that points outside the tree gets a line, and is followed only if the user allows it (`links.follows_links`). Raises
    `UsageError` if `root` is not a readable folder.
    """
    try:
        inside = root.resolve(strict=True)
        folders = sorted(_visible(root))
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise UsageError(f"{root} is not a readable folder ({getattr(error, 'strerror', None) or error})") from None
    suffixes = {ending.lower() for ending in endings}
    videos: list[TreeVideo] = []
    notes: list[str] = []
    for folder in folders:
        try:
            if not _leads_inside(folder, inside):
                notes.append(f"{_nfc(folder.name)}: left out: {OUTSIDE}")
            elif folder.is_dir():
                files = sorted(path for path in _visible(folder) if path.suffix.lower() in suffixes)
                stems = Counter(_nfc(path.stem) for path in files)
                videos += _taken(files, stems, _nfc(folder.name), inside, notes)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            notes.append(f"{_nfc(folder.name)}: left out: cannot be read ({reason})")
    videos.sort(key=lambda video: (video.identity, video.clip))
    by_name: dict[str, TreeVideo] = {}
    for video in videos:
        if video.name in by_name:
            notes.append(f"{video.name}: left out: another file has this name in another Unicode form")
        by_name.setdefault(video.name, video)
    return list(by_name.values()), notes


def _taken(
    files: Iterable[Path], stems: Counter[str], identity: str, inside: Path, notes: list[str]
) -> Iterator[TreeVideo]:
    for path in files:
        clip = _nfc(path.stem if stems[_nfc(path.stem)] == 1 else path.name)
        if not _leads_inside(path, inside):
            notes.append(f"{identity}/{_nfc(path.name)}: left out: {OUTSIDE}")
        elif not path.exists():
            notes.append(f"{identity}/{_nfc(path.name)}: left out: a broken link")
        elif not path.is_file():
            notes.append(f"{identity}/{_nfc(path.name)}: left out: not a regular file")
        else:
            yield TreeVideo(path, identity, clip)


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _leads_inside(path: Path, inside: Path) -> bool:
    return follows_links() or not leads_outside(path, inside)


def _nfc(name: str) -> str:
    # Names that are not text in the file system's encoding contain surrogates, which a manifest cannot store.
    return unicodedata.normalize("NFC", name.encode(errors="surrogateescape").decode(errors="replace"))


def safe_ids(videos: Iterable[TreeVideo]) -> list[str]:
    """An id per video that is a safe file name and unique regardless of case: `p001-00002`.

    If characters had to be replaced, or two videos would share an id, the start of a hash of the name is appended.
    """
    videos = list(videos)
    plain = [f"{_safe(video.identity)}-{_safe(video.clip)}" for video in videos]
    counts = Counter(text.casefold() for text in plain)
    ids = []
    for video, text in zip(videos, plain, strict=True):
        unchanged = text == f"{video.identity}-{video.clip}" and counts[text.casefold()] == 1
        digest = hashlib.sha256(f"{video.identity}\0{video.clip}".encode()).hexdigest()
        ids.append(text if unchanged else f"{text}-{digest[:8]}")
    return ids


def _safe(name: str) -> str:
    return re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9._+@=,~-]", "_", name)[:LONGEST_PART]
