"""User studies: balanced and blinded designs, the store, CSV files, evaluation against values computed by hand."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import study_toy as toy

from bcd_bench.statistics.intervals import bootstrap_mean
from bcd_bench.study.analysis import agreement, evaluate
from bcd_bench.study.build import build_study
from bcd_bench.study.correlation import (
    Correlation,
    Correlations,
    MetricValues,
    correlate,
    load_values,
    spearman,
    within_groups,
)
from bcd_bench.study.design import MEDIA, Group, Item, Method, Study, load_study, williams
from bcd_bench.study.files import FIELDS, import_ratings, read_ratings, write_ratings
from bcd_bench.study.page import render_page
from bcd_bench.study.questions import PAPER_SCORES, QUESTIONS
from bcd_bench.study.report import FORMATS, render
from bcd_bench.study.static import export_pages
from bcd_bench.study.store import DATABASE_NAME, Conflict, Rater, Rating, Store
from bcd_bench.types.errors import UsageError

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><img src=x onerror=alert(1)>|\\input{x}_&"
KEYS = [question.key for question in QUESTIONS]


def key(number: int) -> str:
    return f"{number:020x}"


def make_study(methods: int = 2, groups: int = 3, checks: int = 2, labels: Sequence[str] = ()) -> Study:
    """A study without videos; item 100 * group + method."""
    asked = {"identity": 4, "motion": 2, "quality": 5}
    refs = {"content": key(9001), "motion": key(9002), "video": key(9003)}
    return Study(
        id=key(1), title="Videos", consent="Yes?", seed=3, suite="toy@1", manifest_sha256="0" * 64, bcd_bench="0",
        methods=[Method(label=(labels or "ABCDEFG")[m], run_id=f"run{m}", path="none") for m in range(methods)],
        groups=[
            Group(pair=f"p{g}", subject=f"s{g}", outputs=[""] * methods,
                  items=[Item(id=key(100 * g + m + 100), kind="rating", **refs) for m in range(methods)])
            for g in range(groups)
        ],
        practice=Item(id=key(7), kind="practice", **refs),
        checks=[
            Item(id=key(10 + c), kind="broken" if c % 2 else "instructed", expected={} if c % 2 else asked, **refs)
            for c in range(checks)
        ],
    )  # fmt: skip


def rating(rater: int, item: str, *scores: int) -> Rating:
    return Rating(Rater(f"{rater:016x}", rater), item, dict(zip(KEYS, scores, strict=True)), 2.0)


def passed(study: Study, rater: int) -> list[Rating]:
    """Right answers to all checks."""
    return [
        rating(rater, check.id, *(check.expected.values() if check.expected else (1, 5, 1))) for check in study.checks
    ]


# ---- design ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 9))
def test_a_williams_design_is_balanced_for_position_and_neighbours(n: int) -> None:
    rows = williams(n)
    assert len(rows) == (n if n % 2 == 0 else 2 * n)
    assert all(sorted(row) == list(range(n)) for row in rows)
    for column in zip(*rows, strict=True):
        assert set(Counter(column).values()) == {len(rows) // n}
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert set(neighbours) == set(permutations(range(n), 2))
    assert set(neighbours.values()) == {len(rows) // n}


@pytest.mark.parametrize(("methods", "groups"), [(2, 3), (3, 4), (4, 5), (5, 2)])
def test_each_group_shows_each_method_equally_often_at_each_position_and_after_each_other(
    methods: int, groups: int
) -> None:
    study = make_study(methods, groups, checks=3)
    positions: Counter[tuple[int, int, int]] = Counter()
    neighbours: Counter[tuple[int, int, int]] = Counter()
    places: Counter[tuple[int, int]] = Counter()
    of = {item.id: (g, m) for g, group in enumerate(study.groups) for m, item in enumerate(group.items)}
    assert study.slots % study.balanced == 0
    for slot in range(study.slots):
        order = study.order(slot)
        assert sorted(item.id for item in order) == sorted(item.id for item in study.items())
        assert order[0].kind == "practice"
        shown = [of[item.id] for item in order if item.kind == "rating"]
        for place in range(groups):
            block = shown[place * methods : (place + 1) * methods]
            assert len({g for g, _ in block}) == 1  # checks never part the videos of a group
            places[block[0][0], place] += 1
            positions.update((g, m, position) for position, (g, m) in enumerate(block))
            neighbours.update((g, m, other) for (g, m), (_, other) in pairwise(block))
    assert set(positions.values()) == {study.slots // methods}
    assert len(positions) == groups * methods * methods
    assert set(neighbours.values()) == {study.slots // methods}
    assert len(neighbours) == groups * methods * (methods - 1)
    assert set(places.values()) == {study.slots // groups}
    first = [[item.id for item in study.order(slot)] for slot in range(study.slots)]
    assert first == [[item.id for item in study.order(slot + study.slots)] for slot in range(study.slots)]
    assert len({tuple(order) for order in first}) == study.slots


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCD_BENCH_HOME", str(out / "home"))
        registry, runs = toy.make_runs(out / "runs")
        study = build_study(runs, out / "s", registry, groups=7, seed=5)
        again = build_study(runs, out / "again", registry, groups=7, seed=5)
        other = build_study(runs, out / "other", registry, groups=7, seed=6)
        with pytest.raises(UsageError, match="16 pairs are finished in all 4 runs, and the study has 17 groups"):
            build_study(runs, out / "many", registry, groups=17)
        with pytest.raises(UsageError, match="at least two runs"):
            build_study(runs[:1], out / "one", registry, groups=2)
        with pytest.raises(UsageError, match="exists and is not a study"):
            build_study(runs, out / "runs", registry, groups=2)
    assert [group.pair for group in study.groups] == [group.pair for group in again.groups]
    assert [method.label for method in study.methods] == [method.label for method in again.methods]
    assert [group.pair for group in study.groups] != [group.pair for group in other.groups]
    assert not {item.id for item in study.items()} & {item.id for item in again.items()}
    assert [check.expected for check in study.checks] == [check.expected for check in again.checks]
    return out / "s", load_study(out / "s")


def test_raters_get_no_name_of_a_method(built: tuple[Path, Study], tmp_path: Path) -> None:
    folder, study = built
    pages = export_pages(study, folder, tmp_path / "pages")
    assert len(pages) == study.balanced == 4
    files = [path for path in (tmp_path / "pages").rglob("*") if path.is_file()]
    names = [*toy.METHODS, *(method.run_id for method in study.methods), *(group.pair for group in study.groups), "bcd"]
    assert len(files) == 4 + 1 + len(study.media())
    for name in names:
        word = re.compile(rb"(?<![0-9a-z])" + name.encode() + rb"(?![0-9a-z])", re.IGNORECASE)
        assert not [path.name for path in files if word.search(path.read_bytes())], name
        assert not [path.name for path in files if word.search(path.name.encode())], name
        assert not word.search(render_page(study).encode())


def test_every_video_has_a_name_of_its_own_and_references_are_shared(built: tuple[Path, Study]) -> None:
    folder, study = built
    outputs = [item.video for group in study.groups for item in group.items]
    assert len(set(outputs)) == 28
    assert not set(outputs) & {item.motion for group in study.groups for item in group.items}
    assert all(len({item.content for item in group.items}) == 1 for group in study.groups)
    assert {path.stem for path in (folder / MEDIA).iterdir()} == study.media()
    assert study.practice.content not in {group.items[0].content for group in study.groups}
    assert [check.kind for check in study.checks] == ["instructed", "broken"]


def test_the_noise_of_a_check_looks_like_nothing_else(built: tuple[Path, Study]) -> None:
    from bcd_bench.io.video import read_video

    folder, study = built
    frames = read_video(folder / MEDIA / f"{study.checks[1].video}.mp4").frames.astype(float)
    assert np.abs(np.diff(frames, axis=0)).mean() > 40
    item = study.checks[1]
    assert item.passed({"identity": 2, "motion": 5, "quality": 1})
    assert not item.passed({"identity": 3, "motion": 1, "quality": 1})
    assert not item.passed({"identity": 1, "motion": 1, "quality": 3})


def test_a_study_with_raters_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    registry, runs = toy.make_runs(tmp_path / "runs", ["zorblax", "wibble"])
    build_study(runs, tmp_path / "s", registry, groups=2, checks=0, consent="Watch {videos} videos, {minutes} min")
    study = build_study(runs, tmp_path / "s", registry, groups=3, labels=["ours", "theirs"])
    assert study.consent.startswith("You will see 9 short videos")
    assert {method.label for method in study.methods} == {"ours", "theirs"}
    with Store(tmp_path / "s" / DATABASE_NAME) as store:
        store.start(2, 9)
    with pytest.raises(UsageError, match="has raters already"):
        build_study(runs, tmp_path / "s", registry, groups=2)


# ---- store ----------------------------------------------------------------------------------------------------------


def test_a_rating_is_stored_once_and_never_changed(tmp_path: Path) -> None:
    with Store(tmp_path / "r.sqlite") as store:
        token, rater = store.start(2, 9)
        assert store.find(token) == rater
        assert store.find("x") is None
        assert rater.id not in token
        one = Rating(rater, key(5), {"identity": 1, "motion": 2, "quality": 3}, 1.5)
        assert store.add(one)
        assert not store.add(one)
        with pytest.raises(Conflict):
            store.add(Rating(rater, key(5), {"identity": 1, "motion": 2, "quality": 4}))
        with Store(tmp_path / "r.sqlite") as other:  # what another process sees
            assert other.ratings() == [one]
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_orders_stay_balanced_if_raters_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with Store(tmp_path / "r.sqlite") as store:
        raters = [store.start(4, 1)[1] for _ in range(6)]
        assert [rater.slot for rater in raters] == [0, 1, 2, 3, 4, 5]
        for rater in raters[:5]:
            store.add(Rating(rater, key(1), {"identity": 1, "motion": 1, "quality": 1}))
        monkeypatch.setattr(time, "time", lambda: now + 3 * 3600)
        assert [store.start(4, 1)[1].slot for _ in range(4)] == [9, 6, 7, 8]  # the second rater of order 1 stopped


# ---- CSV files ------------------------------------------------------------------------------------------------------


def test_ratings_survive_a_round_trip(tmp_path: Path) -> None:
    study = make_study()
    ratings = [rating(1, study.practice.id, 1, 1, 1), rating(1, study.groups[0].items[0].id, 1, 2, 5)]
    (tmp_path / "a.csv").write_text("\ufeff" + write_ratings(study, ratings).replace("\n", "\r\n"))
    (tmp_path / "b.csv").write_text(write_ratings(study, [*ratings, rating(2, study.checks[0].id, 3, 3, 3)]))
    assert read_ratings(study, tmp_path / "a.csv") == ratings
    with Store(tmp_path / "r.sqlite") as store:
        assert import_ratings(study, store, [tmp_path / "a.csv", tmp_path / "b.csv"]) == (3, 2)
        assert import_ratings(study, store, [tmp_path / "b.csv"]) == (0, 3)
        assert [one.scores["quality"] for one in store.ratings()] == [1, 5, 3]


LINE = {
    "study": key(1),
    "slot": "1",
    "rater": f"{1:016x}",
    "item": key(100),
    "identity": "1",
    "motion": "2",
    "quality": "3",
    "seconds": "1.5",
}


@pytest.mark.parametrize(
    ("cell", "text", "reason"),
    [
        ("identity", "6", "identity '6' is not 1 to 5"),
        ("motion", "0", "motion '0' is not 1 to 5"),
        ("quality", "٣", "quality '٣' is not 1 to 5"),
        ("quality", "3.0", "quality '3.0' is not 1 to 5"),
        ("rater", "=cmd|' /C calc'!A0", "rater"),
        ("rater", HOSTILE, "rater '</script><img src=x onerror=alert(1)>|\\\\i' is not 16 hexadecimal digits"),
        ("rater", "a\x1b[31mb\n", "rater 'a\N{REPLACEMENT CHARACTER}[31mb' is not 16 hexadecimal digits"),
        ("item", "../../etc/passwd", "item '../../etc/passwd' is not of this study"),
        ("item", key(99), "is not of this study"),
        ("study", key(2), "is another study"),
        ("slot", "-1", "slot '-1' is not a number"),
        ("seconds", "nan", "seconds 'nan' is not a number"),
        ("seconds", "1e9", "seconds '1e9' is not a number"),
    ],
)
def test_a_hostile_cell_is_refused_and_nothing_is_imported(tmp_path: Path, cell: str, text: str, reason: str) -> None:
    import csv

    study = make_study()
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([FIELDS, LINE.values(), ({**LINE, "item": key(101), cell: text}).values()])
    with Store(tmp_path / "r.sqlite") as store:
        with pytest.raises(UsageError, match=re.escape(reason)) as refused:
            import_ratings(study, store, [tmp_path / "a.csv"])
        assert "a.csv, line " in str(refused.value)
        assert "\n" not in str(refused.value)
        assert store.raters() == []


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"\xff\xfe\x00", b'"' + ",".join(FIELDS).encode(), b"\x00" * 50])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.csv"):
        read_ratings(make_study(), tmp_path / "a.csv")


def test_conflicting_files_are_refused_as_a_whole(tmp_path: Path) -> None:
    study = make_study()
    item = study.groups[0].items[0].id
    (tmp_path / "a.csv").write_text(write_ratings(study, [rating(1, item, 1, 2, 3), rating(1, item, 1, 2, 4)]))
    (tmp_path / "b.csv").write_text(
        write_ratings(study, [rating(1, item, 1, 2, 3), Rating(Rater(f"{1:016x}", 2), item, dict.fromkeys(KEYS, 1))])
    )
    with Store(tmp_path / "r.sqlite") as store:
        with pytest.raises(UsageError, match=r"nothing was imported: .* twice, with different scores"):
            import_ratings(study, store, [tmp_path / "a.csv"])
        with pytest.raises(UsageError, match=r"nothing was imported: .* has slot 1 and 2"):
            import_ratings(study, store, [tmp_path / "b.csv"])
        assert store.ratings() == store.raters() == []


# ---- evaluation -----------------------------------------------------------------------------------------------------


def test_means_and_intervals_are_those_of_the_raters_who_count() -> None:
    pytest.importorskip("krippendorff")
    study = make_study(methods=2, groups=1, checks=2)
    a, b = (item.id for item in study.groups[0].items)
    answers = [(5, 1), (4, 2), (5, 3), (4, 1), (3, 2), (4, 2)]
    ratings = [rating(r, study.practice.id, 1, 1, 1) for r in range(9)]
    for number, (first, second) in enumerate(answers):
        ratings += [rating(number, a, first, 3, 1), rating(number, b, second, 3, 2), *passed(study, number)]
    ratings += [rating(6, a, 1, 1, 1), rating(6, b, 5, 5, 5), *passed(study, 6)[:1]]  # stops before the last check
    ratings += [rating(7, a, 1, 1, 1), rating(7, b, 5, 5, 5), *(rating(7, c.id, 3, 3, 3) for c in study.checks)]
    found = evaluate(study, ratings)
    assert (found.raters.started, found.raters.unfinished, found.raters.failed, found.raters.used) == (8, 1, 1, 6)
    means = {(one.method, one.question): one for one in found.means}
    mean = means["A", "identity preservation"]
    assert mean.value == pytest.approx(25 / 6)
    assert means["B", "identity preservation"].value == pytest.approx(11 / 6)
    assert (means["A", "motion consistency"].ci_low, means["A", "motion consistency"].ci_high) == (3, 3)
    interval = bootstrap_mean(np.array([5.0, 4, 5, 4, 3, 4]), [f"{r:016x}" for r in range(6)])
    assert interval is not None
    assert (mean.ci_low, mean.ci_high) == (interval.low, interval.high)
    difference = {one.comparison.column: one for one in found.differences}["identity preservation"]
    assert difference.comparison.difference == pytest.approx(14 / 6)
    assert difference.comparison.p_value == pytest.approx(2 / 64)  # six raters agree on the sign
    assert difference.p_adjusted == pytest.approx(2 / 64)
    assert difference.significant
    assert found.letters["identity preservation"] == ("a", "b")
    assert found.letters["motion consistency"] == ("a", "a")
    everyone = evaluate(study, ratings, unfinished=True, allowed_failures=2)
    assert (everyone.raters.used, everyone.raters.failed) == (8, 0)


def test_p_values_are_adjusted_over_the_pairs_of_methods() -> None:
    pytest.importorskip("krippendorff")
    study = make_study(methods=3, groups=1, checks=0)
    scores = {0: (5, 5, 5, 5, 5, 5, 5), 1: (3, 3, 3, 3, 3, 4, 3), 2: (3, 3, 3, 4, 3, 3, 3)}
    ratings = [
        rating(r, study.groups[0].items[m].id, own[r], own[r], own[r]) for m, own in scores.items() for r in range(7)
    ]
    found = [one for one in evaluate(study, ratings).differences if one.comparison.column == "visual quality"]
    assert [(one.a, one.b) for one in found] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [one.comparison.p_value for one in found] == pytest.approx([2 / 128, 2 / 128, 1])
    assert [one.p_adjusted for one in found] == pytest.approx([6 / 128, 6 / 128, 1])


def test_a_few_raters_have_means_and_no_intervals() -> None:
    pytest.importorskip("krippendorff")
    study = make_study(methods=2, groups=1, checks=0)
    ratings = [rating(r, item.id, 2, 3, 4 + r % 2) for r in range(3) for item in study.groups[0].items]
    found = evaluate(study, ratings)
    assert {(one.value, one.ci_low) for one in found.means if one.question != "visual quality"} == {
        (2, None),
        (3, None),
    }
    assert not any(one.significant for one in found.differences)
    text = render(study, found, Correlations((), 1, 1, ()))
    assert "Too few raters" in text
    assert "**" not in text


def test_alpha_is_that_of_krippendorffs_example() -> None:
    pytest.importorskip("krippendorff")
    nan = np.nan
    coders = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ])  # fmt: skip
    same = np.tile([1.0, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2], (4, 1))
    found = agreement(np.stack([coders, same, np.full((4, 12), 3.0)], axis=-1)[:, :, None, :])
    assert found[0].alpha == pytest.approx(0.815, abs=5e-4)
    assert found[0].ci_low is not None
    assert found[0].ci_low < 0.815 < found[0].ci_high
    assert found[1].alpha == pytest.approx(1)
    assert found[2].alpha is None


# ---- correlation ----------------------------------------------------------------------------------------------------


def test_spearman_is_that_of_scipy() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    for n in (2, 3, 20):
        x, y = rng.integers(0, 5, n) + 0.0, rng.integers(0, 7, n) + rng.integers(0, 2, n) / 2
        if np.ptp(x) and np.ptp(y):
            assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(np.array([1.0, 2, 3, np.nan]), np.array([10.0, 30, 20, 0])) == pytest.approx(0.5)
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))


def test_correlations_have_the_sign_of_agreement_over_all_videos_and_within_pairs() -> None:
    study = make_study(methods=3, groups=2, checks=0)
    scores = np.zeros((2, 2, 3, 3))
    scores[0, :, :, 0] = [[1, 2, 3], [2, 3, 4]]
    scores[1, :, :, 0] = [[1, 2, 3], [4, 5, 5]]  # means 1 2 3, 3 4 4.5
    scores[..., 1] = scores[..., 2] = 3
    values = MetricValues(
        {"error": np.array([[9.0, 8, 7], [6, 4, 5]]), "none": np.array([[1.0, 2, np.nan], [4, 4, 5]])},
        {"error": -1, "none": 0},
        ("a note",),
    )
    found = correlate(study, scores, values)
    by = {(one.column, one.question): one for one in found.rows}
    error = by["error", "identity preservation"]
    # ranks of the means 1 2 3.5 3.5 5 6, of the negated errors 1 2 3 4 6 5
    assert error.rho == pytest.approx(np.corrcoef([1, 2, 3.5, 3.5, 5, 6], [1, 2, 3, 4, 6, 5])[0, 1])
    assert error.within == pytest.approx((1 + 0.5) / 2)
    assert (error.n, error.ci_low) == (6, None)  # two subjects
    none = by["none", "identity preservation"]
    assert none.n == 5
    assert none.within == pytest.approx((1 + np.sqrt(3) / 2) / 2)
    assert by["error", "visual quality"].rho is None
    assert found.notes == ("a note",)


def test_a_metric_that_sees_quality_is_told_from_one_that_does_not(built: tuple[Path, Study], tmp_path: Path) -> None:
    pytest.importorskip("krippendorff")
    _, study = built
    metrics = load_values(study)
    assert set(metrics.columns) == {"difference", "luck"}
    assert metrics.notes == ()
    pair = study.groups[2].pair
    index = [method.label for method in study.methods].index("wibble")
    off = 60 * (2 + int(pair[1:]) % 3) // 3
    assert metrics.columns["difference"][2, index] == pytest.approx(off * 24 * 20 / 48**2, rel=0.01)
    rng = np.random.default_rng(1)
    ratings = []
    for rater in range(8):
        for group in study.groups:
            for method, item in zip(study.methods, group.items, strict=True):
                score = int(np.clip(round(5 - toy.METHODS[method.label] / 18 + rng.normal(0, 0.5)), 1, 5))
                ratings.append(rating(rater, item.id, score, score, score))
        ratings += passed(study, rater)
    found = evaluate(study, ratings)
    correlations = correlate(study, found.scores, metrics)
    by = {(one.column, one.question): one for one in correlations.rows}
    good, bad = by["difference", "visual quality"], by["luck", "visual quality"]
    assert good.rho > 0.8
    assert 0 < good.ci_low < good.rho < good.ci_high
    assert good.within > 0.8
    assert abs(bad.rho) < 0.5
    assert not bad.ci_low > 0
    texts = {format_: render(study, found, correlations, format_) for format_ in FORMATS}
    order = re.findall(r"^\| (\w+)", texts["markdown"].partition("### Agreement")[0], re.MULTILINE)
    assert order == ["Method", *toy.METHODS]
    assert "difference,visual quality," in texts["csv"]
    assert texts["markdown"].count("### ") == 6
    reported = texts["markdown"].partition("### Table 2")[2]
    assert not any(method in reported for method in toy.METHODS)


def test_correlations_within_groups_are_those_of_each_group() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 4, (30, 5)) + 0.0, rng.integers(0, 4, (30, 5)) + 0.0
    x[3] = 1
    expected = [spearman(one, other) for one, other in zip(x, y, strict=True)]
    assert within_groups(x, y) == pytest.approx(expected, nan_ok=True)
    x[0, 0] = np.nan
    expected[0] = spearman(x[0], y[0])
    assert within_groups(x, y) == pytest.approx(expected, nan_ok=True)


def test_intervals_of_correlations_cover_other_raters_and_other_subjects() -> None:
    """The same mean scores, once by raters who agree and once by raters who do not: the latter give wider intervals."""
    study = make_study(methods=3, groups=8, checks=0)
    rng = np.random.default_rng(4)
    truth = rng.normal(3, 1, (8, 3))
    values = MetricValues({"metric": truth + rng.normal(0, 0.4, truth.shape)}, {"metric": 1}, ())

    def found(raters: int, spread: float) -> Correlation:
        bias = rng.normal(0, spread, (raters // 2, 8, 3, 1))
        scores = truth[None, :, :, None] + np.concatenate([bias, -bias]) + np.zeros(3)
        return correlate(study, scores, values).rows[0]

    agreeing, disagreeing = found(8, 0.0), found(8, 2.0)
    assert agreeing.rho == pytest.approx(disagreeing.rho)
    for one in (agreeing, disagreeing):
        assert one.ci_low < one.rho < one.ci_high
        assert one.within_low < one.within < one.within_high
    assert disagreeing.ci_high - disagreeing.ci_low > 1.3 * (agreeing.ci_high - agreeing.ci_low)
    assert found(4, 0.0).ci_low is None  # four raters are too few


def test_metrics_of_other_outputs_and_of_missing_runs_are_left_out(built: tuple[Path, Study]) -> None:
    _, study = built
    changed = study.groups[0].model_copy(update={"outputs": ["0" * 64, *study.groups[0].outputs[1:]]})
    lost = study.methods[1].model_copy(update={"path": "nowhere"})
    methods = [study.methods[0], lost, *study.methods[2:]]
    broken = study.model_copy(update={"groups": [changed, *study.groups[1:]], "methods": methods})
    metrics = load_values(broken)
    assert [note.partition(": ")[0] for note in metrics.notes] == [methods[0].label, lost.label]
    assert "its outputs have changed" in metrics.notes[0]
    assert "the run is not there" in metrics.notes[1]
    assert np.isnan(metrics.columns["difference"][:, :2]).all()
    assert np.isfinite(metrics.columns["difference"][:, 2:]).all()


# ---- report ---------------------------------------------------------------------------------------------------------


def test_names_are_text_in_every_format() -> None:
    pytest.importorskip("krippendorff")
    study = make_study(labels=[HOSTILE, "B"], checks=0)
    ratings = [rating(r, item.id, 1 + r % 2, 3, 4) for r in range(2) for g in study.groups for item in g.items]
    found = evaluate(study, ratings)
    texts = {format_: render(study, found, Correlations((), 3, 2, ()), format_) for format_ in FORMATS}
    assert "<img" not in texts["html"]
    assert "\\input{" not in texts["latex"]
    assert "\\<img" in texts["markdown"]
    page = render_page(study.model_copy(update={"title": HOSTILE, "consent": HOSTILE}))
    assert "<img" not in page
    assert page.count("</script>") == 2


def test_the_papers_table_is_that_of_the_documentation() -> None:
    rows = re.findall(
        r"^\| (\w+) \(reported\) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", (ROOT / "docs/paper.md").read_text(), re.M
    )
    assert {name: tuple(map(float, scores)) for name, *scores in rows} == PAPER_SCORES
