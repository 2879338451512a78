"""Raters who use the page of a study in Chromium: they watch, press keys, and try again if the server is away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Scores = tuple[int, int, int]
PATIENCE = 60.0
"""Seconds after which a page that shows nothing new is a failure."""
_SCREEN = """() => ({
  finished: !document.getElementById("finished").hidden,
  task: !document.getElementById("task").hidden,
  video: document.getElementById("video").getAttribute("src"),
  count: document.getElementById("count").textContent,
  asked: [...document.querySelectorAll("[data-text]")].map((one) => one.textContent),
  ready: document.getElementById("submit").getAttribute("aria-disabled") === "false",
  missing: document.getElementById("missing").textContent,
  problem: document.getElementById("problem").textContent,
})"""


class Server:
    """`bcd-bench study serve` in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self._command = [sys.executable, "-c", "from bcd_bench.cli import main; main()", "study", "serve", str(folder)]
        self._command += ["--port", str(port), "--rate-limit", "10000", *options]
        self.address = f"http://127.0.0.1:{port}/"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(self.address, timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, "the server has stopped"
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.05)

    def kill(self) -> None:
        """As a crash of the machine: no handler runs."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def wait_for(page: Any, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The screen of a page, as soon as it is `done`."""
    end = time.monotonic() + PATIENCE
    while not done(screen := page.evaluate(_SCREEN)):
        assert time.monotonic() < end, screen
        time.sleep(0.02)
    return screen


def rate_videos(
    page: Any,
    decide: Callable[[str, Sequence[str]], Scores],
    *,
    most: int = 10**6,
    after: Callable[[str, Scores], None] = lambda name, scores: None,
) -> int:
    """Rate videos with the keyboard until the end, or `most` of them, and return their number.

    `decide` gets the random name of a video and the texts of the questions. `after` is called when the page has gone
    on, so that the server has confirmed the rating.
    """
    rated = 0
    while rated < most:
        screen = wait_for(page, lambda one: one["finished"] or (one["task"] and "atch" not in one["missing"]))
        if screen["finished"]:
            break
        name = Path(screen["video"]).stem
        scores = decide(name, screen["asked"])
        for score in scores:
            page.keyboard.press(str(score))
        wait_for(page, lambda one: one["ready"])
        while True:
            page.keyboard.press("Enter")
            now = wait_for(
                page, lambda one, old=screen: one["finished"] or one["count"] != old["count"] or one["problem"]
            )
            if not now["problem"]:
                break
            time.sleep(0.2)
        after(name, scores)
        rated += 1
    return rated
