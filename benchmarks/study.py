"""Simulated raters with known opinions use the real page of a study; does the report recover their order?

    python benchmarks/study.py [--raters 20] [--groups 15] [--jobs 3] [--output FOLDER]

Each rater is a page in headless Chromium that watches every video and presses keys. Halfway, the server is killed
(SIGKILL) and started again. The exit code is 1 if a confirmed rating is lost or changed, if the order of methods is not
that of the opinions, or if a careless rater is not left out. Needs playwright, Chromium and the extra `study`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CORE_TESTS = Path(__file__).parents[1] / "tests" / "core"
sys.path.insert(0, str(CORE_TESTS))  # the toy suite and the raters are those of the tests

import study_browser  # noqa: E402
import study_toy  # noqa: E402

from bcd_bench.study.build import build_study  # noqa: E402
from bcd_bench.study.design import Study, load_study  # noqa: E402
from bcd_bench.study.questions import QUESTIONS  # noqa: E402
from bcd_bench.study.store import DATABASE_NAME, Store  # noqa: E402

OPINIONS = {
    "identity preservation": {"zorblax": 4.4, "quuxnet": 3.8, "flimflam": 3.1, "wibble": 2.2},
    "motion consistency": {"zorblax": 3.6, "quuxnet": 2.3, "flimflam": 3.0, "wibble": 4.3},
}
"""What raters think of methods. Their opinion on visual quality depends on the brightness of each video."""
BIAS, NOISE = 0.7, 0.6
"""Largest bias of a rater, who is that much kinder or stricter than others, and spread of single scores."""
CARELESS = 0.1
"""Share of raters who press random keys."""


def true_quality(method: str, pair: str) -> float:
    off = study_toy.METHODS[method] * (2 + int(pair[1:]) % 3) / 3
    return 4.6 - off / 25


class Rater:
    """A rater with an opinion. Careful ones follow the attention checks."""

    def __init__(self, number: int, study: Study, *, careless: bool) -> None:
        self.rng = random.Random(number)
        self.bias = self.rng.uniform(-BIAS, BIAS)
        self.careless = careless
        self.videos = {
            item.video: (method.label, group.pair)
            for group in study.groups
            for method, item in zip(study.methods, group.items, strict=True)
        }
        self.noise = {check.video for check in study.checks if check.kind == "broken"}

    def decide(self, name: str, asked: Sequence[str]) -> tuple[int, ...]:
        if self.careless:
            return tuple(self.rng.randint(1, 5) for _ in QUESTIONS)
        if "Please choose" in asked[0]:
            return tuple(int("".join(filter(str.isdigit, text))) for text in asked)
        if name in self.noise:
            return (1, 1, 1)
        method, pair = self.videos.get(name, ("quuxnet", "p0"))  # the practice trial is not among them
        true = [*(OPINIONS[question.name][method] for question in QUESTIONS[:2]), true_quality(method, pair)]
        return tuple(min(5, max(1, round(value + self.bias + self.rng.gauss(0, NOISE)))) for value in true)


def take_part(job: tuple[int, str, str, bool]) -> int:
    """One rater from start to end; confirmed ratings are appended to a file of their own. Returns their number."""
    number, folder, address, careless = job
    from playwright.sync_api import sync_playwright

    rater = Rater(number, load_study(Path(folder)), careless=careless)
    with (Path(folder).parent / f"confirmed-{number}.jsonl").open("w") as log, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=study_browser.CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.goto(address)
        page.locator("#agree").click()

        def confirmed(name: str, scores: tuple[int, ...]) -> None:
            log.write(json.dumps([name, *scores]) + "\n")
            log.flush()

        rated = study_browser.rate_videos(page, rater.decide, after=confirmed)
        browser.close()
    return rated


def count_ratings(folder: Path) -> int:
    with Store(folder / DATABASE_NAME) as store:
        return len(store.ratings())


def kill_in_the_middle(server: study_browser.Server, folder: Path, total: int, notes: list[str]) -> None:
    """Kill the server when half of the ratings are stored, and start it again."""
    while count_ratings(folder) < total // 2:
        time.sleep(0.3)
    server.kill()
    stored = count_ratings(folder)
    server.start()
    notes.append(f"the server was killed (SIGKILL) with {stored} ratings stored and started again")


def lost_ratings(folder: Path, study: Study) -> tuple[int, int]:
    """The numbers of ratings that the page confirmed, and of those that are not stored as they were given."""
    item_of = {item.video: item.id for item in study.items()}
    with Store(folder / DATABASE_NAME) as store:
        stored: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        for rating in store.ratings():
            stored.setdefault(rating.rater.id, []).append((rating.item, tuple(rating.scores.values())))
    sets = [sorted(own) for own in stored.values()]
    confirmed = lost = 0
    for log in sorted(folder.parent.glob("confirmed-*.jsonl")):
        own = [json.loads(line) for line in log.read_text().splitlines()]
        confirmed += len(own)
        given = sorted((item_of[name], tuple(scores)) for name, *scores in own)
        best = max((len(set(given) & set(one)) for one in sets), default=0)  # the page does not tell its rater's id
        lost += len(given) - best
    return confirmed, lost


def order_of(report: dict[str, Any], question: str) -> list[str]:
    scores = {one["method"]: one["value"] for one in report["scores"] if one["question"] == question}
    return sorted(scores, key=lambda method: -scores[method])


def problems_of(report: dict[str, Any], lost: int, careless: int) -> list[str]:
    """Why the report is not that of the opinions."""
    problems = [f"{lost} confirmed ratings are lost"] if lost else []
    expected = {question: sorted(own, key=lambda method: -own[method]) for question, own in OPINIONS.items()}
    expected["visual quality"] = list(study_toy.METHODS)
    for question, order in expected.items():
        found = order_of(report, question)
        print(f"{question}: {' > '.join(found)}; opinions: {' > '.join(order)}")
        if found != order:
            problems.append(f"the order for {question} is not that of the raters")
    if report["raters"]["failed"] != careless:
        problems.append(f"{report['raters']['failed']} raters were left out, and {careless} were careless")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--raters", type=int, default=20)
    parser.add_argument("--groups", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=3, help="raters at the same time")
    parser.add_argument("--port", type=int, default=7871)
    parser.add_argument("--output", type=Path, help="folder for the study (default: a temporary one)")
    options = parser.parse_args()
    study_browser.PATIENCE = 600.0  # many browsers share the cores
    with tempfile.TemporaryDirectory() as temporary:
        out = options.output or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("BCD_BENCH_HOME", str(out / "home"))
        registry, runs = study_toy.make_runs(out / "runs")
        folder = out / "study"
        study = build_study(runs, folder, registry, groups=options.groups, seed=1)
        careless = round(CARELESS * options.raters)
        total = options.raters * len(study.order(0))
        server = study_browser.Server(folder, options.port)
        notes: list[str] = []
        killer = threading.Thread(target=kill_in_the_middle, args=(server, folder, total, notes), daemon=True)
        killer.start()
        began = time.monotonic()
        jobs = [(n, str(folder), server.address, n < careless) for n in range(options.raters)]
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            rated = sum(pool.imap_unordered(take_part, jobs))
        killer.join(60)
        server.stop()
        confirmed, lost = lost_ratings(folder, study)
        print(f"{options.raters} raters, {rated} ratings in {time.monotonic() - began:.0f} s; {'; '.join(notes)}")
        print(f"{confirmed} ratings confirmed by the page, {lost} lost or changed, {count_ratings(folder)} stored")
        command = [sys.executable, "-c", "from bcd_bench.cli import main; main()", "study", "report", str(folder)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        made = subprocess.run([*command, "--format", "json"], check=True, capture_output=True, text=True).stdout
        problems = problems_of(json.loads(made), lost, careless)
        if not notes:
            problems.append("the server was not killed")
        for problem in problems:
            print(f"FAILED: {problem}")
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
