"""The gallery: previews made once, failures shown, hostile texts kept as text, and one line for bad input."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import gallery_toy as toy
import pytest

from bcd_bench.cli.app import main
from bcd_bench.io.video import read_video
from bcd_bench.plugin.registry import Registry
from bcd_bench.types.errors import UsageError
from bcd_bench.view import gallery as gallery_module
from bcd_bench.view.gallery import Gallery, build_gallery, render_page


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_modules([toy])


@pytest.fixture(scope="module")
def runs(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCD_BENCH_HOME", str(out / "home"))
        return [toy.make_run(registry, out / "runs", method).path for method in ("shifted", "exact")]


@pytest.fixture(autouse=True)
def _home(bcd_bench_home: Path) -> None:
    """No test here touches the user's cache."""


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_gallery_has_a_player_for_every_clip_and_the_values(
    runs: list[Path], registry: Registry, tmp_path: Path
) -> None:
    built = build_gallery(runs, tmp_path / "g", registry)
    data = data_of(built.page)
    # 45 drawings of contents, motions and targets, 45 outputs of one run, and 5 of the other that differ from them
    assert built == Gallery(tmp_path / "g" / "index.html", 45, 2, 45 + 45 + 5, 95, 0, (), built.notes)
    assert data["suite"]["pairs"] == 45
    labels = [run["label"] for run in data["runs"]]
    assert sorted(labels) == ["exact", "shifted"]
    shifted = labels.index("shifted")
    names = [column["name"] for column in data["columns"]]
    assert names == ["difference", "equal"]
    assert [column["higher"] for column in data["columns"]] == [False, True]
    assert data["pairs"][9]["values"][shifted] == [0.0, 100.0]  # rates in percent, as in the table
    assert data["pairs"][2]["values"][shifted][0] > 1
    assert data["pairs"][toy.FAILED]["values"][shifted] == [None, None]
    assert "onerror=" in data["pairs"][toy.FAILED]["outputs"][shifted]["failed"]
    players = [
        clip for pair in data["pairs"] for clip in (pair["content"], pair["motion"], pair["target"], *pair["outputs"])
    ]
    assert sum("media" in clip for clip in players) == 45 * 5 - 1
    for entry in data["media"]:
        assert (entry["width"], entry["height"], entry["frames"], entry["fps"]) == (120, 80, toy.FRAMES, toy.FPS)
        assert len(read_video(tmp_path / "g" / entry["src"])) == toy.FRAMES
    [table] = data["tables"]
    cells = {line["label"]: line["cells"][0] for line in table["lines"]}
    assert cells["exact"]["numbers"][0] == 0.0
    assert cells["exact"]["text"] == "0.0"
    assert data["runs"][shifted]["failed"] == 1


def test_hostile_texts_stay_inside_the_data(runs: list[Path], registry: Registry, tmp_path: Path) -> None:
    page = build_gallery(runs, tmp_path / "g", registry, limit=8).page
    text = page.read_text("utf-8")
    data = data_of(page)
    assert toy.HOSTILE in data["pairs"][0]["labels"]["content note"]
    assert toy.HOSTILE in data["columns"][0]["definition"]
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert "\u2028" not in text
    data["pairs"][0]["id"] = data["runs"][0]["label"] = toy.HOSTILE
    hostile = render_page(data)
    assert "<img" not in hostile
    assert hostile.count("</script>") == 2


def test_the_page_names_no_address_and_allows_one_script(runs: list[Path], registry: Registry, tmp_path: Path) -> None:
    text = build_gallery(runs, tmp_path / "g", registry, limit=1).page.read_text("utf-8")
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}  # a namespace
    assert "default-src 'none'" in text
    assert str(tmp_path) not in text


def test_previews_are_made_once(
    runs: list[Path], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_gallery(runs, tmp_path / "g", registry, limit=6)
    again = build_gallery(runs, tmp_path / "g", registry, limit=6)
    assert first.made == first.previews == again.previews > 0
    assert again.made == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "g" / "previews").glob("*.mp4")}
    cut, gone = sorted(before)[:2]
    cut.write_bytes(cut.read_bytes()[:100])
    gone.unlink()
    assert build_gallery(runs, tmp_path / "g", registry, limit=6).made == 2
    more = build_gallery(runs, tmp_path / "g", registry, limit=7)
    assert 0 < more.made == more.previews - first.previews
    kept = [path for path in before if path not in (cut, gone)]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)


def test_an_interrupted_gallery_continues(
    runs: list[Path], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bcd_bench.view import previews

    real, calls = previews.write_preview, []

    def stopping(path: Path, *args: Any, **more: Any) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, *args, **more)

    monkeypatch.setattr(previews, "write_preview", stopping)
    with pytest.raises(KeyboardInterrupt):
        build_gallery(runs, tmp_path / "g", registry, limit=6)
    assert not (tmp_path / "g" / "index.html").exists()
    monkeypatch.setattr(previews, "write_preview", real)
    resumed = build_gallery(runs, tmp_path / "g", registry, limit=6)
    assert resumed.made == resumed.previews - 3


def test_a_broken_output_is_shown_as_failed(registry: Registry, tmp_path: Path) -> None:
    run = toy.make_run(registry, tmp_path / "runs", "exact", 3, score=False)
    (run.outputs_dir / "p01.mkv").write_bytes(b"no video")
    (run.outputs_dir / "p02.mkv").unlink()
    built = build_gallery([run.path], tmp_path / "g", registry)
    data = data_of(built.page)
    assert built.broken == 2
    assert data["tables"] == data["columns"] == []
    outputs = [pair["outputs"][0] for pair in data["pairs"]]
    assert set(outputs[0]) == {"media"}
    assert set(outputs[1]) == set(outputs[2]) == {"failed"}
    assert "p01.mkv" in outputs[1]["failed"]
    assert "p02.mkv" in outputs[2]["failed"]
    assert str(tmp_path) not in built.page.read_text("utf-8")


def test_pairs_that_a_run_lacks_are_told_apart(runs: list[Path], registry: Registry, tmp_path: Path) -> None:
    short = toy.make_run(registry, tmp_path / "runs", "shifted", 2)
    data = data_of(build_gallery([runs[1], short.path], tmp_path / "g", registry, limit=3).page)
    assert data["pairs"][2]["outputs"][1] == {"absent": "not part of this run"}
    text = (short.part / "pairs.jsonl").read_text().splitlines()[:1]
    (short.part / "pairs.jsonl").write_text(text[0] + "\n")
    data = data_of(build_gallery([runs[1], short.path], tmp_path / "g", registry, limit=3).page)
    assert data["pairs"][1]["outputs"][1] == {"absent": "not finished"}


def test_a_single_file_contains_the_videos_up_to_a_limit(
    runs: list[Path], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_gallery(runs, tmp_path / "g", registry, limit=4, single_file=True)
    assert built.page == tmp_path / "g" / "gallery.html"
    sources = [entry["src"] for entry in data_of(built.page)["media"]]
    assert len(sources) == built.previews
    files = [path.read_bytes() for path in (tmp_path / "g" / "previews").glob("*.mp4")]
    assert sorted(base64.b64decode(one.removeprefix("data:video/mp4;base64,")) for one in sources) == sorted(files)
    size = sum(map(len, files)) * 4 / 3
    monkeypatch.setattr(gallery_module, "SINGLE_FILE_LIMIT", int(size / 2) + 1)
    with pytest.raises(UsageError, match=r"the videos of 4 pairs take [\d.]+ MB in one file, and at most") as error:
        build_gallery(runs, tmp_path / "g", registry, limit=4, single_file=True)
    assert error.value.hint == "--limit 2, or leave --single-file out, to get a folder"
    assert build_gallery(runs, tmp_path / "g", registry, limit=4).page.name == "index.html"


def test_bad_input_is_one_line(runs: list[Path], registry: Registry, tmp_path: Path) -> None:
    other = toy.make_run(registry, tmp_path / "other", "exact", name="gallery-other", score=False)
    unfinished = toy.make_run(registry, tmp_path / "unfinished", "exact", 2, score=False)
    unfinished.pairs_path.unlink()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for paths, output, message in (
        ([tmp_path / "nothing"], "g", "no run folder found"),
        ([tmp_path / "mine"], "g", "no run folder found"),
        ([runs[0], other.path], "g", "these are of 2: gallery-other@1, gallery@1"),
        ([unfinished.path], "g", "no pair is finished yet"),
        (runs, "mine", "exists and is not a gallery"),
        (runs, "file", "is a file, not a folder"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            build_gallery(paths, tmp_path / output, registry)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "g").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_command_prints_the_page(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("bcd_bench.cli.view.load", lambda: Registry.from_modules([toy]))
    with pytest.raises(SystemExit) as done:
        main(["view", *map(str, runs), "--output", str(tmp_path / "g"), "--limit", "2", "--open"])
    assert done.value.code == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'g' / 'index.html'}\n"
    assert "2 pairs of 2 runs, 6 videos (6 new)" in err
    assert opened == [(tmp_path / "g" / "index.html").as_uri()]
    with pytest.raises(SystemExit) as stop:
        main(["view", str(tmp_path / "nothing"), "--output", str(tmp_path / "g")])
    assert stop.value.code == 2


def report(*arguments: object) -> None:
    with pytest.raises(SystemExit) as done:
        main(["report", "--format", "html", *map(str, arguments)])
    assert done.value.code == 0


def test_a_report_folder_has_the_tables_and_a_gallery_for_each_suite(
    runs: list[Path],
    registry: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bcd_bench.cli.report.load", lambda: registry)
    other = toy.make_run(registry, tmp_path / "other", "exact", name="gallery-other").path
    results = tmp_path / "results"  # a record without outputs
    results.mkdir()
    for name in ("record.json", "values.json"):
        (results / name).write_text((runs[0] / name).read_text())
    report(other, results, "--folder", tmp_path / "r")
    assert capsys.readouterr().out == f"{tmp_path / 'r' / 'index.html'}\n"
    data = data_of(tmp_path / "r" / "index.html")
    links = {table["title"]: table.get("gallery") for table in data["tables"]}
    assert links == {"gallery-other@1": "gallery-other@1/index.html", "gallery@1": None}
    gallery = data_of(tmp_path / "r" / "gallery-other@1" / "index.html")
    assert [pair["id"] for pair in gallery["pairs"]] == ["p00", "p01", "p02"]
    [[line]] = [table["lines"] for table in data["tables"] if table["title"] == "gallery-other@1"]
    assert (line["label"], line["cells"][0]["numbers"][0]) == ("exact", 0.0)
    before = (tmp_path / "r" / "gallery-other@1" / "previews" / "index.jsonl").read_text()
    report(other, "--folder", tmp_path / "r", "--suite", "gallery-other")
    assert (tmp_path / "r" / "gallery-other@1" / "previews" / "index.jsonl").read_text() == before
    for arguments, message in (
        (["--folder", tmp_path, "--format", "html"], "exists and is not a gallery"),
        (["--folder", tmp_path / "n", "--format", "csv"], "--folder has no effect on format csv"),
        (["--folder", tmp_path / "n", "--output", "x", "--format", "html"], "pass one of them"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(other), *map(str, arguments)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_a_record_cannot_choose_where_its_gallery_is_written(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a gallery that cannot be made is a note, not the end of the report."""
    monkeypatch.setattr("bcd_bench.cli.report.load", lambda: registry)
    run = toy.make_run(registry, tmp_path / "other", "exact", name="gallery-other").path
    record = json.loads((run / "record.json").read_text())
    record["suite"]["name"] = "../../escaped"
    (run / "record.json").write_text(json.dumps(record))
    (run / "pairs.jsonl").write_text("")
    report(run, "--folder", tmp_path / "deep" / "er" / "r")
    [table] = data_of(tmp_path / "deep" / "er" / "r" / "index.html")["tables"]
    assert table["title"] == "../../escaped@1"
    assert table["notes"][-1].startswith("No videos: ")
    assert "gallery" not in table
    assert not list(tmp_path.rglob("*escaped*"))
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["r"]


def test_reported_rows_are_apart_and_numbers_without_interval_have_no_bar() -> None:
    from bcd_bench.results.table import Cell, Line, Table
    from bcd_bench.view.tables import tables_json

    given = {"paper": "reported", "ours": "", "ref": "reference"}
    lines = tuple(Line(label, status, (Cell("1"),)) for label, status in given.items())
    [data] = tables_json([Table("t", ("x",), (), lines, ("note",))], ["more"])
    found = {line["label"]: (line["reported"], line["ranked"]) for line in data["lines"]}
    assert found == {"paper": (True, False), "ours": (False, True), "ref": (False, False)}
    assert data["notes"] == ["note", "more"]
    assert data["definitions"] == ("",)
    assert data["lines"][0]["cells"][0]["numbers"] == (None, None, None)
