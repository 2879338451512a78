"""The folder of one run: its plan, what became of every pair, the outputs, and who may write to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bcd_bench.assets.hashing import hash_json
from bcd_bench.io.atomic import TEMPORARY_SUFFIX, append_jsonl, read_jsonl, write_text_atomic
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.plan import RunPlan, read_plan
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.util.locking import locked

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["PairResult", "RunFolder", "find_runs"]


@dataclass(frozen=True)
class PairResult:
    """What became of one pair; one line of `pairs.jsonl`.

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
        """What scores of this output are kept under: its hash, and that of what the method said beside it."""
        key = self.output_sha256 or ""
        return key if self.info is None else hash_json([key, self.info])

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> PairResult | None:
        """The result of one line, or None where the line is not one."""
        try:
            return PairResult(**record)
        except TypeError:
            return None


class RunFolder:
    """Reads a run folder; `RunFolder.create` makes one for a plan.

    Raises `UsageError` where the folder holds no run, or one of another version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._root = self.path.absolute()  # a plugin that is at work meanwhile may have changed the working directory
        self.plan: RunPlan = read_plan(self.path / "plan.json")

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, out: Path, plan: RunPlan) -> RunFolder:
        """The folder of `plan` below `out`, made where it is not there yet.

        Raises `UsageError` where it cannot be written or holds another plan.
        """
        path = out / plan.folder
        with writing(path):
            (path / "outputs").mkdir(parents=True, exist_ok=True)
            (path / "scores").mkdir(exist_ok=True)
            if not (path / "plan.json").exists():
                plan.save(path / "plan.json")
        run = cls(path)
        if run.plan.identity != plan.identity or run.plan.pairs != plan.pairs or run.plan.batch_size != plan.batch_size:
            raise UsageError(f"{path} holds another plan than this one", hint="run again with another --out")
        if run.plan.suite.data != plan.suite.data:  # the same data in another place: scoring has to find it later
            run.plan = run.plan.model_copy(update={"suite": plan.suite})
            with writing(path):
                run.plan.save(path / "plan.json")
        return run

    @property
    def outputs_dir(self) -> Path:
        return self._root / "outputs"

    @property
    def scores_dir(self) -> Path:
        return self._root / "scores"

    @property
    def record_path(self) -> Path:
        return self._root / "record.json"

    @property
    def env_path(self) -> Path:
        return self._root / "env.json"

    @property
    def pairs_path(self) -> Path:
        return self._root / "pairs.jsonl"

    def pairs(self) -> dict[str, PairResult]:
        """Pair id -> its latest result, in the order of the plan; unfinished pairs are absent, torn lines ignored."""
        latest: dict[str, PairResult] = {}
        for record in read_jsonl(self.pairs_path):
            result = PairResult.from_json(record)
            if result is not None:
                latest[result.id] = result
        return {pair.id: latest[pair.id] for pair in self.plan.pairs if pair.id in latest}

    @property
    def complete(self) -> bool:
        """Whether every planned pair is finished, well or badly."""
        return len(self.pairs()) == len(self.plan.pairs)

    def record(self) -> dict[str, Any] | None:
        """The raw `record.json`, or None where the run has none yet."""
        try:
            found = json.loads(self.record_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise UsageError(f"{self.record_path} is damaged: not JSON", hint=f"bcd-bench score {self.path}") from None
        return found if isinstance(found, dict) else None

    def env(self) -> dict[str, Any]:
        """The `env.json` of the run; empty if there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = json.loads(self.env_path.read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    def output_path(self, pair_id: str) -> Path:
        return self.outputs_dir / f"{pair_id}.mkv"

    def read_output(self, result: PairResult) -> Clip:
        """The frames of a finished pair, checked against the hash noted when they were made.

        Raises `UsageError` where the file is missing or damaged.
        """
        from bcd_bench.io.video import read_video

        clip = read_video(self.output_path(result.id))
        if clip.sha256 != result.output_sha256:
            raise UsageError(
                f"{self.output_path(result.id)} has changed since it was made", hint="remove it and run again"
            )
        return Clip(clip.frames, result.fps or clip.fps, result.id)

    def suite(self, registry: Registry) -> Suite:
        """The suite of the run, built again. Raises `UsageError` where it is no longer the same pairs."""
        suite = load_suite(registry, self.plan.suite.name, {k: Path(v) for k, v in self.plan.suite.data.items()})
        if suite.manifest_sha256 != self.plan.suite.manifest_sha256:
            raise UsageError(
                f"suite {suite.name!r} is not what {self.path} was run on (version {self.plan.suite.version}, "
                f"manifest {self.plan.suite.manifest_sha256[:12]}; installed: version {suite.version}, "
                f"manifest {suite.manifest_sha256[:12]})",
                hint="run again",
            )
        return suite

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes to this run, as `locking.locked`; raises `UsageError` if another one does."""
        with contextlib.ExitStack() as stack:
            with writing(self.path):
                stack.enter_context(locked(self._root))
            yield

    def finished(self) -> dict[str, PairResult]:
        """As `pairs`, but only what can be built on: whole batches whose output files are there in full size."""
        results = self.pairs()
        for batch in self.plan.batches():
            ids = [self.plan.pairs[index].id for index in batch]
            if not all(pair_id in results and self._output_present(results[pair_id]) for pair_id in ids):
                for pair_id in ids:
                    results.pop(pair_id, None)
        return results

    def _output_present(self, result: PairResult) -> bool:
        if result.status != "ok":
            return True
        try:
            return self.output_path(result.id).stat().st_size == result.bytes
        except FileNotFoundError:
            return False

    def rewrite_pairs(self, results: Mapping[str, PairResult]) -> None:
        """Make `pairs.jsonl` hold exactly these results, one line each, if it does not already."""
        text = "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results.values())
        if not self.pairs_path.exists() or self.pairs_path.read_text(encoding="utf-8", errors="replace") != text:
            write_text_atomic(self.pairs_path, text)

    def append_pairs(self, results: Iterable[PairResult]) -> None:
        append_jsonl(self.pairs_path, (asdict(result) for result in results))

    def remove_leftovers(self) -> None:
        """Delete temporary files of a killed process. Only under `locked`."""
        for folder in (self._root, self.outputs_dir, self.scores_dir):
            for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into one clear line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"cannot write to {path}: {reason}", hint="mend that, and the same command continues"
        ) from error


def find_runs(paths: Iterable[Path]) -> list[RunFolder]:
    """Run folders at or below `paths`, sorted, each once. Raises `UsageError` for a path that is or holds no run."""
    found: dict[Path, RunFolder] = {}
    for path in paths:
        plans = [path / "plan.json"] if (path / "plan.json").exists() else sorted(path.glob("**/plan.json"))
        if not plans:
            raise UsageError(f"{path}: no run folder there", hint="bcd-bench run --method M --suite S")
        for plan in plans:
            found.setdefault(plan.parent.resolve(), RunFolder(plan.parent))
    return list(found.values())
