"""Any command as a method: one worker process per run, which gets pairs one by one as JSON lines and frame files."""

from __future__ import annotations

import math
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bcd_bench.assets.hashing import hash_json, sha256_file
from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError, printable
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.external.exchange import Frames, output_path, read_output, write_input
from bcd_bench_baselines.external.worker import Worker, WorkerFailed

__all__ = ["External", "Worked", "identify"]

STARTS = 3
"""Number of starts of a command that never answers; its remaining pairs then fail without another attempt."""
NOT_HASHED = {"__pycache__", ".git", ".venv", "node_modules"}


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The command's words and the contents of the files named in it and in `files`, without their folders.

    Raises `UsageError` for invalid settings.
    """
    del pairs
    settings = _Settings(config)
    words, hashes = [], {}
    for index, word in enumerate(settings.command):
        path = settings.cwd / word
        is_file = path.is_file() and (index > 0 or "/" in word)
        words.append(path.name if is_file else word)
        if is_file:
            hashes[path.name] = sha256_file(path)
    for path in settings.files:
        hashes[path.name] = _sha256(path)
    return {"name": settings.name, "cmd": words, "files": hashes, "frames": settings.frames}


def _sha256(path: Path) -> str:
    """Hash of a file, or of all files below a folder by their names, excluding hidden folders and caches."""
    if path.is_file():
        return sha256_file(path)
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not NOT_HASHED.intersection(file.relative_to(path).parts)
    ]
    return hash_json({file.relative_to(path).as_posix(): sha256_file(file) for file in files})


class Worked:
    """Sends pairs to a worker, restarts it after failures, and converts errors to `Failed`."""

    def __init__(self, command: Sequence[str], *, cwd: Path | None, frames: Frames, timeout: float) -> None:
        self._command, self._cwd, self._frames, self._timeout = command, cwd, frames, timeout
        self._worker: Worker | None = None
        self._answered = False
        self._failures: list[str] = []

    def start(self) -> None:
        """Start the worker unless it is running. Raises `UsageError` if the command cannot be started."""
        if self._worker is None:
            self._worker = Worker(self._command, cwd=self._cwd)

    def one(self, pair: Pair, **more: Any) -> Clip | Failed:
        """The output of one pair; `more` is added to the request."""
        if not self._answered and len(self._failures) >= STARTS:
            return Failed(f"the command failed {STARTS} times and never answered: {self._failures[-1]}")
        content, motion = pair.content.load(), pair.motion.load()
        height, width = motion.frames.shape[1:3]
        with tempfile.TemporaryDirectory(prefix="bcd-bench-external-") as scratch:
            folder = Path(scratch)
            output = output_path(folder, self._frames)
            request = {
                "pair": pair.id,
                "content": str(write_input(folder, "content", content, self._frames)),
                "motion": str(write_input(folder, "motion", motion, self._frames)),
                "output": str(output),
                "frames": len(motion),
                "content_frames": len(content),
                "fps": motion.fps,
                "content_fps": content.fps,
                "height": height,
                "width": width,
                **more,
            }
            try:
                self.start()
                assert self._worker is not None
                answer = self._worker.ask(request, self._timeout)
            except WorkerFailed as failure:
                self._worker = None
                self._failures.append(str(failure))
                return Failed(str(failure))
            self._answered = True
            error, info = answer.get("error"), answer.get("info")
            if error:
                return Failed(f"the worker reported an error: {printable(str(error))[:500]}")
            if info is not None and not isinstance(info, dict):
                return Failed("the worker's info is not a JSON object")
            try:
                frames = read_output(output, self._frames, len(motion), (height, width))
            except UsageError as wrong:
                return Failed(str(wrong).replace(f"{output}/", "").replace(f"{scratch}/", ""))
        return Clip(frames, motion.fps, pair.id, info)

    def close(self) -> None:
        """Stop the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class External:
    """Settings: `cmd`, split like in a shell but run without one; `cwd`, its working directory; `files`, further files
    whose contents determine the outputs; `frames`, png, npy or mkv; `timeout` in seconds per pair; `name`, shown in
    tables."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = _Settings(config)
        self._worked = Worked(settings.command, cwd=settings.cwd, frames=settings.frames, timeout=settings.timeout)
        self._device = "cpu"

    def load(self, weights: Path | None, device: str) -> None:
        """Start the command. Raises `UsageError` if it cannot be started, or if weights are passed."""
        if weights is not None:
            raise UsageError(
                "method 'external' does not accept weights", hint="pass them in the command, and in files=PATH"
            )
        self._device = device
        self._worked.start()

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield one output per pair, requested one by one, so that pairs are independent."""
        for pair in pairs:
            yield self._worked.one(pair, seed=pair_seed(seed, pair.id), device=self._device)

    def close(self) -> None:
        """Stop the worker and all its child processes."""
        self._worked.close()


class _Settings:
    """The validated settings of `external`. Raises `UsageError`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.name = str(config["name"])
        self.cwd = Path(str(config["cwd"] or ".")).expanduser().resolve()
        if not self.cwd.is_dir():
            raise UsageError(f"cwd={config['cwd']}: no such folder", hint="--set cwd=FOLDER")
        try:
            self.command = shlex.split(str(config["cmd"]))
        except ValueError as error:
            raise UsageError(f"cmd={config['cmd']!r} cannot be split into words: {error}") from None
        if not self.command:
            raise UsageError("method 'external' needs a command", hint='--set cmd="python my_method.py"')
        self.files = [self.cwd / word for word in _listed(config["files"])]
        for path in self.files:
            if not path.exists():
                raise UsageError(f"files={path}: no such file or folder", hint="--set files=PATH,PATH")
        self.frames: Frames = config["frames"]
        if self.frames not in get_args(Frames):
            raise UsageError(f"frames={self.frames!r}: must be one of {', '.join(get_args(Frames))}")
        self.timeout = config["timeout"]
        is_number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not is_number or not (math.isfinite(self.timeout) and self.timeout > 0):
            raise UsageError(f"timeout={self.timeout!r} must be a positive number of seconds", hint="--set timeout=300")


def _listed(value: Any) -> list[str]:
    """`"a,b"` or `["a", "b"]` as a list of words."""
    words = value if isinstance(value, list) else str(value).split(",")
    return [str(word).strip() for word in words if str(word).strip()]
