"""Weights and data by name: looked up on a search path, verified, never downloaded during a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bcd_bench.assets.hashing import canonical_json, hash_json, sha256_file, sha256_path
from bcd_bench.io.atomic import TEMPORARY_SUFFIX, atomic_path, fsync_path, usual_mode, write_text_atomic
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.specs import AssetSpec
from bcd_bench.types.errors import BcdBenchError, MissingAssetError, UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["AssetStatus", "AssetStore", "FileHashes", "cache_folder", "format_size", "search_path"]

MEMO_NAME = "verified.json"
SHOWN = 3
"""How many bad files of a folder an error names before it counts the rest."""


def cache_folder() -> Path:
    """Where bcd-bench keeps files of its own: `BCD_BENCH_HOME`, else the user's cache folder. May not exist yet."""
    home = os.environ.get("BCD_BENCH_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("bcd-bench", appauthor=False)


def search_path() -> list[Path]:
    """Folders in which assets are looked for: those of `BCD_BENCH_ASSETS`, then `assets` in the cache folder."""
    listed = os.environ.get("BCD_BENCH_ASSETS", "").split(os.pathsep)
    return [*(Path(item).expanduser() for item in listed if item), cache_folder() / "assets"]


def format_size(size: int) -> str:
    """Bytes for people: `812 B`, `4.2 MB`."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"


def _candidates(spec: AssetSpec) -> list[Path]:
    """Where a file of this asset may lie, the first choice first. A variable that is set is the only choice."""
    given = os.environ.get(spec.variable) if spec.variable else None
    if given:
        return [Path(given).expanduser()]
    return [folder / name for name in (spec.filename, *spec.also) for folder in search_path()]


@dataclass(frozen=True)
class AssetStatus:
    """What is known of one asset: `problem` says what is wrong unless its state is "ok"."""

    spec: AssetSpec
    state: Literal["ok", "missing", "altered"]
    path: Path | None = None
    problem: str = ""
    sha256: str = ""
    """Of the file that was found, for an asset that may be any file."""


RACY_NS = 2_000_000_000
"""A file that changed less than so many nanoseconds before it was hashed may change again under the same times."""


class FileHashes:
    """sha256 of files, remembered in `folder` so that a large file is read once.

    A hash holds for as long as path, inode, size, time of modification and time of change (ctime, which no program can
    set) are all the same, as git has it; one that was taken within `RACY_NS` of the last change, or while the file
    changed, is not remembered. What remains: a clock that was set back, and file systems that keep no ctime of their
    own. `bcd-bench assets verify` reads every asset again.

    `save` keeps what was found; `of` raises `OSError` as reading does, and with `fresh` reads the file again.
    """

    def __init__(self, folder: Path) -> None:
        self.memo_path = folder / MEMO_NAME
        self.changed = False

    @cached_property
    def memo(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):  # no memo yet, or a damaged one: everything is hashed anew
            found = json.loads(self.memo_path.read_text())
            if isinstance(found, dict):
                return {str(key): str(value) for key, value in found.items()}
        return {}

    def of(self, path: Path, *, fresh: bool = False) -> str:
        key, settled = _file_key(path)
        if not fresh and key in self.memo:
            return self.memo[key]
        sha256 = sha256_file(path)
        if settled and _file_key(path)[0] == key:
            self.memo[key] = sha256
            self.changed = True
        return sha256

    def save(self) -> None:
        if self.changed:
            with contextlib.suppress(OSError):  # only a memory: without it files are hashed again next time
                self.memo_path.parent.mkdir(parents=True, exist_ok=True)
                write_text_atomic(self.memo_path, canonical_json(self.memo) + "\n")
            self.changed = False


def _file_key(path: Path) -> tuple[str, bool]:
    """What tells one content of a file from another without reading it, and whether it changed long enough ago."""
    info = path.stat()
    key = [str(path.resolve()), info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
    return hash_json(key), time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > RACY_NS


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error


def _replace_folder(draft: Path, target: Path) -> None:
    """Give a finished folder its name; what had the name before goes."""
    if target.is_dir():
        shutil.rmtree(target)
    draft.replace(target)
    fsync_path(target.parent)


class AssetStore:
    """Finds, verifies, downloads and adds the assets that plugins declare.

    Search order: the folders of `BCD_BENCH_ASSETS` by file name, then `assets` in the cache; nothing else. A file
    whose hash differs is never handed out.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._hashes = FileHashes(cache_folder())

    def find(self, name: str) -> Path:
        """The verified file or folder. Raises `MissingAssetError`: what is missing or altered, and how to get it."""
        status = self.status_of(name)
        if status.state != "ok" or status.path is None:
            raise self._error(status)
        return status.path

    def status_of(self, name: str, *, fresh: bool = False) -> AssetStatus:
        """Where an asset is and whether it is what it should be; `fresh` hashes every file and calls `check` again."""
        spec: AssetSpec = self.registry.asset(name)
        bad: AssetStatus | None = None
        try:
            for path in _candidates(spec):
                try:
                    if not path.exists():
                        continue
                    problem = "; ".join(self._problems(spec, path, fresh=fresh))
                    if fresh and not problem:
                        problem = self._refusal(spec, path)
                except OSError as error:  # the folder itself may not be entered
                    problem = f"{path} cannot be read ({error.strerror})"
                if not problem:
                    return AssetStatus(spec, "ok", path, sha256=self._chosen(path) if spec.any_file else "")
                bad = bad or AssetStatus(spec, "altered", path, problem)
        finally:
            self._hashes.save()
        given = os.environ.get(spec.variable) if spec.variable else None
        why = f"{spec.variable}={given} does not exist" if given else "not found"
        return bad or AssetStatus(spec, "missing", None, why)

    @staticmethod
    def _refusal(spec: AssetSpec, path: Path) -> str:
        """What `AssetSpec.check` has against a file whose bytes are right; "" if nothing."""
        try:
            if spec.check:
                load_factory(spec.check)(path)
        except BcdBenchError as error:
            return str(error)
        return ""

    def _chosen(self, path: Path) -> str:
        return sha256_path(path) if path.is_dir() else self._hashes.of(path)

    def status(self) -> list[AssetStatus]:
        """The state of every asset, by name."""
        return [self.status_of(name) for name in sorted(self.registry.assets)]

    def verify(self) -> list[AssetStatus]:
        """As `status`, but every file that is there is hashed again."""
        return [self.status_of(name, fresh=True) for name in sorted(self.registry.assets)]

    def fetch(self, name: str) -> Path:
        """Download an asset into the cache, verify it, and return its path; one that is there already is returned.

        Of a folder each file is fetched from its place under the first URL. Raises `UsageError` where it has to be
        added by hand, `MissingAssetError` where no source delivers the right bytes.
        """
        status = self.status_of(name)
        if status.state == "ok" and status.path is not None:
            return status.path
        spec = status.spec
        if not spec.urls:
            raise UsageError(
                f"asset {name!r} has no download source: {spec.how_to}", hint=f"bcd-bench assets add {name} PATH"
            )
        target = cache_folder() / "assets" / spec.filename
        if not spec.directory:
            self._download(spec, "", spec.sha256, target)
            return self.find(name)
        # A folder gets its name when it is whole. What came of one that did not get that far is kept for the next try.
        draft = target.with_name(f".{target.name}{TEMPORARY_SUFFIX}")
        for relative, sha256 in spec.files.items():
            self._download(spec, relative, sha256, draft / relative)
        with _writing(target):
            _replace_folder(draft, target)
        return self.find(name)

    def add(self, name: str, path: Path) -> Path:
        """Copy a file or folder the user has into the cache, if it is the right one, and return where it is now.

        Raises `MissingAssetError` where it is not what the asset should be, `UsageError` where it cannot be copied, and
        what `AssetSpec.check` raises.
        """
        spec: AssetSpec = self.registry.asset(name)
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        problem = "; ".join(self._problems(spec, path, fresh=True))
        if problem:
            raise self._error(AssetStatus(spec, "altered", path, problem))
        if spec.check:
            load_factory(spec.check)(path)
        target = cache_folder() / "assets" / spec.filename
        if spec.any_file:  # it keeps its name, since the name tells in records which file it was
            names = [spec.filename, *spec.also]
            if path.name not in names:
                hint = f"export {spec.variable}={path}" if spec.variable else None
                raise UsageError(f"asset {name!r} is looked for as {' or '.join(names)}, not as {path.name}", hint=hint)
            target = target.with_name(path.name)
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if spec.directory:
                with tempfile.TemporaryDirectory(dir=target.parent, suffix=TEMPORARY_SUFFIX, prefix=".") as scratch:
                    draft = Path(scratch) / target.name
                    chosen = [p.relative_to(path) for p in path.rglob("*") if p.is_file()] if spec.any_file else []
                    for relative in spec.files or chosen:
                        (draft / relative).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(path / relative, draft / relative)
                    _replace_folder(draft, target)
            else:
                with atomic_path(target) as temporary:
                    shutil.copy2(path, temporary)
        return self.find(name)

    def _problems(self, spec: AssetSpec, path: Path, *, fresh: bool) -> Iterator[str]:
        """What is wrong with a candidate, the first few files by name; nothing where all is well."""
        if path.is_dir() != spec.directory:
            yield f"{path} is a {'folder' if path.is_dir() else 'file'}, not a {'folder' if spec.directory else 'file'}"
        elif spec.directory and spec.any_file and not any(path.iterdir()):
            yield f"{path} is empty"
        elif not spec.directory:
            yield from self._problem_of_file(path, path.name, spec.sha256, spec.size, fresh)
        else:
            found = (
                problem
                for relative, sha256 in spec.files.items()
                for problem in self._problem_of_file(path / relative, relative, sha256, None, fresh)
            )
            every = list(found)
            yield from every[:SHOWN]
            if len(every) > SHOWN:
                yield f"and {len(every) - SHOWN} more"

    def _problem_of_file(self, path: Path, name: str, sha256: str, size: int | None, fresh: bool) -> Iterator[str]:
        if not path.is_file():
            yield f"{name} is missing"
            return
        if not sha256 and not path.stat().st_size:
            yield f"{name} is empty"
            return
        if size is not None and path.stat().st_size < size:
            yield f"{name} is truncated ({path.stat().st_size} of {size} bytes)"
            return
        try:
            actual = self._hashes.of(path, fresh=fresh)
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
            return
        if sha256 and actual != sha256:
            yield f"{name} is altered (sha256 {actual[:12]}…, expected {sha256[:12]}…)"

    def _download(self, spec: AssetSpec, relative: str, sha256: str, target: Path) -> None:
        import pooch

        if target.is_file() and self._hashes.of(target) == sha256:
            return
        reasons = []
        for url in spec.urls:
            source = f"{url.rstrip('/')}/{relative}" if relative else url
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                pooch.retrieve(source, known_hash=f"sha256:{sha256}", path=target.parent, fname=target.name)
            except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError is a wrong hash
                reasons.append(f"{source}: {' '.join(str(error).split())[:200]}")
            else:
                with _writing(target):
                    usual_mode(target)  # pooch makes it private
                return
        raise MissingAssetError(f"asset {spec.name!r} could not be fetched: {'; '.join(reasons)}", hint=spec.how_to)

    def _error(self, status: AssetStatus) -> MissingAssetError:
        spec = status.spec
        place = f" at {status.path}" if status.path else ""
        what = f"{len(spec.files)} files" if spec.directory else f"sha256 {spec.sha256}"
        size = f"{format_size(spec.size)}, " if spec.size else ""
        facts = f"{spec.filename}, {what}, {size}licence {spec.licence}"
        if spec.any_file:
            kind = "folder" if spec.directory else "file"
            facts = f"{' or '.join([spec.filename, *spec.also])}, any such {kind}, licence {spec.licence}"
        hint = f"bcd-bench assets fetch {spec.name}"
        if not spec.urls:
            hint = f"bcd-bench assets add {spec.name} PATH   ({spec.how_to})"
        return MissingAssetError(f"asset {spec.name!r}{place}: {status.problem} ({facts})", hint=hint)
