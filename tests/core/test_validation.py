"""Perturbed targets: the faults are what they say, and reactions are ranked, told from side effects, and compared with
the truth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_plugin as toy

from bcd_bench import AssetSpec, Clip, Column, Failed, MetricSpec, Pair, Scored, Suite, SuiteSpec, hookimpl
from bcd_bench.cli.app import main
from bcd_bench.metric_validation.perturbations import (
    GENERAL,
    TRUTH_KEY,
    Perturbation,
    blur,
    delay,
    flicker,
    frame_shuffle,
)
from bcd_bench.metric_validation.report import render
from bcd_bench.metric_validation.run import Validation, validate
from bcd_bench.metric_validation.sensitivity import Reaction, rank_correlation
from bcd_bench.plugin.registry import Registry
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.util.pool import PoolOptions


def wrong_subject(pair: Pair, dose: float, seed: int) -> Clip:
    """The target in the colour of the subject `dose` further on, which is known exactly."""
    del seed
    assert pair.target is not None
    labels = pair.target.labels
    if pair.id == "p03" and dose == 2:
        raise RuntimeError("out of paint")
    clip = toy.draw(int(labels["subject"]) + int(dose), int(labels["motion"]), 6)
    return Clip(clip.frames, clip.fps, info={TRUTH_KEY: {"colour-error": dose}})


def make_suite(data: Mapping[str, Path]) -> Suite:
    """The toy suite with targets of six frames, and a fault of its own."""
    plain = toy.make_suite(data, 8)
    pairs = []
    for pair in plain.pairs:
        assert pair.target is not None
        source = dataclasses.replace(pair.target.source, arguments={**pair.target.source.arguments, "frames": 6})  # type: ignore[type-var]
        pairs.append(dataclasses.replace(pair, target=dataclasses.replace(pair.target, source=source)))
    fault = Perturbation(
        "wrong-subject", "subjects", (1.0, 2.0, 4.0), "Another.", ("identity",), f"{__name__}:wrong_subject"
    )
    return dataclasses.replace(
        plain, name="faulty", pairs=pairs, perturbations=(fault,), default_metrics=("colour", "path")
    )


class Colour:
    """How far the square's colour is from the target's."""

    columns = (Column("colour-error", "steps", False, "Steps of colour."),)

    def load(self, device: str) -> None: ...

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        return [{"colour-error": (_red(item.output) - _red(item.pair.target.load())) / 20.0} for item in items]  # type: ignore[union-attr]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        return {}


class Path_:
    """Share of frames in which the square is where it should be; higher is better."""

    columns = (Column("on-path", "", True, "Share of frames."),)

    def load(self, device: str) -> None: ...

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        rows = []
        for item in items:
            assert item.pair.target is not None
            found, wanted = (clip.frames[:, 6, :, 2].argmax(1) for clip in (item.output, item.pair.target.load()))
            rows.append({"on-path": float((found == wanted).mean())})
        return rows

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        return {}


class Moody:
    """Mean red of a set: raises while it folds the brightest subjects, and when it should tell of bright ones."""

    columns = (Column("red", "", None, "Mean red.", "set"),)

    def load(self, device: str) -> None: ...

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        reds = [_red(item.output) for item in items]
        if max(reds) > 190:
            raise RuntimeError("cannot be folded")
        return [*(state or []), *reds]

    def merge(self, states: Sequence[Any]) -> Any:
        return [red for state in states for red in state or []]

    def compute(self, state: Any) -> Mapping[str, Any]:
        if max(state) > 150:
            raise ZeroDivisionError("cannot be told")
        return {"red": sum(state) / len(state)}


def _red(clip: Clip) -> float:
    return float(clip.frames[..., 0].max(axis=(1, 2)).mean())


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return [SuiteSpec("faulty", "1", "Toys that can be perturbed.", f"{__name__}:make_suite")]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [AssetSpec("toy-weights", "toy.bin", "0" * 64, 1, "none", "make some")]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    return [
        MetricSpec("colour", "1", "Colour.", f"{__name__}:Colour", measures=("identity",)),
        MetricSpec("lacking", "1", "Lacks its weights.", f"{__name__}:Colour", assets=("toy-weights",)),
        MetricSpec("moody", "1", "Raises.", f"{__name__}:Moody", level="set"),
        MetricSpec("path", "1", "Path.", f"{__name__}:Path_", measures=("motion", "time")),
        MetricSpec("skipping", "1", "Skips frames.", f"{__name__}:Skipping"),
    ]


class Skipping(Colour):
    """Sees half of the frames where the colour is far off, and says so."""

    columns = (Column("near", "", True, "", frames="near-frames"), Column("near-frames", "%", True, "", headline=False))

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        far = [item.info.get(TRUTH_KEY, {}).get("colour-error", 0) >= 2 for item in items]
        return [{"near": 1.0, "near-frames": 50.0 if one else 100.0} for one in far]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    import sys

    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    return Registry.from_modules([toy, sys.modules[__name__]])


def found(registry: Registry, **options: Any) -> tuple[Validation, dict[tuple[str, str], Reaction]]:
    made = validate(registry, make_suite({}), **options)
    return made, {(one.column, one.perturbation): one for one in made.reactions}


def test_faults_are_ranked_and_side_effects_are_marked(registry: Registry) -> None:
    made, reactions = found(registry)
    subject = reactions["colour-error", "wrong-subject"]
    assert (subject.rank, subject.side_effect) == (1.0, False)
    assert subject.means == pytest.approx((0.0, 1.0, 2.0, 4.0))
    assert (subject.n, subject.n_failed) == (7, 1), "p03 could not be drawn in one dose"
    assert "colour: RuntimeError: out of paint" in made.notes
    flickering = reactions["colour-error", "flicker"]
    assert flickering.side_effect
    assert flickering.means[0] == 0.0
    path = reactions["on-path", "wrong-subject"]
    assert (path.rank, path.side_effect) == (0.0, True), "a column that does not move has no reaction"
    assert path.means == (1.0,) * 4
    late = reactions["on-path", "delay"]
    assert late.means[1:] == pytest.approx((1 / 6,) * 3), "the first frame stays right, whatever the delay"
    assert late.rank == pytest.approx(0.6**0.5), "a fall and a tie of three: worse is positive though higher is better"
    assert list(late.means) == sorted(late.means, reverse=True)
    assert not late.side_effect


def test_means_over_some_of_the_frames_are_marked(registry: Registry) -> None:
    found = validate(registry, make_suite({}), ["skipping"], perturbations=["wrong-subject"])
    near = next(reaction for reaction in found.reactions if reaction.column == "near")
    assert near.means == (1, 1, 1, 1)
    assert near.frames == (1, 1, 0.5, 0.5)
    page = render(found)
    assert "0: 1, 1: 1, 2: 1†, 4: 1†" in page
    assert "† rests on fewer than 95 % of the frames" in page


def test_a_set_metric_that_raises_loses_its_sets_alone(registry: Registry) -> None:
    made, reactions = found(registry, metrics=["moody", "colour"], perturbations=["wrong-subject"])
    moody = reactions["red", "wrong-subject"]
    assert moody.means[:2] == pytest.approx((72.5, 92.5)), "the sets that did not raise are there"
    assert moody.means[2:] == (None, None)
    assert moody.rank is None
    assert reactions["colour-error", "wrong-subject"].rank == 1.0
    assert "moody: RuntimeError: cannot be folded" in made.notes
    assert "moody: ZeroDivisionError: cannot be told" in made.notes


def test_the_truth_is_compared_where_it_is_known(registry: Registry) -> None:
    made, _ = found(registry)
    [one] = made.agreements
    assert (one.column, one.spearman, one.floor) == ("colour-error", 1.0, 0.0)
    assert (one.n, one.n_failed) == (8 * 3 - 1, 0), "every dose that was drawn"
    assert one.n_floor == 8, "the unharmed targets, once"
    assert (one.low, one.high) == pytest.approx((1.0, 1.0))


def test_faults_and_metrics_can_be_chosen_and_the_same_is_found_twice(registry: Registry) -> None:
    first, reactions = found(registry, metrics=["path"], perturbations=["frame-shuffle"], limit=3, seed=4)
    again, _ = found(registry, metrics=["path"], perturbations=["frame-shuffle"], limit=3, seed=4)
    assert first == again
    assert set(reactions) == {("on-path", "frame-shuffle")}
    assert first.n_pairs == 3
    with pytest.raises(UsageError, match=r"unknown perturbation 'blurr' .* wrong-subject, blur, flicker"):
        found(registry, perturbations=["blurr"])


def test_default_metrics_that_lack_an_asset_are_named_and_the_others_scored(registry: Registry) -> None:
    suite = dataclasses.replace(make_suite({}), default_metrics=("lacking", "path"))
    made = validate(registry, suite, perturbations=["delay"], limit=2)
    assert {one.metric for one in made.reactions} == {"path"}
    assert "lacking was not scored: asset 'toy-weights': not found" in made.notes[0]
    with pytest.raises(MissingAssetError, match="toy-weights"):
        validate(registry, suite, ["lacking"], limit=2)


def test_suites_without_targets_are_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"'toy-open' has no ground-truth targets to perturb \(pair p00\)"):
        validate(registry, toy.make_suite_without_targets({}), ["path"])


def test_the_page_tells_ranks_truth_means_and_provenance(registry: Registry) -> None:
    text = render(found(registry)[0])
    assert "| column | wrong-subject | blur | flicker | frame-shuffle | delay |" in text
    assert "| colour-error | 1.000 [1.000, 1.000] | 23 | 0 (8 clips) |" in text
    assert "| colour-error (steps) | wrong-subject | 0: 0, 1: 1, 2: 2, 4: 4 | 7 (1 without) |" in text
    assert "| on-path | 0.00 " in text
    assert "manifest" in text


def test_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([0, 1, 2, 3], [1, 4, 9, 100]) == pytest.approx(1.0)
    assert rank_correlation([0, 1, 2], [5, 5, 5]) == 0.0
    # ranks (1, 2, 3, 4) and (2, 1, 4, 3): 1 - 6 * 4 / (4 * 15)
    assert rank_correlation([0, 1, 2, 3], [2, 1, 8, 7]) == pytest.approx(0.6)


def pair_of(frames: np.ndarray) -> Pair:
    """A pair whose target is `frames`, without going through a file."""

    class Here:
        id, labels = "here", {}

        def load(self) -> Clip:
            return Clip(frames, 8.0, "here")

    return Pair("p", toy.ref(0, 0), toy.ref(1, 1), Here())  # type: ignore[arg-type]


def test_the_general_faults_do_what_they_say() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 190, (8, 32, 32, 3), dtype=np.uint8)
    pair = pair_of(noise)
    assert (delay(pair, 3, 0).frames == noise[[0, 0, 0, 0, 1, 2, 3, 4]]).all()
    brighter = flicker(pair, 16, 0).frames.astype(int) - noise
    assert set(np.unique(brighter)) == {-16, 16}
    assert (np.ptp(brighter, axis=(1, 2, 3)) == 0).all(), "a frame is brighter as a whole"
    assert ((flicker(pair, 8, 0).frames.astype(int) - noise) * 2 == brighter).all(), "the same fault, only weaker"
    half = frame_shuffle(pair, 0.5, 0).frames
    moved = [index for index in range(8) if (half[index] != noise[index]).any()]
    assert len(moved) == 4
    assert sorted(half.sum((1, 2, 3)).tolist()) == sorted(noise.sum((1, 2, 3)).tolist())
    soft = blur(pair, 8, 0).frames  # one pixel at this height
    assert soft.std() < 0.5 * noise.std()
    assert abs(float(soft.mean()) - float(noise.mean())) < 1


def test_a_step_of_light_blurs_as_the_gaussian_does() -> None:
    step = np.zeros((1, 256, 256, 3), np.uint8)
    step[:, :, 128:] = 200
    row = blur(pair_of(step), 2, 0).frames[0, 100, :, 1].astype(float)
    assert row[120] == 0
    assert row[127] == pytest.approx(200 * 0.4013, abs=1)  # Phi(-0.25): half a pixel beside the edge
    assert row[127] + row[128] == pytest.approx(200, abs=1)


def test_every_general_fault_has_rising_doses() -> None:
    for fault in GENERAL:
        assert list(fault.doses) == sorted(set(fault.doses))
        assert min(fault.doses) > 0
        assert set(fault.changes) <= {"identity", "motion", "appearance", "time"}


def test_the_verb_writes_pages_and_json(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bcd_bench.cli.validate_metrics.load", lambda: registry)
    command = ["validate-metrics", "--suite", "faulty", "--limit", "2", "--perturbation", "delay"]
    for arguments, code in (([], 0), (["--output", str(tmp_path / "x.json")], 0), (["--output", "no/where.md"], 2)):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *arguments])
        assert stopped.value.code == code
    told = capsys.readouterr()
    assert "# Metrics under known faults: faulty@1" in told.out
    assert "the folder no does not exist" in told.err
    body = json.loads((tmp_path / "x.json").read_text())
    assert {one["perturbation"] for one in body["reactions"]} == {"delay"}
    assert body["metrics"]["path"]["version"] == "1"


def set_of_levels() -> MetricSpec:
    return MetricSpec("levels", "1", "levels", f"{__name__}:Levels", level="set")


class Levels:
    """A set metric whose last bits depend on the order of its sum."""

    columns = (Column("level", "levels", False, "a sum", kind="set"),)

    def load(self, device: str) -> None:
        del device

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        total = 0.0 if state is None else float(state["total"])
        for item in items:
            total = total * 1.1 + float(item.output.frames.mean()) / 3
        return {"total": total}

    def merge(self, states: Sequence[Any]) -> Any:
        raise AssertionError("one worker adds up a severity")

    def compute(self, state: Any) -> Mapping[str, float]:
        return {"level": float(state["total"])}


def test_workers_measure_what_one_process_measures(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry.add("metrics", set_of_levels(), registry.owner("metrics", "colour"))
    metrics = ("colour", "path", "levels")
    alone = validate(registry, make_suite({}), metrics)
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "another-home"))
    workers = validate(registry, make_suite({}), metrics, jobs=2, pool=PoolOptions())
    assert workers.reactions == alone.reactions
    assert workers.agreements == alone.agreements
    assert len(alone.agreements) == 1
    assert [reaction.means for reaction in alone.reactions if reaction.metric == "levels"]
    assert set(workers.notes) == set(alone.notes)


def test_a_hanging_metric_is_one_line(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"scoring .* took more than 0.08 s"):
        validate(registry, make_suite({}), ("colour",), jobs=1, pool=PoolOptions(timeout=0.01))
