"""The gallery in headless Chromium, from file://: all videos load, the console stays empty, the keyboard works,
overlays follow the frames, and axe finds nothing to complain about."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from pathlib import Path
from typing import Any

import gallery_toy as toy
import pytest

from bcd_bench.plugin.registry import Registry
from bcd_bench.results.formats import html
from bcd_bench.results.rows import collect_rows
from bcd_bench.view.gallery import build_gallery, render_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None or CHROMIUM is None, reason="needs playwright and chromium"
    ),
]
BROKEN_TITLE = "broken"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of two runs over 45 pairs, as a folder."""
    out = tmp_path_factory.mktemp("gallery")
    registry = Registry.from_modules([toy])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCD_BENCH_HOME", str(out / "home"))
        runs = [toy.make_run(registry, out / "runs", method).path for method in ("shifted", "exact")]
        build_gallery(runs, out / "g", registry, overlays=["corners"])
        build_gallery(runs, out / "g", registry, single_file=True, limit=6)
        rows = collect_rows([run / "record.json" for run in runs], registry=registry)
        (out / "g" / "report.html").write_text(html.render(rows), "utf-8")
    return out / "g"


@pytest.fixture(scope="module")
def browser() -> Any:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Opened:
    """A page, what its console said, and which addresses it asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1400, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def js(self, code: str) -> Any:
        return self.page.evaluate(code)

    def wait(self, code: str) -> None:
        """Wait until an expression is true; `wait_for_function` needs the eval that the page forbids."""
        end = time.monotonic() + 20
        while not self.js(code):
            assert time.monotonic() < end, code
            self.page.wait_for_timeout(50)

    @property
    def selected(self) -> str:
        return str(self.js("document.querySelector('article[aria-current]').getAttribute('aria-label')"))

    def times(self) -> list[float]:
        """Times of the players of the selected pair."""
        code = "[...document.querySelectorAll('article[aria-current] video')].map((video) => video.currentTime)"
        return [float(value) for value in self.js(code)]


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_all_videos_load_and_the_console_is_empty(browser: Any, gallery: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, gallery / "index.html", width, scheme)
    players, pages = 0, 1
    while True:
        for index in range(opened.js("document.querySelectorAll('article').length")):
            opened.js(f"document.querySelectorAll('article')[{index}].scrollIntoView()")
            opened.wait(
                f"[...document.querySelectorAll('article')[{index}].querySelectorAll('video')]"
                ".every((video) => video.readyState >= 2 && video.videoWidth === 120)"
            )
            players += opened.js(f"document.querySelectorAll('article')[{index}].querySelectorAll('video').length")
        loaded = opened.js("document.querySelectorAll('video[src]').length")
        assert 0 < loaded < 100  # only those near the screen have a file
        if opened.js("document.querySelector('[data-page=\"1\"]').disabled"):
            break
        opened.js("document.querySelector('[data-page=\"1\"]').click()")
        pages += 1
    assert (players, pages) == (45 * 5 - 1, 3)
    assert opened.js("document.querySelectorAll('article').length") == 5
    assert opened.js("document.documentElement.scrollWidth") <= width
    assert opened.messages == []
    assert all(url.startswith(("file://", "data:")) for url in opened.requests)
    opened.page.close()


def test_the_keyboard_walks_through_pairs_frames_and_pages(browser: Any, gallery: Path) -> None:
    opened = Opened(browser, gallery / "index.html")
    press = opened.page.keyboard.press
    assert opened.selected == "Pair p00"
    press("ArrowRight")
    assert opened.selected == "Pair p01"
    opened.wait("[...document.querySelectorAll('article[aria-current] video')].every((video) => video.readyState >= 2)")
    press(".")
    press(".")
    opened.wait(
        "[...document.querySelectorAll('article[aria-current] video')]"
        ".every((video) => Math.abs(video.currentTime - 0.25) < 1e-3 && !video.seeking)"
    )
    assert opened.page.locator("#frame").inner_text() == "3 / 5"
    press(",")
    opened.wait("document.querySelector('#frame').textContent === '2 / 5'")
    assert opened.times() == pytest.approx([0.15] * 5, abs=1e-3)
    press("Space")
    opened.wait("[...document.querySelectorAll('article[aria-current] video')].some((video) => !video.paused)")
    assert opened.js("document.querySelector('#play').getAttribute('aria-label')") == "Pause"
    press("Space")
    opened.wait("[...document.querySelectorAll('video')].every((video) => video.paused)")
    times = opened.times()
    assert max(times) - min(times) < 0.1  # within one frame
    press("ArrowLeft")
    press("ArrowLeft")
    assert opened.selected == "Pair p00"
    for _ in range(20):
        press("ArrowRight")
    assert opened.selected == "Pair p20"
    assert opened.page.locator("#count").inner_text() == "Pairs 21–40 of 45"
    press("ArrowLeft")
    assert opened.selected == "Pair p19"
    opened.page.locator("#text").focus()
    press("ArrowRight")  # moves in the field
    assert opened.selected == "Pair p19"
    assert opened.messages == []
    opened.page.close()


def test_pairs_are_sorted_and_filtered(browser: Any, gallery: Path) -> None:
    opened = Opened(browser, gallery / "index.html")
    page = opened.page
    ids = "[...document.querySelectorAll('article')].map((one) => one.getAttribute('aria-label').slice(5))"
    labels = opened.js("[...document.querySelectorAll('#of option')].map((one) => one.textContent)")
    assert sorted(labels) == ["exact", "shifted"]
    page.locator("#of").select_option(label="shifted")
    page.locator("#order").select_option("worst")
    values = opened.js("[...document.querySelectorAll('article .chosen strong')].map((one) => Number(one.textContent))")
    assert set(opened.js(ids)[:5]) == {"p00", "p01", "p02", "p03", "p04"}
    assert max(values) > 1
    page.locator("#minus").select_option(label="exact")
    assert opened.js("document.querySelectorAll('#histogram figure').length") == 1
    assert set(opened.js(ids)[:5]) == {"p00", "p01", "p02", "p03", "p04"}
    page.locator("#order").select_option("best")
    assert not {"p00", "p01", "p02", "p03", "p04"} & set(opened.js(ids))
    page.locator("#order").select_option("failed")
    assert opened.js(ids)[0] == f"p{toy.FAILED:02d}"
    failed = page.locator("article .message.failed")
    assert failed.count() == 1
    assert failed.inner_text().startswith("failed: ")
    page.locator("#order").select_option("suite")
    page.locator("#label").select_option(label="motion side: left")
    assert opened.js(ids)[:3] == ["p01", "p03", "p05"]
    page.locator("#text").fill("subject=s1")
    opened.wait("document.querySelector('#count').textContent.endsWith('of 11')")  # s1, s10 … s19
    assert opened.messages == []
    page.close()


@pytest.mark.parametrize("name", ["index.html", "report.html"])
def test_the_leaderboard_sorts_and_tells_definitions_on_focus(browser: Any, gallery: Path, name: str) -> None:
    opened = Opened(browser, gallery / name)
    rows = "[...document.querySelectorAll('#leaderboard tbody th')].map((one) => one.firstChild.textContent)"
    reported = ["Reported in papers, never ranked", "Paper"]
    button = opened.page.locator("#leaderboard thead button").nth(1)
    button.focus()
    assert opened.page.locator("#tip").is_visible()
    assert opened.page.locator("#tip").inner_text().startswith("mean difference </script>")
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#tip").is_visible()
    button.click()
    assert opened.js(rows) == ["exact", "shifted", *reported]
    assert opened.js("document.querySelectorAll('th')[1].getAttribute('aria-sort')") == "ascending"
    button.click()
    assert opened.js(rows) == ["shifted", "exact", *reported]  # those of papers stay apart
    assert opened.js("document.querySelectorAll('#leaderboard .bar').length") > 0
    assert opened.messages == []
    opened.page.close()


def test_hostile_ids_and_names_are_text(browser: Any, gallery: Path) -> None:
    text = (gallery / "index.html").read_text("utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    data["pairs"][0]["id"] = data["runs"][0]["label"] = data["suite"]["name"] = toy.HOSTILE
    for table in data["tables"]:
        table["lines"][0]["label"] = table["notes"][0] = table["headers"][0] = toy.HOSTILE
    (gallery / "hostile.html").write_text(render_page(data), "utf-8")
    opened = Opened(browser, gallery / "hostile.html")
    assert opened.js("document.querySelectorAll('img').length") == 0
    assert opened.js("document.querySelector('article h3').textContent") == f"1. {toy.HOSTILE}"
    assert opened.page.title() != BROKEN_TITLE
    assert opened.messages == []
    opened.page.close()


def test_a_single_file_plays_after_it_was_moved(browser: Any, gallery: Path, tmp_path: Path) -> None:
    shutil.copy(gallery / "gallery.html", tmp_path / "moved.html")
    opened = Opened(browser, tmp_path / "moved.html")
    opened.js("document.querySelector('article').scrollIntoView()")
    opened.wait("[...document.querySelector('article').querySelectorAll('video')].every((one) => one.readyState >= 2)")
    assert opened.js("document.querySelectorAll('article').length") == 6
    assert opened.messages == []
    opened.page.close()


PAINTED = """(() => {
  const canvas = document.querySelector("article[aria-current] .clips figure:nth-child(3) canvas");
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [left, right] = [width, -1];
  for (let i = 3; i < data.length; i += 4) {
    if (data[i] < 100) continue;
    const x = ((i - 3) / 4) % width;
    [left, right] = [Math.min(left, x), Math.max(right, x)];
  }
  return [(24 * left) / width, (24 * right) / width, width, height];
})()"""
"""Left and right end of what the overlay of the first run's output has painted, in pixels of the clip."""


def test_an_overlay_follows_the_frames(browser: Any, gallery: Path) -> None:
    for name in ("index.html", "gallery.html"):
        opened = Opened(browser, gallery / name)
        press = opened.page.keyboard.press
        press("ArrowRight")
        opened.wait("[...document.querySelectorAll('article[aria-current] video')].every((one) => one.readyState >= 2)")
        assert opened.js(PAINTED)[1] < 0  # off by default
        assert opened.js("document.querySelector('#overlay').getAttribute('aria-pressed')") == "false"
        press("o")
        assert opened.js("document.querySelector('#overlay').getAttribute('aria-pressed')") == "true"
        for frame in range(toy.FRAMES):  # the square is at 2 * frame … 2 * frame + 8
            opened.wait(f"{PAINTED}.slice(0, 2).every((x, i) => Math.abs(x - {[2 * frame, 2 * frame + 8]}[i]) < 0.6)")
            press(".")
        press("o")
        assert opened.js(PAINTED)[1] < 0
        assert [text for text in opened.messages if "getImageData" not in text] == []  # which only this test calls
        assert all(url.startswith(("file://", "data:")) for url in opened.requests)
        opened.page.close()


def test_a_clip_without_points_says_why(browser: Any, gallery: Path) -> None:
    text = (gallery / "index.html").read_text("utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    data["media"][data["pairs"][10]["motion"]["media"]]["points"] = [{"none": toy.HOSTILE}]
    data["media"][data["pairs"][10]["target"]["media"]]["points"] = [{"file": "overlays/abc.css"}]
    (gallery / "without.html").write_text(render_page(data), "utf-8")
    opened = Opened(browser, gallery / "without.html")
    opened.page.locator("#text").fill("p10")
    opened.wait("document.querySelectorAll('article').length === 1")
    opened.js("document.querySelector('article').scrollIntoView()")
    opened.page.locator("#overlay").click()
    texts = "[...document.querySelectorAll('article[aria-current] .without')].map((one) => one.textContent)"
    opened.wait(f"{texts}.at(-1) === 'the points cannot be read'")
    assert opened.js(texts)[1] == f"no points: {toy.HOSTILE}"
    assert opened.js("document.querySelectorAll('img').length") == 0
    opened.page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_axe_finds_no_violation_of_wcag_aa(browser: Any, gallery: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    opened = Opened(browser, gallery / "index.html", width, scheme)
    for details in ("#keys", "#leaderboard details", "section details"):
        opened.js(f"document.querySelector({details!r}).open = true")
    opened.js("document.querySelector('#every').click()")
    opened.page.keyboard.press("o")
    opened.page.locator("#order").select_option("failed")
    opened.page.locator("#leaderboard thead button").nth(1).focus()  # shows the definition
    options = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    for page in ("index.html", "report.html"):
        if page == "report.html":
            opened.page.goto((gallery / page).as_uri())
            opened.page.locator("#leaderboard thead button").nth(1).focus()
        found = axe.Axe().run(opened.page, options=options).response
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == []
        assert len(found["passes"]) > 10
    opened.page.close()


def test_every_control_is_reached_by_tab_and_shows_its_focus(browser: Any, gallery: Path) -> None:
    opened = Opened(browser, gallery / "index.html", 390)
    controls = "a[href], button:not(:disabled), select, input, summary"
    waiting = opened.js(
        f"[...document.querySelectorAll({controls!r})].filter((one) => one.checkVisibility())"
        ".map((one, i) => (one.dataset.number = String(i)))"
    )
    reached = set()
    for _ in range(3 * len(waiting)):
        opened.page.keyboard.press("Tab")
        number, outline = opened.js(
            "[document.activeElement.dataset.number, getComputedStyle(document.activeElement).outlineWidth]"
        )
        if number is not None:
            assert outline == "2px", number
            reached.add(number)
        if len(reached) == len(waiting):
            break
    assert reached == set(waiting)
    opened.page.close()
