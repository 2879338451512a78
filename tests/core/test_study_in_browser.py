"""A study from runs to report: raters in headless Chromium, a server that is killed, a page without a server."""

from __future__ import annotations

import importlib.util
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import study_toy as toy
from study_browser import CHROMIUM, Scores, Server, rate_videos, wait_for

from bcd_bench.cli.app import main
from bcd_bench.study.build import build_study
from bcd_bench.study.design import Study
from bcd_bench.study.static import export_pages
from bcd_bench.study.store import DATABASE_NAME, Store

NEEDED = ("playwright", "starlette", "uvicorn", "limits", "krippendorff")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="needs playwright, chromium and the extra study",
    ),
]


class Opened:
    """A page, what its console said, and which addresses it asked for."""

    def __init__(self, browser: Any, address: str, width: int = 1400) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)


@pytest.fixture(scope="module")
def browser() -> Any:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCD_BENCH_HOME", str(out / "home"))
        registry, runs = toy.make_runs(out / "runs", ["zorblax", "wibble"])
        hostile = "<img src=x onerror=alert(1)>"
        study = build_study(runs, out / "s", registry, groups=2, title=hostile, consent=f"One\n\n{hostile}")
    return out / "s", study


def judge(study: Study) -> Any:
    """Decides as a careful rater: zorblax is good, wibble is bad, checks are seen."""
    of = {item.video: m for group in study.groups for m, item in enumerate(group.items)}
    noise = study.checks[1].video

    def decide(name: str, asked: Sequence[str]) -> Scores:
        if "Please choose" in asked[0]:
            first, second, third = (int("".join(filter(str.isdigit, text))) for text in asked)
            return first, second, third
        if name == noise:
            return 1, 1, 1
        return (5, 4, 5) if name in of and study.methods[of[name]].label == "zorblax" else (2, 4, 1)

    return decide


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_from_runs_to_a_report(
    browser: Any, built: tuple[Path, Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, study = built
    decide = judge(study)
    confirmed: list[str] = []
    server = Server(folder, free_port())
    try:
        opened = Opened(browser, server.address)
        opened.page.locator("#agree").wait_for()
        assert opened.page.locator("#consent p").all_inner_texts() == ["One", "<img src=x onerror=alert(1)>"]
        opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Enter")
        assert rate_videos(opened.page, decide, most=3, after=lambda name, _: confirmed.append(name)) == 3
        wait_for(opened.page, lambda one: one["missing"] and "atch" not in one["missing"])
        server.kill()
        for number in "333":
            opened.page.keyboard.press(number)
        opened.page.keyboard.press("Enter")
        lost = wait_for(opened.page, lambda one: one["problem"])
        assert lost["problem"].startswith("No connection. Your answers are kept")
        assert lost["ready"]
        server.start()
        with Store(folder / DATABASE_NAME) as store:
            assert len(store.ratings()) == len(confirmed) == 3
        opened.page.reload()
        assert rate_videos(opened.page, decide, after=lambda name, _: confirmed.append(name)) == 4
        assert len(set(confirmed)) == 7
        assert opened.page.locator("#code").inner_text()
        assert opened.page.locator("img").count() == 0
        assert all(url.startswith(server.address) or url == "data:," for url in opened.requests)
        assert [text for text in opened.messages if "ERR_CONNECTION_REFUSED" not in text] == []
        opened.context.close()
    finally:
        server.stop()

    pages = export_pages(study, folder, tmp_path / "pages")
    opened = Opened(browser, pages[1].as_uri(), width=390)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    opened.page.locator("#agree").click()
    rate_videos(opened.page, decide, most=2)
    opened.page.reload()
    assert rate_videos(opened.page, decide) == 5
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    with opened.page.expect_download() as download:
        opened.page.locator("#save").click()
    download.value.save_as(tmp_path / "ratings.csv")
    assert (tmp_path / "ratings.csv").read_text() == opened.page.locator("#csv").input_value()
    assert opened.messages == []
    assert all(url.startswith((tmp_path / "pages").as_uri()) or url == "data:," for url in opened.requests)
    opened.context.close()

    for words in (["import", str(folder), str(tmp_path / "ratings.csv")], ["report", str(folder), "--format", "json"]):
        with pytest.raises(SystemExit) as stop:
            main(["study", *words])
        assert stop.value.code == 0
    imported, _, report = capsys.readouterr().out.partition("\n")
    assert imported == "7 ratings imported, 0 were there already"
    found = json.loads(report)
    assert found["raters"] == {"started": 2, "unfinished": 0, "failed": 0, "used": 2}
    values = {(one["method"], one["question"]): one["value"] for one in found["scores"]}
    assert values["zorblax", "identity preservation"] == 5
    assert values["wibble", "visual quality"] == 1
    assert values["wibble", "motion consistency"] == 4
    [alpha] = [one["alpha"] for one in found["agreement"] if one["question"] == "visual quality"]
    assert alpha == pytest.approx(1)
