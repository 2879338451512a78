"""The LRS3 suites: pairs that depend on names and seed alone, bad clips named one by one, and help without data."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import SAFE_NAME, load_suite
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.types.suite import Suite
from bcd_bench_faces import plugin
from bcd_bench_faces.preprocess.video_folder import list_videos, safe_ids
from bcd_bench_faces.suites import lrs3
from bcd_bench_faces.suites.paper_results import DEFAULT_METRICS, REPORTED
from tests.faces.videos import scene, write

MINI = Path(os.environ.get("BCD_BENCH_TEST_LRS3", Path(__file__).parents[3] / "shared" / "data" / "lrs3-mini"))
CROSS_OF_MINI = "940e5bce23ed"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_modules([plugin])


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def crop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One face crop of 60 frames, 64 x 64, 25 fps."""
    return write(tmp_path_factory.mktemp("crop") / "crop.mp4", scene(60, (64, 64)), codec="mpeg4")


def tree(root: Path, crop: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(crop, root / name)
    return root


NAMES = [f"test/s{speaker}/{clip:05d}.mp4" for speaker in range(5) for clip in range(1, 2 + speaker % 3)]


def ids(suite: Suite) -> list[str]:
    return [pair.id for pair in suite.pairs]


def test_every_clip_drives_another_speaker_once(crop: Path, tmp_path: Path) -> None:
    suite = lrs3.cross_suite({"lrs3": tree(tmp_path, crop, NAMES)})
    assert (suite.name, suite.size, suite.fps, suite.notes) == ("lrs3-cross", (256, 256), 25.0, ())
    assert len(suite.pairs) == len(NAMES)
    assert sorted(pair.motion.id for pair in suite.pairs) == sorted(f"{name[5:7]}-{name[8:13]}@0-50" for name in NAMES)
    for pair in suite.pairs:
        assert pair.content.labels["subject"] != pair.motion.labels["subject"]
        assert (pair.content.frames, pair.motion.frames, pair.target) == (60, 50, None)
        assert SAFE_NAME.fullmatch(pair.id)
    clip = suite.pairs[0].motion.load()
    assert clip.frames.shape == (50, 256, 256, 3)
    assert pair.cluster == pair.content.labels["subject"]


def test_pairs_do_not_depend_on_the_place_or_the_order_of_files(crop: Path, tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    first = lrs3.cross_suite({"lrs3": tree(tmp_path / "a", crop, NAMES)})
    second = lrs3.cross_suite({"lrs3": tree(tmp_path / "b" / "c", crop, shuffled)})
    flat = lrs3.cross_suite({"lrs3": tmp_path / "a" / "test"})
    assert first.manifest_sha256 == second.manifest_sha256 == flat.manifest_sha256
    assert ids(first) == ids(second)
    assert str(tmp_path) not in json.dumps([pair.describe() for pair in first.pairs])
    assert all(
        a.motion.load().sha256 == b.motion.load().sha256 for a, b in zip(first.pairs[:2], second.pairs[:2], strict=True)
    )


def test_a_clip_that_goes_changes_the_pairs_of_its_neighbours_only(crop: Path, tmp_path: Path) -> None:
    names = [f"s{speaker:02d}/1.mp4" for speaker in range(12)]
    whole = set(ids(lrs3.cross_suite({"lrs3": tree(tmp_path / "a", crop, names)})))
    without = set(ids(lrs3.cross_suite({"lrs3": tree(tmp_path / "b", crop, names[:-1])})))
    assert len(whole - without) == 2
    assert len(without - whole) == 1


def test_content_variants_have_their_number_of_frames_and_another_manifest(
    registry: Registry, crop: Path, tmp_path: Path
) -> None:
    data = {"lrs3": tree(tmp_path, crop, NAMES)}
    manifests = {load_suite(registry, "lrs3-cross", data).manifest_sha256}
    for count in (1, 5, 15, 20):
        suite = load_suite(registry, f"lrs3-cross-content{count}", data)
        assert suite.name == f"lrs3-cross-content{count}"
        assert {pair.content.frames for pair in suite.pairs} == {count}
        assert {pair.motion.frames for pair in suite.pairs} == {50}
        manifests.add(suite.manifest_sha256)
    assert len(manifests) == 5


def test_self_pairs_are_halves_of_one_clip_with_the_driver_as_target(crop: Path, tmp_path: Path) -> None:
    suite = lrs3.self_suite({"lrs3": tree(tmp_path, crop, NAMES)})
    pair = suite.pairs[0]
    assert len(suite.pairs) == len(NAMES)
    assert pair.target is pair.motion
    content, motion = pair.content.load(), pair.motion.load()
    assert (len(content), len(motion)) == (30, 30)
    grey = [float(np.median(frame)) for frame in (content.frames[-1], motion.frames[0])]
    assert grey[1] - grey[0] == pytest.approx(1, abs=2)


def test_clips_that_cannot_be_used_are_named_and_left_out(crop: Path, tmp_path: Path) -> None:
    root = tree(tmp_path, crop, ["test/a/1.mp4", "test/b/1.mp4"])
    (root / "test/a/corrupt.mp4").write_bytes(b"no video at all" * 99)
    (root / "test/a/empty.mp4").write_bytes(b"")
    (root / "test/a/headless.mp4").write_bytes(crop.read_bytes()[:300])
    (root / "test/a/cut.mp4").write_bytes(crop.read_bytes()[: crop.stat().st_size * 2 // 3])
    (root / "test/a/1.txt").write_text("Text: HELLO")
    write(root / "test/a/one.mp4", scene(1, (64, 64)), codec="mpeg4")
    write(root / "test/a/fast.mp4", scene(40, (64, 64)), fps=30, codec="mpeg4")
    write(root / "test/a/wide.mp4", scene(30, (64, 96)), codec="mpeg4")
    (root / "test/stray.mp4").write_bytes(crop.read_bytes())
    suite = lrs3.cross_suite({"lrs3": root})
    assert len(suite.pairs) == 2
    notes = dict(note.split(": left out: ") for note in suite.notes)
    assert sorted(notes) == ["a/corrupt", "a/cut", "a/empty", "a/fast", "a/headless", "a/one", "a/wide"]
    assert notes["a/corrupt"] == "cannot be decoded: Invalid data found when processing input"
    assert re.fullmatch(r"damaged: \d+ of \d+ bytes are present", notes["a/cut"])
    assert notes["a/one"] == "too short (1 of 25 frames)"
    assert notes["a/fast"] == "30 frames per second, not 25; clips-cross accepts videos of any rate"
    assert notes["a/wide"] == "96 x 64 pixels is not a face crop; clips-cross crops faces itself"


def test_links_out_of_the_tree_are_not_followed(crop: Path, tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", crop, ["x/secret.mp4"])
    root = tree(tmp_path / "tree", crop, ["a/1.mp4", "b/1.mp4"])
    (root / "a" / "link.mp4").symlink_to(outside / "x" / "secret.mp4")
    (root / "a" / "gone.mp4").symlink_to(root / "nothing.mp4")
    (root / "c").symlink_to(outside / "x")
    (root / "b" / "own.mp4").symlink_to(root / "a" / "1.mp4")
    (root / "b" / "folder.mp4").mkdir()
    videos, notes = list_videos(root)
    assert [video.name for video in videos] == ["a/1", "b/1", "b/own"]
    assert sorted(notes) == [
        "a/gone.mp4: left out: a broken link",
        "a/link.mp4: left out: a link that points outside the folder (set BCD_BENCH_FOLLOW_LINKS=1 to follow)",
        "b/folder.mp4: left out: not a regular file",
        "c: left out: a link that points outside the folder (set BCD_BENCH_FOLLOW_LINKS=1 to follow)",
    ]


def test_ids_are_safe_and_unique_whatever_the_names(crop: Path, tmp_path: Path) -> None:
    names = ["é ü/naïve клип.mp4", "a-b/c.mp4", "a/b-c.mp4", "A/B-C.mp4", "-x/~y.mp4", "q/" + "long" * 40 + ".mp4"]
    names += ["v/same.mp4", "v/same.MP4", "v/.hidden.mp4"]
    videos, notes = list_videos(tree(tmp_path, crop, names))
    made = safe_ids(videos)
    assert notes == []
    assert len({one.casefold() for one in made}) == len(videos) == 8
    assert all(SAFE_NAME.fullmatch(one) for one in made)
    suite = lrs3.cross_suite({"lrs3": tmp_path})
    assert all(SAFE_NAME.fullmatch(pair.id) for pair in suite.pairs)


def test_one_name_in_two_unicode_forms_is_taken_once(crop: Path, tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    videos, notes = list_videos(tree(tmp_path, crop, [f"{composed}/1.mp4", f"{apart}/1.mp4"]))
    assert [video.name for video in videos] == [f"{composed}/1"]
    assert notes in ([], [f"{composed}/1: left out: another file has this name in another Unicode form"])


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "contains no valid pairs; expected"),
        (["test/a/1.mp4", "test/a/2.mp4"], "contains no valid pairs; expected clips of at least two speakers"),
        (["trainval/a/1.mp4"], "has trainval but no test folder"),
    ],
)
def test_a_tree_without_pairs_is_one_clear_error(crop: Path, tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        lrs3.cross_suite({"lrs3": tree(tmp_path, crop, names)})


def test_a_file_in_place_of_the_tree_is_one_clear_error(crop: Path) -> None:
    with pytest.raises(UsageError, match="is not a readable folder"):
        lrs3.cross_suite({"lrs3": crop})


def test_a_clip_that_breaks_later_costs_its_pairs_alone(crop: Path, tmp_path: Path) -> None:
    suite = lrs3.cross_suite({"lrs3": tree(tmp_path, crop, ["a/1.mp4", "b/1.mp4"])})
    (tmp_path / "a" / "1.mp4").write_bytes(b"gone bad")
    bad = next(pair for pair in suite.pairs if pair.motion.labels["subject"] == "a")
    with pytest.raises(UsageError, match="cannot read video"):
        bad.motion.load()


def test_without_data_the_error_says_who_can_and_what_else(registry: Registry) -> None:
    for name in (name for name in registry.suites if name.startswith("lrs3-")):
        with pytest.raises(MissingAssetError) as caught:
            load_suite(registry, name)
        assert (caught.value.exit_code, caught.value.hint) == (3, "--data lrs3=PATH")
        for part in ("no longer distributed", "If you have a copy", "heads-cross", "sprites-procedural", "clips-cross"):
            assert part in str(caught.value)


def test_the_papers_figures_are_quoted_and_share_no_column_of_mesh_errors() -> None:
    bcd = next(row for row in REPORTED if row.method == "BCD")
    assert dict(bcd.metrics) == {
        "fid": 86.0,
        "csim": 0.69,
        "shape-error (paper)": 0.41,
        "motion-error (paper)": 3.13,
        "cross-error (paper)": 3.67,
    }
    assert Counter(row.source.partition(", ")[2] for row in REPORTED) == {"Table 1": 6, "Table 3": 4, "Table A6": 1}
    assert DEFAULT_METRICS


def test_the_manifest_of_real_clips_is_fixed(registry: Registry) -> None:
    if not MINI.is_dir():
        pytest.skip(f"no LRS3 tree at {MINI} (BCD_BENCH_TEST_LRS3)")
    suite = load_suite(registry, "lrs3-cross", {"lrs3": MINI})
    assert (len(suite.pairs), suite.notes) == (30, ())
    assert suite.manifest_sha256.startswith(CROSS_OF_MINI)
    assert Counter(Counter(pair.content.id for pair in suite.pairs).values()) == {1: 28, 2: 1}
    clip = suite.pairs[0].content.load()
    assert clip.frames.shape == (100, 256, 256, 3)
    assert 40 < clip.frames.mean() < 200


def command(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # without assets, so that no network has to load: the metrics that need some are left out
    environment = {
        **os.environ,
        "BCD_BENCH_ASSETS": "",
        "BCD_BENCH_PLUGINS": "faces",
        "COLUMNS": "200",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    words = [sys.executable, "-m", "bcd_bench", *map(str, arguments)]
    return subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3600, check=False
    )


def test_run_from_the_command_line(crop: Path, tmp_path: Path) -> None:
    run = ("run", "--method", "copy-content", "--suite", "lrs3-cross", "--limit", "2")
    refused = command(tmp_path, *run)
    assert refused.returncode == 3
    assert "LRS3 is no longer distributed by its authors" in refused.stderr
    assert "hint: --data lrs3=PATH" in refused.stderr
    root = tree(tmp_path / "lrs3", crop, ["test/a/1.mp4", "test/b/1.mp4", "test/c/1.mp4"])
    (root / "test/a/bad.mp4").write_bytes(b"bad")
    done = command(tmp_path, *run, "--data", f"lrs3={root}")
    assert done.returncode == 0, done.stderr
    assert "note: a/bad: left out: cannot be decoded" in done.stderr
    assert "note: default metric flicker is skipped: no installed plugin provides it" in done.stderr
    record = json.loads(next(tmp_path.rglob("record.json")).read_text())
    assert (record["n_pairs"], record["n_failed"], record["limit"]) == (2, 0, 2)
    assert len(list((tmp_path / "runs").rglob("outputs/*.mkv"))) == 2
