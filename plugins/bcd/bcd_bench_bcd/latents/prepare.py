"""`bcd-bench prepare bcd`: the videos a preset learns from, encoded once into a cache of latents."""

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
"""Videos in a file: what a stop costs at most, and what is held in memory."""
SHOWN = 20


@dataclass(frozen=True)
class SplitClip:
    """A clip of a training split that is no file of its own, such as one that is drawn."""

    factory: str
    index: int
    data: Mapping[str, Path] = field(default_factory=dict)
    version: str = ""
    """Of the suite, which changes with its pixels."""

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
    """What a suite offers to learn from: whole videos where it has them, else the clips of its training split.

    Raises `UsageError` where it has neither, or lacks `--data`; `MissingAssetError` for its assets.
    """
    from bcd_bench.assets.store import AssetStore
    from bcd_bench.plugin.registry import load_registry

    for name in data:
        if name not in spec.data:
            raise UsageError(f"--data {name}: suite {spec.name!r} takes {', '.join(spec.data) or 'no data'}")
    for name in spec.data:
        if name not in data:
            raise UsageError(f"suite {spec.name!r} needs data {name!r}", hint=f"--data {name}=PATH")
        if not data[name].exists():
            raise UsageError(f"data {name!r} of suite {spec.name!r} is not at {data[name]}")
    store = AssetStore(load_registry())
    given = dict(data) | {asset: store.find(asset) for asset in spec.assets}
    if spec.training_videos:
        found = load_factory(spec.training_videos)(given)
        if not isinstance(found, TrainingVideos):
            raise UsageError(f"suite {spec.name!r} is broken: its training videos are a {type(found).__name__}")
        return found
    if not spec.training:
        raise UsageError(f"suite {spec.name!r} has nothing to learn from", hint="--set train.suite=NAME")
    split = load_factory(spec.training)(given)
    frames = split.clips([0]).shape[1] if len(split) else 0
    videos = tuple(
        ClipRef(f"clip-{index:06d}", SplitClip(spec.training, index, given, spec.version), frames=frames)
        for index in range(len(split))
    )
    return TrainingVideos(videos, split.fps)


def command(
    name: Annotated[str, typer.Argument(help="What is to be trained: bcd.")],
    preset: Annotated[str, typer.Option(help="A preset that works on latents.")] = "lrs3",
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="The videos of the suite.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; by default latents/PRESET.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that encode at the same time.")] = 1,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N videos.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read finished shards again and mend damaged ones.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan without encoding.")] = False,
    plan: Annotated[bool, typer.Option("--plan", hidden=True)] = False,
) -> None:
    """Decode, crop and encode the videos a preset learns from, once, into a folder for `train --data latents=PATH`.

    Videos that cannot be used are listed and skipped. The same command continues where it stopped. Under torchrun or
    Slurm's srun every process makes its share of the shards.
    """
    from bcd_bench.cli.common import parse_data, parse_settings
    from bcd_bench.plugin.registry import load_registry
    from bcd_bench_bcd.presets.registry import resolve_preset

    if name != "bcd":
        raise UsageError(f"{name!r}: only bcd is prepared for", hint="bcd-bench prepare bcd")
    chosen = resolve_preset(preset, parse_settings(settings or [], "--set"))
    if chosen.model.latent is None:
        raise UsageError(
            f"preset {preset!r} works on pixels and needs no latents", hint=f"bcd-bench train bcd --preset {preset}"
        )
    spec: SuiteSpec = load_registry().suite(chosen.train.suite)
    found = training_videos(spec, parse_data(data or []))
    folder = Path("latents") / preset if out is None else out
    _print_some(found.notes, "note: ")
    Preparation(chosen, spec.name, found, folder, device_name(device), limit).run(
        jobs=jobs, verify=verify, plan=dry_run or plan
    )


def _print_some(lines: Sequence[str], before: str, where: str = "") -> None:
    """The first lines, then how many more there are, and where."""
    for line in lines[:SHOWN]:
        print(before + line)
    if len(lines) > SHOWN:
        print(f"{before}and {len(lines) - SHOWN} more{where}")


class Preparation:
    """One cache in the making."""

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
            raise UsageError("there is no video to encode" + (f": {found.notes[0]}" if found.notes else ""))
        self.jobs: list[ShardJob] = [
            ShardJob(number, tuple(self.videos[start : start + SHARD_VIDEOS]), self.recipe, out)
            for number, start in enumerate(range(0, len(self.videos), SHARD_VIDEOS))
        ]

    def bytes_of(self, jobs: Sequence[ShardJob]) -> int:
        """What the latents of these shards take, where the suite knows how long its videos are."""
        frames = sum((ref.frames or 0) // self.recipe.frame_step + 1 for job in jobs for ref in job.videos)
        height, width = self.recipe.model.grid
        return 2 * frames * self.recipe.model.channels * height * width

    def run(self, *, jobs: int = 1, verify: bool = False, plan: bool = False) -> CacheIndex | None:
        """Make what is missing; the finished cache, or None where other processes still work on it.

        Raises `UsageError` for a full disk (finished shards stay), `Interrupted` after Ctrl-C.
        """
        from bcd_bench.assets.store import format_size
        from bcd_bench_bcd.latents.encode_shards import finished_shard

        missing = [job for job in self.jobs if finished_shard(job, verify=verify) is None]
        mine = [job for job in missing if job.number % self.world == self.rank]
        there = len(self.jobs) - len(missing)
        needed = self.bytes_of(mine)
        print(
            f"{len(self.videos)} videos, every {self.recipe.frame_step}. frame, {list(self.recipe.model.frame_size)} "
            f"pixels -> {self.recipe.model.channels} x {list(self.recipe.model.grid)} latents of "
            f"{self.recipe.model.latent.vae if self.recipe.model.latent else ''}: "
            f"{format_size(self.bytes_of(self.jobs))} in {len(self.jobs)} shards, {there} of them there"
        )
        if plan:
            return None
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.out).free
        except OSError as error:
            raise UsageError(f"{self.out}: cannot be written ({error.strerror})", hint="give another --out") from None
        if needed > free:
            raise UsageError(
                f"{self.out}: {format_size(needed)} of latents are to be written, {format_size(free)} are free",
                hint="give another --out, or make room",
            )
        self._make(mine, jobs)
        return self._finish()

    def _make(self, mine: Sequence[ShardJob], jobs: int) -> None:
        from bcd_bench.util.progress import NoProgress, open_progress

        done = 0
        progress = open_progress() if mine and self.rank == 0 else NoProgress()
        try:
            with progress.task("prepare", total=sum(len(job.videos) for job in mine), unit="videos") as task:
                for job, shard in self._made(mine, jobs):
                    done += 1
                    for left in shard.left_out:
                        task.message(f"{left.id}: left out: {left.reason}")
                    task.advance(len(job.videos))
        except OSError as error:
            raise UsageError(
                f"{self.out}: cannot be written ({error.strerror or error}); {done} of {len(mine)} shards of this call "
                "are finished and stay",
                hint="make room, then the same command continues",
            ) from None
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped after {done} of {len(mine)} shards", hint="the same command continues"
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
            print(f"{len(shards)} of {len(self.jobs)} shards are finished; other processes make the rest")
            return None
        if not any(shard.count for shard in shards):
            raise BcdBenchError("no video could be used; the reasons are above")
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
        left = [*self.unusable, *(f"{one.id}: {one.reason}" for shard in shards for one in shard.left_out)]
        hours = index.frames / index.fps / 3600
        size = format_size(sum(shard.size for shard in shards))
        print(f"{self.out}: {index.videos} videos, {hours:.2f} h, {size}; {len(left)} left out")
        _print_some(left, "  ", f", in {self.out / CACHE}")
        return index
