"""`bcd-bench demo` in a browser: two files in, a video that plays out, an error that says why, no foreign request."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bcd_bench as bb
from bcd_bench.cli.app import main
from bcd_bench.inference.page import Demo, build_page, choices
from bcd_bench.io.image_sequence import encode_png
from bcd_bench.plugin.registry import load_registry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
has_gradio = importlib.util.find_spec("gradio") is not None
needs_browser = pytest.mark.skipif(
    not has_gradio or importlib.util.find_spec("playwright") is None or CHROMIUM is None,
    reason="needs gradio, playwright and chromium",
)


def clip(count: int = 6) -> bb.Clip:
    frames = np.full((count, 64, 64, 3), 60, np.uint8)
    for index in range(count):
        frames[index, 20:40, 4 * index : 4 * index + 20] = (200, 180, 40)
    return bb.Clip(frames, 8.0)


@pytest.mark.skipif(has_gradio, reason="gradio is installed")
def test_without_gradio_the_error_says_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert stop.value.code == 3
    assert capsys.readouterr().err == (
        "error: the demo needs the package 'gradio'\nhint: pip install \"bcd-bench[demo]\"\n"
    )


def test_choices_are_what_can_run_here(bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    owner = registry.owner("methods", "copy-content")
    gone = bb.MethodSpec("gone", "1", "s", "f:f", weights=(bb.Weights("w", ("*",), asset="gone"),))
    registry.add("assets", bb.AssetSpec("gone", "gone.bin", "ab" * 32, 3, "MIT", "ask"), owner)
    for spec in (
        gone,
        bb.MethodSpec("a-plain", "1", "s", "f:f"),
        bb.MethodSpec("named", "1", "s", "f:f", identify="f:g"),
    ):
        registry.add("methods", spec, owner)
    usable, missing = choices(registry)
    assert usable["a-plain"] == ("a-plain", None)
    assert "gone" in missing
    assert not {"copy-content", "gone", "named"} & set(usable)
    if "bcd" in registry.methods:
        assert usable["bcd (heads-landmarks)"] == ("bcd", "heads-landmarks")
    first = next(iter(usable.values()))
    if "faces" in registry.preprocessors:
        shipped = {("bcd", "faces-landmarks"), ("bcd", "heads-landmarks")}
        assert first in shipped or registry.methods[first[0]].preprocessor == "faces"


def test_the_method_stays_loaded_between_transfers(bcd_bench_home: Path, tmp_path: Path) -> None:
    bb.save_video(clip(), tmp_path / "m.mkv")
    demo = Demo({"motion": ("copy-motion", None), "content": ("copy-content", None)}, tmp_path, "cpu")
    options = {"frames": 4, "crop": True, "side_by_side": False, "paste_back": False}
    first = demo.transfer(str(tmp_path / "m.mkv"), str(tmp_path / "m.mkv"), "motion", **options)
    loaded = demo._loaded
    second = demo.transfer(str(tmp_path / "m.mkv"), str(tmp_path / "m.mkv"), "motion", **options)
    assert demo._loaded is loaded
    assert first != second
    assert len(bb.VideoFile(first, "").load()) == 4
    demo.transfer(str(tmp_path / "m.mkv"), str(tmp_path / "m.mkv"), "content", **options)
    assert demo._loaded is not loaded
    demo.close()


@pytest.fixture
def address(bcd_bench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    usable = {"copy-motion": ("copy-motion", None)}
    demo = Demo(usable, tmp_path, "cpu")
    page = build_page(demo, usable, ["fomm"])
    _, url, _ = page.launch(
        prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False, allowed_paths=[str(tmp_path)]
    )
    yield url
    page.close()
    demo.close()


@needs_browser
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_files_are_transferred_in_a_browser(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    bb.save_video(clip(), tmp_path / "drive.mp4")
    (tmp_path / "photo.png").write_bytes(encode_png(clip(1).frames[0]))
    (tmp_path / "bad.mp4").write_bytes(b"not a video" * 100)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.locator("#content input[type=file]").set_input_files(tmp_path / "photo.png")
        page.locator("#motion input[type=file]").set_input_files(tmp_path / "drive.mp4")
        page.get_by_text("photo", exact=True).wait_for()  # the ending is an element of its own
        page.get_by_text("drive", exact=True).wait_for()
        page.locator("#go").click()
        page.get_by_text("Made by copy-motion.").wait_for(timeout=60_000)
        page.wait_for_function("() => document.querySelector('#result video')?.videoWidth > 0", timeout=30_000)
        assert page.evaluate("() => document.querySelector('#result video').videoWidth") == 3 * 64
        assert page.evaluate("() => document.querySelector('#result video').error") is None
        page.reload()
        page.locator("#content input[type=file]").set_input_files(tmp_path / "photo.png")
        page.locator("#motion input[type=file]").set_input_files(tmp_path / "bad.mp4")
        page.get_by_text("bad", exact=True).wait_for()
        page.locator("#go").click()
        page.get_by_text("cannot read bad.mp4").wait_for(timeout=60_000)
        browser.close()
    foreign = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    assert foreign == []
