"""The conformance kit: what is right passes, and every kind of wrong plugin is caught."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bcd_bench import Clip, Column, Failed, MethodSpec, MetricSpec, Pair, Scored, TrainableSpec
from bcd_bench.plugin.registry import Registry
from bcd_bench.testing import (
    checks_for,
    extractor_checks,
    method_checks,
    metric_checks,
    parametrize_with_checks,
    plugin_checks,
    practice_pairs,
)
from bcd_bench.testing.kit import Subject
from bcd_bench.testing.synthetic import Cut, blank, cut_ref
from bcd_bench.types.clip import ClipRef, Generated
from bcd_bench.types.errors import UsageError


@parametrize_with_checks("core")
def test_the_core_conforms(check) -> None:
    check()


def test_practice_clips_are_exact_and_distinct() -> None:
    pairs = practice_pairs(3, size=(32, 48), frames=6)
    first = pairs[0]
    assert first.content.load().frames.shape == (6, 32, 48, 3)
    assert first.content.labels["subject"] == first.target.labels["subject"]
    assert first.motion.labels["motion"] == first.target.labels["motion"]
    assert len({pair.content.load().sha256 for pair in pairs}) == 3
    assert len({pair.motion.load().sha256 for pair in pairs}) == 3
    # the same motion puts the disc in the same place, whoever moves
    moved = (first.motion.load().frames != 40).any(-1)
    assert np.array_equal(moved, (first.target.load().frames != 40).any(-1))


def test_cut_keeps_the_first_frames() -> None:
    ref = practice_pairs(1)[0].content
    short = cut_ref(ref, 2)
    assert np.array_equal(short.load().frames, ref.load().frames[:2])
    assert short.describe()["source"] == {"kind": "cut", "source": ref.source.describe(), "frames": 2}
    assert not blank(ref.load()).frames.any()
    assert isinstance(Cut(ref.source, 1).load(), Clip)


class Good:
    """Half of each clip."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def load(self, weights: Path | None, device: str) -> None:
        self.calls = 0

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        for index, pair in enumerate(pairs):
            yield self.one(pair, index, len(pairs))

    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        content, motion = pair.content.load(), pair.motion.load()
        return Clip((content.frames[:1] // 2 + motion.frames // 2).astype(np.uint8), motion.fps, pair.id)


class Short(Good):
    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        clip = super().one(pair, index, company)
        return Clip(clip.frames[:4], clip.fps)


class FixedLength(Good):
    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        clip = super().one(pair, index, company)
        return Clip(np.resize(clip.frames, (8, *clip.frames.shape[1:])), clip.fps)


class Restless(Good):
    noise = np.random.default_rng()

    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        clip = super().one(pair, index, company)
        return Clip(clip.frames + self.noise.integers(0, 2, clip.frames.shape, np.uint8), clip.fps)


class Ordered(Good):
    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        clip = super().one(pair, index, company)
        return Clip(clip.frames + np.uint8(index), clip.fps)


class Sociable(Good):
    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        clip = super().one(pair, index, company)
        return Clip(clip.frames + np.uint8(company), clip.fps)


class NeedsMotion(Good):
    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        assert len(pair.content.load()) > 1, "cannot do stills"
        return super().one(pair, index, company)


class Sulky(Good):
    def one(self, pair: Pair, index: int, company: int) -> Clip | Failed:
        return Failed("not today")


def subject_of(spec: Any, kind: str) -> Subject:
    registry = Registry.from_modules([])
    return Subject(registry, registry.plugins[0], kind, spec)


def method(cls: type) -> Subject:
    return subject_of(MethodSpec("mine", "1", "Mine.", f"{__name__}:{cls.__name__}"), "methods")


def broken_checks(subject: Subject, checks: Sequence[Any]) -> set[str]:
    broken = set()
    for check in checks:
        try:
            check(subject)
        except AssertionError:
            broken.add(check.__name__)
    return broken


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Good, set()),
        (Short, {"outputs_have_shape_and_dtype", "length_equals_the_driver", "one_frame_of_content_is_enough"}),
        (FixedLength, {"length_equals_the_driver"}),
        (Restless, {"same_seed_gives_same_bytes", "order_does_not_matter", "batch_mates_do_not_matter"}),
        (Ordered, {"order_does_not_matter", "batch_mates_do_not_matter"}),
        (Sociable, {"batch_mates_do_not_matter"}),
        (NeedsMotion, {"one_frame_of_content_is_enough"}),
        (Sulky, {"outputs_have_shape_and_dtype"}),
    ],
)
def test_each_method_fault_is_caught(cls: type, expected: set[str]) -> None:
    assert broken_checks(method(cls), method_checks.CHECKS) == expected


def test_tolerance_allows_rounding_but_never_between_equal_calls() -> None:
    assert broken_checks(replace(method(Sociable), tolerance=5.0), method_checks.CHECKS) == set()
    restless = replace(method(Restless), tolerance=5.0)
    assert broken_checks(restless, method_checks.CHECKS) == {"same_seed_gives_same_bytes"}


class Brightness:
    columns = (Column("bright", "levels", None, "Mean grey level of the output."),)

    def load(self, device: str) -> None:
        self.seen = 0

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        return [self.row(float(item.output.frames.mean()), index) for index, item in enumerate(items)]

    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": value}

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        return {}


class NotANumber(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": float("nan")}


class NumpyScalar(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": np.float32(value)}


class Unnamed(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"brightness": value}


class OrderedScore(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": value + index}


class RaisesOnBlank(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": 1 / value}


class FailsOnBlank(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": 1 / value} if value else Failed("nothing there")


class Fussy(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return Failed("needs what the method says")


class Selective(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": None} if value > 60 else {"bright": value}


class Undocumented(Brightness):
    columns = (Column("bright", "levels", None, "x"),)


class SkipsBlackFrames(Brightness):
    """Reads the frames that show something, as a metric that looks through a detector does, and tells nobody."""

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        return [self.over(item.output.frames.mean(axis=(1, 2, 3))) for item in items]

    def over(self, levels: Any) -> Mapping[str, Any] | Failed:
        found = levels > 0
        return {"bright": float(levels[found].mean()), **self.told(found)} if found.any() else Failed("all black")

    def told(self, found: Any) -> Mapping[str, Any]:
        return {}


class SaysSo(SkipsBlackFrames):
    columns = (
        Column("bright", "levels", None, "Mean grey level of the output.", frames="bright-frames"),
        Column("bright-frames", "%", True, "Share of frames that are not black.", headline=False),
    )

    def told(self, found: Any) -> Mapping[str, Any]:
        return {"bright-frames": 100 * float(found.mean())}


class SaysSoToNobody(SaysSo):
    """Has the column, as the metrics of faces once had, and nobody looks at it."""

    columns = tuple(replace(column, frames="") for column in SaysSo.columns)


class SaysAllAreThere(SaysSo):
    def told(self, found: Any) -> Mapping[str, Any]:
        return {"bright-frames": 100.0}


class SaysNothing(SaysSo):
    def told(self, found: Any) -> Mapping[str, Any]:
        return {}


class SaysTheNumber(SaysSo):
    def told(self, found: Any) -> Mapping[str, Any]:
        return {"bright-frames": 100.0 * int(found.sum())}


class NamesNoColumn(SkipsBlackFrames):
    columns = (Column("bright", "levels", None, "Mean grey level of the output.", frames="frames-seen"),)

    def told(self, found: Any) -> Mapping[str, Any]:
        return {"frames-seen": 100 * float(found.mean())}


class ReadsNoFrames(Brightness):
    def row(self, value: float, index: int) -> Mapping[str, Any] | Failed:
        return {"bright": 3.0}


def metric(cls: type, level: str = "pair") -> Subject:
    return subject_of(MetricSpec("bright", "1", "Bright.", f"{__name__}:{cls.__name__}", level=level), "metrics")


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Brightness, set()),
        (FailsOnBlank, set()),
        (Selective, set()),
        (Undocumented, {"columns_are_documented"}),
        (OrderedScore, {"batch_mates_do_not_matter"}),
        (Unnamed, {"rows_are_json_safe"}),
        (SkipsBlackFrames, {"left_out_frames_are_counted"}),
        (SaysSo, set()),
        (SaysSoToNobody, {"left_out_frames_are_counted"}),
        (SaysAllAreThere, {"left_out_frames_are_counted"}),
        (NamesNoColumn, {"columns_are_documented"}),
        (ReadsNoFrames, set()),
    ],
)
def test_each_metric_fault_is_caught(cls: type, expected: set[str]) -> None:
    assert broken_checks(metric(cls), metric_checks.CHECKS) == expected


@pytest.mark.parametrize(("cls", "wrong"), [(SaysNothing, "None"), (SaysTheNumber, "800.0")])
def test_a_share_of_frames_is_a_percentage(cls: type, wrong: str) -> None:
    with pytest.raises(
        AssertionError, match=rf"bright-frames, which bright rests on, is {wrong}, not a share of 0 to 100 %"
    ):
        metric_checks.rows_are_json_safe(metric(cls))


@pytest.mark.parametrize("cls", [NotANumber, NumpyScalar])
def test_rows_that_json_cannot_hold_are_caught(cls: type) -> None:
    with pytest.raises(UsageError, match="not plain JSON"):
        metric_checks.rows_are_json_safe(metric(cls))


def test_a_metric_that_fails_everywhere_is_skipped_with_its_reason() -> None:
    with pytest.raises(pytest.skip.Exception, match="fails on every synthetic output: needs what the method says"):
        metric_checks.rows_are_json_safe(metric(Fussy))


def test_a_metric_that_raises_on_blank_frames_is_caught() -> None:
    with pytest.raises(ZeroDivisionError):
        metric_checks.blank_frames_do_not_raise(metric(RaisesOnBlank))


class SetMean:
    columns = (Column("level", "levels", None, "Mean grey level over all outputs.", kind="set"),)

    def load(self, device: str) -> None:
        pass

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        total, count = state or (0.0, 0)
        return total + sum(float(item.output.frames[0].mean()) for item in items), count + len(items)

    def merge(self, states: Sequence[Any]) -> Any:
        return sum(state[0] for state in states), sum(state[1] for state in states)

    def compute(self, state: Any) -> Mapping[str, Any]:
        return {"level": state[0] / state[1]}


class MergesWrongly(SetMean):
    def merge(self, states: Sequence[Any]) -> Any:
        return states[0][0] * 2, states[0][1]


def test_a_set_metric_must_merge_exactly() -> None:
    assert broken_checks(metric(SetMean, "set"), metric_checks.CHECKS) == set()
    assert broken_checks(metric(MergesWrongly, "set"), metric_checks.CHECKS) == {"shards_merge_exactly"}


class Means:
    identity: ClassVar[Mapping[str, Any]] = {"version": "1"}

    def load(self, device: str) -> None:
        pass

    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any] | Failed]:
        return [{"mean": clip.frames.mean((1, 2))} if clip.frames.any() else Failed("blank") for clip in clips]


class Sequential(Means):
    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any] | Failed]:
        return [{"mean": np.array([float(index)])} for index, _ in enumerate(clips)]


class Anonymous(Means):
    identity: ClassVar[Mapping[str, Any]] = {}


@pytest.mark.parametrize(
    ("cls", "expected"), [(Means, set()), (Sequential, {"features_are_arrays"}), (Anonymous, {"identity_is_json_safe"})]
)
def test_each_extractor_fault_is_caught(cls: type, expected: set[str]) -> None:
    from bcd_bench import ExtractorSpec

    spec = ExtractorSpec("means", "1", "Means.", f"{__name__}:{cls.__name__}")
    assert broken_checks(subject_of(spec, "extractors"), extractor_checks.CHECKS) == expected


def test_spec_faults_are_caught() -> None:
    bad = subject_of(MethodSpec("mine", "", "two\nlines", f"{__name__}:practice_pairs", config={"a": 1}), "methods")
    assert broken_checks(bad, plugin_checks.SPEC_CHECKS) == {"spec_is_described"}
    unsafe = subject_of(MethodSpec("mine", "1", "Mine.", f"{__name__}:Good", config={"a": float("nan")}), "methods")
    with pytest.raises(UsageError, match="not plain JSON"):
        plugin_checks.spec_is_json_safe(unsafe)
    presets = subject_of(TrainableSpec("net", "1", "Net.", f"{__name__}:Good", {"a": "A."}, "b"), "trainables")
    assert broken_checks(presets, plugin_checks.SPEC_CHECKS) == {"default_preset_exists"}


def test_unknown_plugins_and_names_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"no plugin 'cor' is installed; did you mean core\b"):
        checks_for("cor")
    with pytest.raises(UsageError, match="plugin core provides no absent"):
        checks_for("core", only=["oracle", "absent"])
    names = {check.subject for check in checks_for("core", only=["oracle"])}
    assert names == {"core", "oracle"}


def test_a_missing_target_is_no_fault_of_the_oracle() -> None:
    spec = MethodSpec("oracle", "1", "Oracle.", "bcd_bench.plugin.reference_methods:Oracle", reference=True)
    subject = subject_of(spec, "methods")
    without = [replace(pair, target=None) for pair in subject.pairs()]

    class NoTargets(Subject):
        def pairs(self) -> list[Pair]:
            return without

    lonely = NoTargets(subject.registry, subject.plugin, "methods", spec)
    assert broken_checks(lonely, method_checks.CHECKS) == set()


def test_practice_pairs_describe_themselves_as_json() -> None:
    from bcd_bench.assets.hashing import canonical_json

    ref = practice_pairs(1)[0].content
    assert isinstance(ref, ClipRef)
    assert isinstance(ref.source, Generated)
    assert canonical_json(practice_pairs(2)[1].describe())
