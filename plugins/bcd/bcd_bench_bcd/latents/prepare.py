"""`bcd-bench prepare bcd`: encode the videos of a preset once into a cache of latents."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.plugin.specs import SuiteSpec, TrainingVideos
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.util.devices import DEVICES, device_name

if TYPE_CHECKING:
    from bcd_bench_bcd.latents.cache import CacheIndex, Shard
    from bcd_bench_bcd.latents.encode_shards import ShardJob
    from bcd_bench_bcd.presets.base import Preset

__all__ = ["SplitClip", "command", "training_videos"]

SHARD_VIDEOS = 64
"""Videos per file: limits the work lost on an interruption, and the memory needed."""
SHOWN = 20


@dataclass(frozen=True)
class SplitClip:
    """A clip of a training split that is not a file, such as a rendered one."""

    factory: str
    index: int
    data: Mapping[str, Path] = field(default_factory=dict)
    version: str = ""
    """Version of the suite, which changes with its pixels."""

    def load(self) -> Clip:
        split = _split(self.factory, tuple(sorted(self.data.items())))
        return Clip(split.clips([self.index])[0], split.fps)

    def describe(self) -> dict[str, Any]:
        return {"kind": "split", "factory": self.factory, "index": self.index, "version": self.version}


@lru_cache(maxsize=1)
def _split(factory: str, data: tuple[tuple[str, Path], ...]) -> TrainingClips:
    clips: TrainingClips = load_factory(factory)(dict(data))
    return clips


def training_videos(spec: SuiteSpec, data: Mapping[str, Path]) -> TrainingVideos:
    """The training data of a suite: whole videos if it has them, else the clips of its training split.

    Raises `UsageError` if it has neither, or if `--data` is missing; `MissingAssetError` for its assets.
    """
    from bcd_bench.assets.store import AssetStore
    from bcd_bench.plugin.registry import load_registry

    for name in data:
        if name not in spec.data:
            raise UsageError(f"--data {name}: suite {spec.name!r} accepts {', '.join(spec.data) or 'no data'}")
    for name in spec.data:
        if name not in data:
            raise UsageError(f"suite {spec.name!r} needs data {name!r}", hint=f"--data {name}=PATH")
        if not data[name].exists():
            raise UsageError(f"data {name!r} of suite {spec.name!r} does not exist: {data[name]}")
    store = AssetStore(load_registry())
    paths = dict(data) | {asset: store.find(asset) for asset in spec.assets}
    if spec.training_videos:
        videos = load_factory(spec.training_videos)(paths)
        if not isinstance(videos, TrainingVideos):
            raise UsageError(f"suite {spec.name!r} is broken: its training videos are a {type(videos).__name__}")
        return videos
    if not spec.training:
        raise UsageError(
            f"suite {spec.name!r} has no training data", hint="choose another one with --set train.suite=NAME"
        )
    split = load_factory(spec.training)(paths)
    frames = split.clips([0]).shape[1] if len(split) else 0
    clips = tuple(
        ClipRef(f"clip-{index:06d}", SplitClip(spec.training, index, paths, spec.version), frames=frames)
        for index in range(len(split))
    )
    return TrainingVideos(clips, split.fps)


def command(
    name: Annotated[str, typer.Argument(help="Trainable to prepare data for: bcd.")],
    preset: Annotated[str, typer.Option(help="A preset that uses latents.")] = "lrs3",
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="The videos of the suite.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder (default: latents/PRESET).")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of parallel encoding processes.")] = 1,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N videos.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check finished shards and re-encode damaged ones.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan without encoding.")] = False,
    plan: Annotated[bool, typer.Option("--plan", hidden=True)] = False,
) -> None:
    """Decode, crop and encode the videos of a preset once, into a folder for `train --data latents=PATH`.

    Videos that cannot be used are listed and skipped. Rerun the same command to resume. Under torchrun or Slurm's srun
    every process encodes its share of the shards.
    """
    from bcd_bench.cli.common import parse_data, parse_settings
    from bcd_bench.plugin.registry import load_registry
    from bcd_bench_bcd.presets.registry import resolve_preset

    if name != "bcd":
        raise UsageError(f"{name!r}: data can be prepared for bcd only", hint="bcd-bench prepare bcd")
    resolved = resolve_preset(preset, parse_settings(settings or [], "--set"))
    if resolved.model.latent is None:
        raise UsageError(
            f"preset {preset!r} uses pixels and needs no latents", hint=f"bcd-bench train bcd --preset {preset}"
        )
    spec: SuiteSpec = load_registry().suite(resolved.train.suite)
    videos = training_videos(spec, parse_data(data or []))
    folder = Path("latents") / preset if out is None else out
    _print_some(videos.notes, "note: ")
    Preparation(resolved, spec.name, videos, folder, device_name(device), limit).run(
        jobs=jobs, verify=verify, plan=dry_run or plan
    )


def _print_some(lines: Sequence[str], before: str, where: str = "") -> None:
    """Print the first lines, then how many more there are and where to find them."""
    for line in lines[:SHOWN]:
        print(before + line)
    if len(lines) > SHOWN:
        print(f"{before}and {len(lines) - SHOWN} more{where}")


class Preparation:
    """The encoding of one cache."""

    def __init__(
        self, preset: Preset, suite: str, found: TrainingVideos, out: Path, device: str, limit: int | None = None
    ) -> None:
        from bcd_bench_bcd.latents.autoencoders import open_autoencoder
        from bcd_bench_bcd.latents.encode_shards import Recipe, ShardJob

        self.out, self.suite, self.fps = out, suite, found.fps
        self.rank, self.world = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        self.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" and self.world > 1 else device
        sha256 = open_autoencoder(preset.model).sha256
        self.recipe = Recipe(preset.model, preset.train.frame_step, sha256)
        self.videos, self.unusable = found.videos[:limit], found.notes
        if not self.videos:
            raise UsageError("there are no videos to encode" + (f": {found.notes[0]}" if found.notes else ""))
        self.jobs: list[ShardJob] = [
            ShardJob(number, tuple(self.videos[start : start + SHARD_VIDEOS]), self.recipe, out)
            for number, start in enumerate(range(0, len(self.videos), SHARD_VIDEOS))
        ]

    def bytes_of(self, jobs: Sequence[ShardJob]) -> int:
        """Size of the latents of these shards in bytes, as far as the suite knows the lengths of its videos."""
        frames = sum((ref.frames or 0) // self.recipe.frame_step + 1 for job in jobs for ref in job.videos)
        height, width = self.recipe.model.grid
        return 2 * frames * self.recipe.model.channels * height * width

    def run(self, *, jobs: int = 1, verify: bool = False, plan: bool = False) -> CacheIndex | None:
        """Encode missing shards; returns the finished cache, or None with `plan` or while other processes still encode.

        Raises `UsageError` if the disk is full (finished shards are kept), `Interrupted` after Ctrl-C.
        """
        from bcd_bench.assets.store import format_size
        from bcd_bench_bcd.latents.encode_shards import finished_shard

        missing = [job for job in self.jobs if finished_shard(job, verify=verify) is None]
        assigned = [job for job in missing if job.number % self.world == self.rank]
        finished = len(self.jobs) - len(missing)
        needed = self.bytes_of(assigned)
        print(
            f"{len(self.videos)} videos, frame step {self.recipe.frame_step}, {list(self.recipe.model.frame_size)} "
            f"pixels -> {self.recipe.model.channels} x {list(self.recipe.model.grid)} latents of "
            f"{self.recipe.model.latent.vae if self.recipe.model.latent else ''}: "
            f"{format_size(self.bytes_of(self.jobs))} in {len(self.jobs)} shards, {finished} of them finished"
        )
        if plan:
            return None
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.out).free
        except OSError as error:
            raise UsageError(
                f"{self.out}: cannot be written ({error.strerror})", hint="use a different --out"
            ) from None
        if needed > free:
            raise UsageError(
                f"{self.out}: the latents need {format_size(needed)}, {format_size(free)} are free",
                hint="use a different --out, or free disk space",
            )
        self._make(assigned, jobs)
        return self._finish()

    def _make(self, mine: Sequence[ShardJob], jobs: int) -> None:
        from bcd_bench.util.progress import NoProgress, open_progress

        done = 0
        progress = open_progress() if mine and self.rank == 0 else NoProgress()
        try:
            with progress.task("prepare", total=sum(len(job.videos) for job in mine), unit="videos") as task:
                for job, shard in self._made(mine, jobs):
                    done += 1
                    for skipped in shard.left_out:
                        task.message(f"{skipped.id}: left out: {skipped.reason}")
                    task.advance(len(job.videos))
        except OSError as error:
            raise UsageError(
                f"{self.out}: cannot be written ({error.strerror or error}); {done} of {len(mine)} shards of this call "
                "are finished and kept",
                hint="free disk space, then rerun the same command to resume",
            ) from None
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted after {done} of {len(mine)} shards", hint="rerun the same command to resume"
            ) from None

    def _made(self, mine: Sequence[ShardJob], jobs: int) -> Iterator[tuple[ShardJob, Shard]]:
        from bcd_bench_bcd.latents.encode_shards import make_shard

        if jobs == 1 or len(mine) < 2:
            for job in mine:
                yield job, make_shard(job, self.device)
            return
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed

        threads = max(1, (os.cpu_count() or 1) // jobs)
        spawn = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
        with ProcessPoolExecutor(min(jobs, len(mine)), mp_context=spawn) as pool:
            waiting = {pool.submit(make_shard, job, self.device, threads): job for job in mine}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _finish(self) -> CacheIndex | None:
        from bcd_bench.assets.store import format_size
        from bcd_bench.io.atomic import write_text_atomic
        from bcd_bench_bcd.latents.cache import CACHE, CacheIndex, MeasuredLatents
        from bcd_bench_bcd.latents.encode_shards import finished_shard, totals

        shards = [shard for job in self.jobs if (shard := finished_shard(job)) is not None]
        if len(shards) < len(self.jobs):
            print(f"{len(shards)} of {len(self.jobs)} shards are finished; other processes encode the rest")
            return None
        if not any(shard.count for shard in shards):
            raise BcdBenchError("no video could be used; see the reasons above")
        mean, std = totals(shards)
        latent = self.recipe.model.latent
        assert latent is not None
        index = CacheIndex(
            suite=self.suite,
            latent=MeasuredLatents(
                vae=latent.vae, factor=latent.factor, sha256=self.recipe.autoencoder_sha256, mean=mean, std=std
            ),
            channels=self.recipe.model.channels,
            frame_size=self.recipe.model.frame_size,
            frame_step=self.recipe.frame_step,
            fps=self.fps / self.recipe.frame_step,
            shards=tuple(shards),
            unusable=self.unusable,
        )
        write_text_atomic(self.out / CACHE, index.model_dump_json(indent=1) + "\n")
        skipped = [*self.unusable, *(f"{video.id}: {video.reason}" for shard in shards for video in shard.left_out)]
        hours = index.frames / index.fps / 3600
        size = format_size(sum(shard.size for shard in shards))
        print(f"{self.out}: {index.videos} videos, {hours:.2f} h, {size}; {len(skipped)} left out")
        _print_some(skipped, "  ", f", in {self.out / CACHE}")
        return index
