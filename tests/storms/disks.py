"""Disks that are full, have no inodes left, become read-only, or fail."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.storms.kit import RUN, Damage, Lab, Storm, finished_like, judged

PLENTY = "64m"
FIU = shutil.which("fiu-run")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    place = folder / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def used(reference: Path) -> tuple[int, int]:
    """Pages of 4 KiB and inodes of a finished run."""
    files = [path for path in reference.rglob("*") if path.is_file()]
    pages = sum(-(-path.stat().st_size // 4096) for path in files)
    return pages, len(list(reference.rglob("*"))) + 4


def repaired(lab: Lab, disk: Path, damage: Damage, options: str) -> Damage:
    """Repair the disk, and run the same command: it has to end like an undisturbed run."""
    mount("-o", f"remount,{options}", str(disk))
    damage.add(finished_like(lab, disk))
    return damage


def full_disk(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    reference = lab.reference()
    pages, _ = used(reference)
    with tmpfs(folder, f"size={rng.randint(2, pages + 4) * 4}k") as disk:
        damage = judged(lab.finish(*RUN, "--jobs", str(rng.randint(1, 2)), cwd=disk), codes=(0, 2))
        return repaired(lab, disk, damage, f"size={PLENTY}")


def no_inodes(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    reference = lab.reference()
    _, inodes = used(reference)
    with tmpfs(folder, f"size={PLENTY},nr_inodes={rng.randint(4, inodes + 4)}") as disk:
        damage = judged(lab.finish(*RUN, cwd=disk), codes=(0, 2))
        return repaired(lab, disk, damage, "nr_inodes=10000")


def read_only(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """The disk becomes read-only at any moment. A file that is open for writing delays that, as everywhere."""
    seconds = lab.run_seconds()
    with tmpfs(folder, f"size={PLENTY}") as disk:
        process = lab.start(*RUN, cwd=disk)
        time.sleep(rng.uniform(0, seconds))
        while process.poll() is None:
            if (
                subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False, capture_output=True).returncode
                == 0
            ):
                break
            time.sleep(0.01)
        damage = judged(lab.end(process), codes=(0, 2))
        mount("-o", "remount,rw", str(disk))
        damage.add(finished_like(lab, disk))
        return damage


def failing_disk(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """Some writes, syncs and renames fail, by libfiu."""
    fault = rng.choice(["rw/write", "rw/pwrite", "sync/fsync", "dir/rename", "dir/mkdir"])
    prefix = [str(FIU), "-x", "-c", f"enable_random name=posix/io/{fault},probability={10 ** rng.uniform(-3, -1)}"]
    process = lab.start(*RUN, "--jobs", "1", cwd=folder, prefix=prefix)
    ended = lab.end(process)
    damage = judged(ended) if ended.hung else Damage()  # writing the message of the failure can fail, too
    damage.add(finished_like(lab, folder))
    return damage


def needs_root() -> str:
    return "" if os.geteuid() == 0 and shutil.which("mount") else "only root can mount"


def needs_fiu() -> str:
    return "" if FIU else "libfiu (fiu-utils) is not installed"


STORMS = [
    Storm("disk full", full_disk, 50, needs_root),
    Storm("no inodes left", no_inodes, 20, needs_root),
    Storm("disk becomes read-only", read_only, 20, needs_root),
    Storm("failing disk", failing_disk, 50, needs_fiu),
]
