"""Run folders: the plan, the result of every pair, the outputs, and the lock for writing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bcd_bench.assets.hashing import hash_json
from bcd_bench.io.atomic import TEMPORARY_SUFFIX, append_jsonl, iterate_jsonl, write_text_atomic, written_as
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.plan import RunPlan, read_plan
from bcd_bench.run.shard import SHARDS, Shard
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.util.collector import collector_paused
from bcd_bench.util.locking import locked

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["PairResult", "RunFolder", "find_runs", "output_in", "read_output", "writing"]


@dataclass(frozen=True, slots=True)
class PairResult:
    """The result of one pair; one line of `pairs.jsonl`.

    `output_sha256` is the hash of the output's frames (`Clip.sha256`), `frames` their number, `bytes` the size of the
    file. `seconds` is the pair's share of its batch, `info` the output's `Clip.info`. A failed pair has an `error` and
    no output.
    """

    id: str
    status: Literal["ok", "failed"]
    seconds: float
    output_sha256: str | None = None
    frames: int | None = None
    fps: float | None = None
    bytes: int | None = None
    error: str | None = None
    info: dict[str, Any] | None = None

    @property
    def score_key(self) -> str:
        """The cache key of this output's scores: its hash, combined with that of `info` if there is any."""
        key = self.output_sha256 or ""
        return key if self.info is None else hash_json([key, self.info])

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> PairResult | None:
        """The result on one line, or None if the line does not contain one."""
        try:
            return PairResult(**record)
        except TypeError:
            return None

    def to_json(self) -> dict[str, Any]:
        """The result as it is written on its line."""
        return {name: getattr(self, name) for name in self.__slots__}


class RunFolder:
    """Reads a run folder; `RunFolder.create` creates one for a plan.

    With `shard`, it is the part of that shard: outputs are those of the run, everything else is in a folder of the
    shard, so that several machines can write at the same time. Raises `UsageError` if the folder does not contain a
    run, or if its format is of a different version.
    """

    def __init__(self, path: Path | str, shard: Shard | None = None) -> None:
        self.path = Path(path)
        self.shard = shard
        self._root = self.path.absolute()  # plugins can change the working directory while they run
        self._part = self._root if shard is None else self._root / SHARDS / shard.name
        self.plan: RunPlan = read_plan(self.path / "plan.json")

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, out: Path, plan: RunPlan, shard: Shard | None = None) -> RunFolder:
        """The folder of `plan` below `out`, or a shard's part of it; created if it does not exist.

        Raises `UsageError` if it cannot be written, contains a different plan, or contains unmerged shards while
        `shard` is None, or results of the whole run while it is not.
        """
        path = out / plan.folder
        with writing(path):
            (path / "outputs").mkdir(parents=True, exist_ok=True)
            (path / "scores").mkdir(exist_ok=True)
            if not (path / "plan.json").exists():
                plan.save(path / "plan.json")
        run = cls(path, shard)
        if shard is None and run.shards() and not run.complete:
            raise UsageError(
                f"{path} contains shards that are not merged", hint=f"bcd-bench merge {path}, or use a different --out"
            )
        if shard is not None and run.root().pairs_path.exists() and not run.root().complete:
            raise UsageError(f"{path} was started without --shard", hint="finish it without --shard")
        other = next((found for found in run.shards() if shard is not None and found.count != shard.count), None)
        if shard is not None and other is not None:
            raise UsageError(
                f"{path} contains shards of {other.count}, not of {shard.count}",
                hint=f"--shard {min(shard.number, other.count)}/{other.count}, or a different --out",
            )
        with writing(path):
            run.scores_dir.mkdir(parents=True, exist_ok=True)
        if run.plan.identity != plan.identity or run.plan.pairs != plan.pairs or run.plan.batch_size != plan.batch_size:
            raise UsageError(f"{path} contains a different plan", hint="use a different --out")
        run.plan = run.plan.model_copy(update={"pairs": plan.pairs})  # equal; one copy is enough
        if run.plan.suite.data != plan.suite.data:  # the same data at a new path: scoring has to find it later
            run.plan = run.plan.model_copy(update={"suite": plan.suite})
            with writing(path):
                run.plan.save(path / "plan.json")
        return run

    @property
    def outputs_dir(self) -> Path:
        return self._root / "outputs"

    def root(self) -> RunFolder:
        """The whole run that a shard is part of."""
        return RunFolder(self.path)

    def shards(self) -> dict[Shard, RunFolder]:
        """The parts of shards in this folder that are not merged, in order."""
        folder = self._root / SHARDS
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        found = [shard for shard in map(Shard.from_name, names) if shard is not None]
        return {shard: RunFolder(self.path, shard) for shard in found}

    def indices(self) -> Iterator[int]:
        """Indices into `plan.pairs` of the pairs of this run or shard."""
        for index in range(len(self.plan.pairs)):
            if self.shard is None or self.shard.has(index, self.plan.part_size):
                yield index

    @property
    def part(self) -> Path:
        """The folder of everything except outputs, plan and record: the run folder, or that of the shard."""
        return self._part

    @property
    def scores_dir(self) -> Path:
        return self._part / "scores"

    @property
    def record_path(self) -> Path:
        return self._root / "record.json"

    @property
    def env_path(self) -> Path:
        return self._part / "env.json"

    @property
    def pairs_path(self) -> Path:
        return self._part / "pairs.jsonl"

    def pairs(self) -> dict[str, PairResult]:
        """Pair id -> its latest result, in plan order; unfinished pairs are absent, incomplete lines ignored."""
        return self._in_plan_order(self._read_pairs())

    @collector_paused()
    def _read_pairs(self) -> dict[str, PairResult]:
        """As `pairs`, but in the order of the file and including results that are not in the plan."""
        latest: dict[str, PairResult] = {}
        for record in iterate_jsonl(self.pairs_path):
            result = PairResult.from_json(record)
            if result is not None:
                latest[result.id] = result
        return latest

    def _in_plan_order(self, latest: Mapping[str, PairResult]) -> dict[str, PairResult]:
        return {pair.id: latest[pair.id] for pair in self.plan.pairs if pair.id in latest}

    @property
    def complete(self) -> bool:
        """True if every pair of this run or shard is finished, successfully or not."""
        return len(self.pairs()) == sum(1 for _ in self.indices())

    def record(self) -> dict[str, Any] | None:
        """The raw `record.json`, or None if the run does not have one yet."""
        try:
            content = json.loads(self.record_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise UsageError(f"{self.record_path} is damaged: not JSON", hint=f"bcd-bench score {self.path}") from None
        return content if isinstance(content, dict) else None

    def env(self) -> dict[str, Any]:
        """The `env.json` of the run; empty if there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            content = json.loads(self.env_path.read_bytes())
            return content if isinstance(content, dict) else {}
        return {}

    def output_path(self, pair_id: str) -> Path:
        return output_in(self.outputs_dir, pair_id)

    def read_output(self, result: PairResult) -> Clip:
        """As `read_output`, of a finished pair of this run."""
        return read_output(self.output_path(result.id), result)

    def suite(self, registry: Registry) -> Suite:
        """Build the suite of the run. Raises `UsageError` if its pairs have changed since."""
        suite = load_suite(registry, self.plan.suite.name, {k: Path(v) for k, v in self.plan.suite.data.items()})
        if suite.manifest_sha256 != self.plan.suite.manifest_sha256:
            raise UsageError(
                f"suite {suite.name!r} differs from the one that {self.path} was run on "
                f"(version {self.plan.suite.version}, manifest {self.plan.suite.manifest_sha256[:12]}; "
                f"installed: version {suite.version}, manifest {suite.manifest_sha256[:12]})",
                hint="run again",
            )
        return suite

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for writing, as `locking.locked`. Raises `UsageError` if another process holds the lock."""
        with contextlib.ExitStack() as stack:
            with writing(self.path):
                stack.enter_context(locked(self._part))
            yield

    def batches(self) -> Iterator[tuple[int, range]]:
        """Number and pair indices of every planned batch of this run or shard."""
        for number, batch in enumerate(self.plan.batches()):
            if self.shard is None or self.shard.has(batch.start, self.plan.part_size):
                yield number, batch

    def finished(self) -> dict[str, PairResult]:
        """As `pairs`, but only for complete batches whose output files exist and have the recorded size."""
        return self._of_complete_batches(self.pairs())

    def _of_complete_batches(self, results: dict[str, PairResult]) -> dict[str, PairResult]:
        outputs = str(self.outputs_dir)
        for _, batch in self.batches():
            ids = [self.plan.pairs[index].id for index in batch]
            if not all(pair_id in results and _is_present(outputs, results[pair_id]) for pair_id in ids):
                for pair_id in ids:
                    results.pop(pair_id, None)
        return results

    def clean_pairs(self, *, finished_only: bool) -> dict[str, PairResult]:
        """`pairs`, or `finished`; `pairs.jsonl` is rewritten if it contains anything else or another order. Call this
        only while holding the lock (`locked`)."""
        latest = self._read_pairs()
        results = self._in_plan_order(latest)
        if finished_only:
            results = self._of_complete_batches(results)
        if list(latest) != list(results) or _n_lines(self.pairs_path) != len(results):
            self.rewrite_pairs(results)
        return results

    def rewrite_pairs(self, results: Mapping[str, PairResult]) -> None:
        """Rewrite `pairs.jsonl` with exactly these results, one line each."""
        encode = json.JSONEncoder(ensure_ascii=False).encode
        write_text_atomic(self.pairs_path, "".join(encode(result.to_json()) + "\n" for result in results.values()))

    def append_pairs(self, results: Iterable[PairResult]) -> None:
        append_jsonl(self.pairs_path, map(PairResult.to_json, results))

    def remove_leftovers(self) -> None:
        """Delete temporary files of a killed process. Call this only while holding the lock (`locked`)."""
        own = None if self.shard is None else {output_name(self.plan.pairs[index].id) for index in self.indices()}
        for leftover in self.outputs_dir.glob(f".*{TEMPORARY_SUFFIX}"):
            if own is None or written_as(leftover) in own:  # other shards may be writing theirs
                leftover.unlink(missing_ok=True)
        for folder in (self._part, self.scores_dir):
            for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)


def _n_lines(path: Path) -> int:
    """The number of lines of a file, -1 if it does not exist or its last line is incomplete."""
    n_lines, last = 0, b""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            n_lines, last = n_lines + chunk.count(b"\n"), chunk[-1:]
        return n_lines if last in (b"", b"\n") else -1
    return -1


def _is_present(outputs: str, result: PairResult) -> bool:
    """Whether the output of a pair has the recorded size. Called for every pair, hence no `Path`."""
    if result.status != "ok":
        return True
    try:
        return os.stat(f"{outputs}/{output_name(result.id)}").st_size == result.bytes  # noqa: PTH116 (thrice as fast)
    except FileNotFoundError:
        return False


def output_name(pair_id: str) -> str:
    """The name of the file of a pair's output."""
    return f"{pair_id}.mkv"


def output_in(outputs: Path, pair_id: str) -> Path:
    """The file of a pair's output in the folder of outputs."""
    return outputs / output_name(pair_id)


def read_output(path: Path, result: PairResult) -> Clip:
    """The frames of a finished pair, verified against the recorded hash.

    Raises `UsageError` if the file is missing or damaged.
    """
    from bcd_bench.io.video import read_video

    clip = read_video(path)
    if clip.sha256 != result.output_sha256:
        raise UsageError(f"{path} has changed since it was written", hint="delete it and run again")
    return Clip(clip.frames, result.fps or clip.fps, result.id)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an `OSError` (a full disk, a read-only folder) into a `UsageError` with a one-line message."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"cannot write to {path}: {reason}", hint="fix this and rerun the same command to resume"
        ) from error


def find_runs(paths: Iterable[Path]) -> list[RunFolder]:
    """Run folders at or below `paths`, sorted and unique. Raises `UsageError` for a path without any run."""
    runs: dict[Path, RunFolder] = {}
    for path in paths:
        plans = [path / "plan.json"] if (path / "plan.json").exists() else sorted(path.glob("**/plan.json"))
        if not plans:
            raise UsageError(f"{path}: no run folder found", hint="bcd-bench run --method M --suite S")
        for plan in plans:
            runs.setdefault(plan.parent.resolve(), RunFolder(plan.parent))
    return list(runs.values())
