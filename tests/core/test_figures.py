"""Figures: names, choice of pairs and frames, layout, and the files; on toy runs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_plugin as toy
from PIL import Image

from bcd_bench import Clip
from bcd_bench.cli.app import main
from bcd_bench.figures import draw, sheets
from bcd_bench.figures.canvas import CELL, GAP, LINE, Canvas, text_width, wrapped
from bcd_bench.figures.draw import Options, draw_figure, misleading
from bcd_bench.figures.names import ALIASES, FIGURES, figure_name
from bcd_bench.figures.sources import choose_pairs, frames_of, open_runs
from bcd_bench.figures.video import comparison_video
from bcd_bench.io.rgb import resize_frame
from bcd_bench.io.video import read_video, write_video_lossless
from bcd_bench.plugin.registry import Registry
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import make_plan
from bcd_bench.types.errors import UsageError

RATIO = toy.SIZE[1] / toy.SIZE[0]


@pytest.fixture(autouse=True)
def _home(bcd_bench_home: Path) -> None:
    """No test here touches the user's cache."""


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy])


def make_run(registry: Registry, out: Path, method: str = "noise", limit: int | None = None) -> Path:
    suite = toy.make_suite({})
    plan = make_plan(registry, method, suite, limit=limit, weights=None)
    folder, _ = generate(registry, plan, suite, out)
    return folder.path


# ---- names ---------------------------------------------------------------------------------------------------------
def test_figures_have_names_and_the_numbers_of_the_paper() -> None:
    assert figure_name("comparison") == "comparison"
    assert {figure_name(number) for number in ALIASES} == set(FIGURES)
    assert figure_name("A7") == figure_name("figure a7") == "rates"
    with pytest.raises(UsageError, match="unknown figure 'comparson'; nearest: comparison"):
        figure_name("comparson")
    with pytest.raises(UsageError, match="the architecture, a drawing"):
        figure_name("2")


# ---- pairs and frames ----------------------------------------------------------------------------------------------
def test_pairs_are_chosen_by_id_or_by_seed(registry: Registry, tmp_path: Path) -> None:
    sources, suite = open_runs([make_run(registry, tmp_path)], registry)
    assert [pair.id for pair in choose_pairs(sources, suite, ids=["p07", "p02"])] == ["p07", "p02"]
    by_seed = [[pair.id for pair in choose_pairs(sources, suite, seed=seed, count=5)] for seed in (0, 0, 1)]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    assert by_seed[0] == sorted(by_seed[0])
    subjects = {pair.content.labels["subject"] for pair in choose_pairs(sources, suite, seed=0, count=5)}
    assert len(subjects) == 5
    assert len(choose_pairs(sources, suite, count=7)) == 7  # more than there are subjects
    with pytest.raises(UsageError, match="has no pair 'p99'; nearest: p09"):
        choose_pairs(sources, suite, ids=["p99"])


def test_a_pair_that_a_run_lacks_is_named(registry: Registry, tmp_path: Path) -> None:
    folder = make_run(registry, tmp_path, limit=3)
    sources, suite = open_runs([folder], registry)
    with pytest.raises(UsageError, match="the output of pair p05 is not there"):
        choose_pairs(sources, suite, ids=["p05"])
    for path in (folder / "outputs").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="has no outputs of its 3 pairs"):
        open_runs([folder], registry)


def test_run_folders_that_do_not_fit_are_one_line(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run folder"):
        open_runs([tmp_path / "nothing"], registry)
    with pytest.raises(UsageError, match="is not a run folder"):
        open_runs([tmp_path], registry)
    one, other = make_run(registry, tmp_path / "a"), make_run(registry, tmp_path / "a", limit=2)
    with pytest.raises(UsageError, match="contains 2 runs; specify one run folder"):
        open_runs([tmp_path / "a"], registry)
    with pytest.raises(UsageError, match="1 labels for 2 runs"):
        open_runs([one, other], registry, ["a"])
    assert open_runs([make_run(registry, tmp_path / "b").parents[1]], registry)[0][0].label == "noise"


def test_frames_are_evenly_spaced() -> None:
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    assert frames_of(frames, 3)[:, 0, 0, 0].tolist() == [0, 4, 8]
    assert frames_of(frames, 1)[:, 0, 0, 0].tolist() == [4]
    assert len(frames_of(frames, 20)) == 9


# ---- the figures ---------------------------------------------------------------------------------------------------
def test_a_comparison_has_a_row_per_pair_and_a_block_per_run(registry: Registry, tmp_path: Path) -> None:
    runs = [make_run(registry, tmp_path), make_run(registry, tmp_path, limit=6)]
    options = Options(tuple(runs), pairs=("p02", "p05"), frames=3, labels=("first", "second"))
    canvas = draw_figure("comparison", options, registry)
    # content, then three frames each of the driving clip, two runs and the target
    assert len(canvas.pictures) == 2 * (1 + 3 * 4)
    suite = toy.make_suite({})
    assert (canvas.pictures[0][0] == suite.pairs[2].content.load().frames[0]).all()
    assert (canvas.pictures[12][0] == suite.pairs[2].target.load().frames[-1]).all()
    assert canvas.pictures[0][3:] == (CELL * RATIO, CELL)
    texts = [text for text, *_ in canvas.labels]
    assert texts[:5] == ["content", "driving clip", "first", "second", "ground truth"]
    assert "Pairs, from above: p02, p05." in " ".join(texts[-1].split())


def test_a_comparison_plays_all_clips_side_by_side(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bcd_bench.figures.video.ASPECT", 4.0)
    runs = [make_run(registry, tmp_path), make_run(registry, tmp_path, limit=6)]
    ids = ("p00", "p01", "p02", "p03", "p04", "p05")
    options = Options(tuple(runs), pairs=ids, labels=("first", "second"))
    draw.write_video(tmp_path / "new" / "pairs.mp4", options, registry)
    video = read_video(tmp_path / "new" / "pairs.mp4")
    suite = toy.make_suite({})
    motion = suite.pairs[0].motion.load()
    longest = max(len(clip.load()) for pair in suite.pairs[:6] for clip in (pair.content, pair.motion))
    assert (len(video), video.fps) == (longest, motion.fps)

    sources, _ = open_runs(runs, registry, ("first", "second"))
    frames, _ = comparison_video(sources, suite.pairs[:6])
    pages = list(frames)
    cell = round(CELL * RATIO)
    across = 5 * cell + 14
    # two columns of three pairs; headings of one line
    for pair, column, row in ((suite.pairs[0], 0, 0), (suite.pairs[2], 0, 2), (suite.pairs[4], 1, 1)):
        y = LINE + GAP + row * (CELL + GAP) + GAP
        for index, clip in ((0, pair.content), (1, pair.motion), (4, pair.target)):
            x = column * across + index * cell + GAP
            for time in (0, longest - 1):
                wanted = clip.load().frames
                frame = resize_frame(wanted[min(time, len(wanted) - 1)], (CELL, cell))
                np.testing.assert_array_equal(pages[time][y : y + CELL, x : x + cell], frame)


def test_headings_do_not_overlap(registry: Registry, tmp_path: Path) -> None:
    names = ("a method with a rather long name", "another-method-with-weights-and-a-number-2000", "short")
    options = Options((make_run(registry, tmp_path),) * 3, pairs=("p02",), frames=1, labels=names)
    canvas = draw_figure("comparison", options, registry)
    spans = []
    for text, x, _, style in canvas.labels[:-1]:
        width = max(text_width(line, style["fontsize"]) for line in text.splitlines())
        spans.append((x - width / 2, x + width / 2))
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))
    top = min(y for _, _, y, *_ in canvas.pictures)
    assert all(y + 16 * len(text.splitlines()) <= top for text, _, y, _ in canvas.labels[:-1])


def test_a_strip_has_a_row_per_variant_in_order_of_its_rate(registry: Registry, tmp_path: Path) -> None:
    import json

    runs = [make_run(registry, tmp_path / "runs"), make_run(registry, tmp_path / "runs", limit=6)]
    variants = [
        {"name": f"rate-{x}", "x": x, "runs": {"0": str(run.relative_to(tmp_path))}}
        for x, run in zip((4.0, 2.0), runs, strict=True)
    ]
    variants.append({"name": "rate-9", "x": 9.0, "runs": {"0": None}})
    state = {"ablation": "bitrate", "preset": "tiny", "variants": variants}
    (tmp_path / "ablation.json").write_text(json.dumps(state))
    canvas = draw_figure("rates", Options((tmp_path,), pairs=("p01",), frames=4), registry)
    texts = [text for text, *_ in canvas.labels]
    assert texts.index("rate-2.0") < texts.index("rate-4.0") < texts.index("ground truth")
    assert "rate-9" not in texts
    assert len(canvas.pictures) == 1 + 4 * 4
    (tmp_path / "ablation.json").write_text("{}")
    with pytest.raises(UsageError, match="is damaged"):
        draw_figure("rates", Options((tmp_path,)), registry)
    with pytest.raises(UsageError, match="neither a run folder nor the folder of an ablation"):
        draw_figure("rates", Options((tmp_path / "runs",)), registry)


def test_a_motion_grid_combines_every_content_with_every_motion(registry: Registry, tmp_path: Path) -> None:
    shades = {"a": 10, "b": 20}
    outputs = [[np.full((2, 8, 8, 3), shade + column, np.uint8) for column in range(3)] for shade in shades.values()]
    contents = [np.full((1, 8, 8, 3), shade, np.uint8) for shade in shades.values()]
    motions = [np.full((2, 8, 8, 3), column, np.uint8) for column in range(3)]
    canvas = sheets.motion_grid(contents, motions, outputs)
    assert len(canvas.pictures) == 3 * 2 + 2 * (1 + 3 * 2)
    place = {(frame[0, 0, 0], x, y) for frame, x, y, *_ in canvas.pictures}
    column = {x for shade, x, _ in place if shade == 1}  # the frames of driving clip 2
    assert {shade for shade, x, _ in place if x in column} == {1, 11, 21}
    row = {y for shade, _, y in place if shade == 20}  # the second content
    assert {shade for shade, _, y in place if y in row} == {20, 21, 22}


def test_generated_clips_have_their_prompt_first(tmp_path: Path) -> None:
    clip = toy.draw(1, 2, frames=9)
    write_video_lossless(tmp_path / "a.mkv", clip)
    options = Options((tmp_path / "a.mkv",), frames=4, prompt_frames=1)
    canvas = draw_figure("generation", options, Registry.from_modules([]))
    assert len(canvas.pictures) == 5
    assert len(canvas.frames) == 1  # only the prompt has a border
    assert (canvas.pictures[0][0] == clip.frames[0]).all()
    assert (canvas.pictures[1][0] == clip.frames[1]).all()
    assert (canvas.pictures[4][0] == clip.frames[8]).all()
    for changes, message in [
        ({"prompt_frames": 9}, "has 9 frames, all of them in the prompt"),
        ({"pairs": ("p01",)}, "--pair selects pairs of run folders"),
        ({"labels": ("a", "b")}, "2 labels for 1 videos"),
        ({"paths": (tmp_path / "b.mkv",)}, "no such file"),
    ]:
        with pytest.raises(UsageError, match=message):
            draw_figure("generation", Options(**{**options.__dict__, **changes}), Registry.from_modules([]))


def test_csim_misleads_where_it_is_high_and_the_error_is_too() -> None:
    csim = {"a": 0.9, "b": 0.8, "c": 0.5, "d": 0.2, "e": 0.1}
    errors = {"a": 50.0, "b": 1.0, "c": 20.0, "d": 2.0, "e": 60.0}
    high, low = misleading(csim, errors, list(csim), 1)
    assert (high, low) == (["a"], ["d"])
    assert misleading(csim, errors, list(csim), 4)[1] == ["d"]  # no pair is shown on both sides


def test_csim_examples_come_from_the_values_of_the_run(registry: Registry, tmp_path: Path) -> None:
    from bcd_bench.results.schema import PairValues

    folder = make_run(registry, tmp_path)
    with pytest.raises(UsageError, match="has no values per pair"):
        draw_figure("csim", Options((folder,)), registry)
    pairs = [(f"p{i:02d}", f"s{i % 5}") for i in range(10)]
    columns = {
        "csim": [i / 10 for i in range(10)],
        "motion-error": [(9.0 - i) if i not in (0, 9) else i for i in range(10)],
    }
    (folder / "values.json").write_text(PairValues.build(pairs, columns).to_json())
    canvas = draw_figure("csim", Options((folder,), count=1), registry)
    texts = [text for text, *_ in canvas.labels]
    assert "high CSIM, high motion-error" in texts
    shown = [text for text in texts if text.startswith(("CSIM", "p0"))]
    assert shown == ["CSIM 0.900, motion-error 9.0", "p09", "CSIM 0.000, motion-error 0.0", "p00"]
    assert "95 % interval" in " ".join(texts[-1].split())
    with pytest.raises(UsageError, match="has no column 'shape-error' per pair; it has: csim, motion-error"):
        draw_figure("csim", Options((folder,), error="shape-error"), registry)


# ---- files ---------------------------------------------------------------------------------------------------------
def test_files_show_what_was_drawn_and_are_reproducible(tmp_path: Path) -> None:
    canvas = Canvas()
    canvas.picture(np.full((4, 4, 3), (255, 0, 0), np.uint8), 0, 20, 40, 40)
    canvas.label("cost $x_1$ 100 %", 0, 0)
    canvas.caption("a caption " * 30)
    canvas.save(tmp_path / "a.png")
    canvas.save(tmp_path / "b.png")
    canvas.save(tmp_path / "a.pdf")
    image = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert image.shape[:2] == pytest.approx((2 * (canvas.height + 12), 2 * (canvas.width + 12)), abs=2)
    assert image[2 * 46, 2 * 26].tolist() == [255, 0, 0]
    assert image[2, 2].tolist() == [255, 255, 255]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(UsageError, match=r"written as \.png or \.pdf"):
        canvas.save(tmp_path / "a.svg")


def test_text_is_wrapped_to_its_width() -> None:
    lines = wrapped("a method with a rather long name", 100)
    assert len(lines) > 1
    assert all(text_width(line) <= 100 for line in lines)


def test_the_command_writes_every_format(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bcd_bench.cli.figure.load", lambda: registry)
    folder = make_run(registry, tmp_path)

    def run(*arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["figure", *arguments])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    target = tmp_path / "new" / "figure.png"
    code, out, err = run("3", str(folder), "--output", str(target), "--format", "png,pdf,mp4")
    assert (code, err) == (0, "")
    assert out.split() == [str(target.with_suffix(ending)) for ending in (".png", ".pdf", ".mp4")]
    assert target.stat().st_size > 1000
    for arguments, message in [
        (("5", str(folder), str(folder)), "a motion grid shows one run, not 2"),
        (("nothing",), "unknown figure 'nothing'"),
        (("3",), "no run folder given"),
        (("3", str(folder), "--pair", "p1"), "has no pair 'p1'"),
        (("3", str(folder), "--output", "a.gif"), "figures are written as png or pdf"),
        (("5", str(folder), "--output", "a.mp4"), "only the figure comparison can be a video"),
        (("3", str(folder), "--output", str(tmp_path)), "is a folder, not a file"),
    ]:
        code, _, err = run(*arguments)
        assert code == 2
        assert message in err
        assert err.count("\n") <= 2
    assert set(draw.Options.__dataclass_fields__) >= {"paths", "pairs", "seed", "frames"}


def test_clips_of_another_shape_keep_their_aspect_ratio() -> None:
    canvas = sheets.generation([("wide", np.zeros((1, 10, 30, 3), np.uint8), np.zeros((2, 10, 30, 3), np.uint8))])
    assert {picture[3:] for picture in canvas.pictures} == {(3 * CELL, CELL)}
    assert Clip(np.zeros((1, 10, 30, 3), np.uint8), 8.0, "wide").frames.shape[2] == 30
