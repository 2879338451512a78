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
from bcd_bench.util.locking import LOCK_NAME, locked

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["AssetStatus", "AssetStore", "FileHashes", "cache_folder", "format_size", "search_path"]

MEMO_NAME = "verified.json"
SHOWN = 3
"""Maximum number of bad files of a folder that an error names; the rest are counted."""


def cache_folder() -> Path:
    """Folder of bcd-bench's own files: `BCD_BENCH_HOME`, or else the user's cache folder. May not exist yet."""
    home = os.environ.get("BCD_BENCH_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("bcd-bench", appauthor=False)


def search_path() -> list[Path]:
    """Folders searched for assets: those in `BCD_BENCH_ASSETS`, then `assets` in the cache folder."""
    setting = os.environ.get("BCD_BENCH_ASSETS", "").split(os.pathsep)
    return [*(Path(item).expanduser() for item in setting if item), cache_folder() / "assets"]


def format_size(size: int) -> str:
    """Human-readable size: `812 B`, `4.2 MB`."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"


@contextlib.contextmanager
def _scratch_for(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, for its download only. What a killed download left there is deleted.

    Raises `LockedError` if another process is downloading the file.
    """
    scratch = target.with_name(f".{target.name}.download{TEMPORARY_SUFFIX}")
    scratch.mkdir(parents=True, exist_ok=True)
    with locked(scratch):
        for leftover in scratch.iterdir():
            if leftover.name != LOCK_NAME:
                leftover.unlink()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _candidates(spec: AssetSpec) -> list[Path]:
    """Possible paths of this asset, most preferred first. If its environment variable is set, that is the only one."""
    override = os.environ.get(spec.variable) if spec.variable else None
    if override:
        return [Path(override).expanduser()]
    return [folder / name for name in (spec.filename, *spec.also) for folder in search_path()]


@dataclass(frozen=True)
class AssetStatus:
    """State of one asset; `problem` describes what is wrong unless the state is "ok"."""

    spec: AssetSpec
    state: Literal["ok", "missing", "altered"]
    path: Path | None = None
    problem: str = ""
    sha256: str = ""
    """Hash of the file found, for assets that accept any file."""


RACY_NS = 2_000_000_000
"""Nanoseconds; a file modified more recently than this before hashing may change again without a new timestamp."""


class FileHashes:
    """SHA-256 hashes of files, cached in `folder` so that large files are read once.

    A cached hash is valid while path, inode, size, modification time and change time (ctime, which programs cannot
    set) are unchanged, as in git. A hash is not cached if it was computed within `RACY_NS` of the last change or while
    the file changed. Not detected: clocks set back, and file systems that keep no separate ctime.
    `bcd-bench assets verify` reads every asset again.

    `save` writes the cache; `of` raises `OSError` if a file cannot be read and ignores the cache with `fresh`.
    """

    def __init__(self, folder: Path) -> None:
        self.memo_path = folder / MEMO_NAME
        self.changed = False

    @cached_property
    def memo(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):  # no cache yet, or a damaged one: everything is rehashed
            cached = json.loads(self.memo_path.read_text())
            if isinstance(cached, dict):
                return {str(key): str(value) for key, value in cached.items()}
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
            with contextlib.suppress(OSError):  # only a cache: without it, files are rehashed next time
                self.memo_path.parent.mkdir(parents=True, exist_ok=True)
                write_text_atomic(self.memo_path, canonical_json(self.memo) + "\n")
            self.changed = False


def _file_key(path: Path) -> tuple[str, bool]:
    """Key of a file's current state, computed without reading its content, and whether its last change is old
    enough."""
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
    """Rename a finished folder to `target`, replacing an existing folder."""
    if target.is_dir():
        shutil.rmtree(target)
    draft.replace(target)
    fsync_path(target.parent)


class AssetStore:
    """Finds, verifies, downloads and adds the assets that plugins declare.

    Assets are searched by file name in the folders of `BCD_BENCH_ASSETS`, then in `assets` in the cache folder; nowhere
    else. A file with the wrong hash is never returned.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._hashes = FileHashes(cache_folder())

    def find(self, name: str) -> Path:
        """Path of the verified file or folder. Raises `MissingAssetError` if it is missing or modified, with a hint on
        how to get it."""
        status = self.status_of(name)
        if status.state != "ok" or status.path is None:
            raise self._error(status)
        return status.path

    def status_of(self, name: str, *, fresh: bool = False) -> AssetStatus:
        """Location and state of an asset; `fresh` rehashes every file and calls `check` again."""
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
                except OSError as error:  # no permission to enter the folder
                    problem = f"{path} cannot be read ({error.strerror})"
                if not problem:
                    return AssetStatus(spec, "ok", path, sha256=self._chosen(path) if spec.any_file else "")
                bad = bad or AssetStatus(spec, "altered", path, problem)
        finally:
            self._hashes.save()
        override = os.environ.get(spec.variable) if spec.variable else None
        reason = f"{spec.variable}={override} does not exist" if override else "not found"
        return bad or AssetStatus(spec, "missing", None, reason)

    @staticmethod
    def _refusal(spec: AssetSpec, path: Path) -> str:
        """Reason why `AssetSpec.check` rejects a file with the right hash; "" if it accepts it."""
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
        """Like `status`, but rehash every existing file."""
        return [self.status_of(name, fresh=True) for name in sorted(self.registry.assets)]

    def fetch(self, name: str) -> Path:
        """Download an asset into the cache, verify it, and return its path. Assets that are already present are not
        downloaded again.

        The files of a folder are fetched relative to its first URL. Raises `UsageError` if the asset must be added
        manually, `MissingAssetError` if no source delivers the expected bytes.
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
        # A folder is renamed when it is complete. An incomplete download is kept for the next attempt.
        draft = target.with_name(f".{target.name}{TEMPORARY_SUFFIX}")
        for relative, sha256 in spec.files.items():
            self._download(spec, relative, sha256, draft / relative)
        with _writing(target):
            _replace_folder(draft, target)
        return self.find(name)

    def add(self, name: str, path: Path) -> Path:
        """Copy a file or folder of the user into the cache after verifying it, and return its new path.

        Raises `MissingAssetError` if it is not the declared asset, `UsageError` if it cannot be copied, and whatever
        `AssetSpec.check` raises.
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
        if spec.any_file:  # keep its name, which identifies the file in records
            names = [spec.filename, *spec.also]
            if path.name not in names:
                hint = f"export {spec.variable}={path}" if spec.variable else None
                raise UsageError(f"asset {name!r} must be named {' or '.join(names)}, not {path.name}", hint=hint)
            target = target.with_name(path.name)
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if spec.directory:
                with tempfile.TemporaryDirectory(dir=target.parent, suffix=TEMPORARY_SUFFIX, prefix=".") as scratch:
                    draft = Path(scratch) / target.name
                    contents = [p.relative_to(path) for p in path.rglob("*") if p.is_file()] if spec.any_file else []
                    for relative in spec.files or contents:
                        (draft / relative).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(path / relative, draft / relative)
                    _replace_folder(draft, target)
            else:
                with atomic_path(target) as temporary:
                    shutil.copy2(path, temporary)
        return self.find(name)

    def _problems(self, spec: AssetSpec, path: Path, *, fresh: bool) -> Iterator[str]:
        """Yield the problems of a candidate, at most `SHOWN` files by name; nothing if it is valid."""
        if path.is_dir() != spec.directory:
            yield f"{path} is a {'folder' if path.is_dir() else 'file'}, not a {'folder' if spec.directory else 'file'}"
        elif spec.directory and spec.any_file and not any(path.iterdir()):
            yield f"{path} is empty"
        elif not spec.directory:
            yield from self._problem_of_file(path, path.name, spec.sha256, spec.size, fresh)
        else:
            problems = (
                problem
                for relative, sha256 in spec.files.items()
                for problem in self._problem_of_file(path / relative, relative, sha256, None, fresh)
            )
            listed = list(problems)
            yield from listed[:SHOWN]
            if len(listed) > SHOWN:
                yield f"and {len(listed) - SHOWN} more"

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
            yield f"{name} was modified (sha256 {actual[:12]}…, expected {sha256[:12]}…)"

    def _download(self, spec: AssetSpec, relative: str, sha256: str, target: Path) -> None:
        import pooch

        if target.is_file() and self._hashes.of(target) == sha256:
            return
        reasons = []
        for url in spec.urls:
            source = f"{url.rstrip('/')}/{relative}" if relative else url
            try:
                with _scratch_for(target) as scratch:
                    pooch.retrieve(source, known_hash=f"sha256:{sha256}", path=scratch, fname=target.name)
                    usual_mode(scratch / target.name)  # pooch creates private files
                    (scratch / target.name).replace(target)
            except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError is a wrong hash
                reasons.append(f"{source}: {' '.join(str(error).split())[:200]}")
            else:
                return
        raise MissingAssetError(f"asset {spec.name!r} could not be downloaded: {'; '.join(reasons)}", hint=spec.how_to)

    def _error(self, status: AssetStatus) -> MissingAssetError:
        spec = status.spec
        location = f" at {status.path}" if status.path else ""
        identity = f"{len(spec.files)} files" if spec.directory else f"sha256 {spec.sha256}"
        size = f"{format_size(spec.size)}, " if spec.size else ""
        facts = f"{spec.filename}, {identity}, {size}licence {spec.licence}"
        if spec.any_file:
            kind = "folder" if spec.directory else "file"
            facts = f"{' or '.join([spec.filename, *spec.also])}, any such {kind}, licence {spec.licence}"
        hint = f"bcd-bench assets fetch {spec.name}"
        if not spec.urls:
            hint = f"bcd-bench assets add {spec.name} PATH   ({spec.how_to})"
        return MissingAssetError(f"asset {spec.name!r}{location}: {status.problem} ({facts})", hint=hint)
