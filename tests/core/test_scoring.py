"""Scoring streams, resumes, caches, and keeps the failures of one metric from the others."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoring_toy as toy
from scoring_toy import make_run

from bcd_bench import AssetSpec, Scored
from bcd_bench.cli.tables import exit_code
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.build import write_record
from bcd_bench.results.layout import Layout
from bcd_bench.results.rows import collect_rows
from bcd_bench.results.table import Cell, build_tables
from bcd_bench.run.folder import RunFolder
from bcd_bench.scoring import score as scoring
from bcd_bench.scoring.score import score_run
from bcd_bench.statistics.aggregate import aggregate_rows
from bcd_bench.types.errors import Interrupted, MissingDependencyError, UsageError
from bcd_bench.util.progress import PlainProgress


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    toy.calls.clear()
    yield
    toy.Stopping.signal_to_send = None


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy])


@pytest.fixture
def run(registry: Registry, tmp_path: Path) -> RunFolder:
    run = make_run(registry, tmp_path / "runs")
    toy.calls.clear()
    return run


def test_values_are_averaged_over_scored_pairs_only(registry: Registry, run: RunFolder) -> None:
    result = score_run(registry, run, ["shade"])["shade"]
    distance, close = result.values["distance"], result.values["close"]
    assert (distance.n, distance.n_failed) == (11, 1)
    assert distance.value == pytest.approx((8 * 7 + 3 * 107) / 11)
    assert close.value == pytest.approx(100 * 8 / 11)
    assert close.wilson is not None
    assert close.wilson[0] < close.value < close.wilson[1]
    assert close.ci_method == "clustered bootstrap"
    assert distance.coverage == pytest.approx(11 / 12)
    assert not distance.covered
    assert result.pair_values is not None
    assert result.pair_values.columns["close"] == [0, 1, 1, None, 0, 1, 1, 1, 0, 1, 1, 1]
    assert result.pair_values.cluster_by_pair()["p05"] == "s2"


def test_a_value_over_some_of_the_frames_is_covered_by_as_much(registry: Registry, run: RunFolder) -> None:
    result = score_run(registry, run, ["halves", "set-of-halves", "shade"])
    for column in ("seen_shade", "seen_entropy"):
        value = result["halves"].values[column]
        assert (value.n, value.n_failed) == (11, 1)
        assert value.frame_coverage == pytest.approx(0.5 * 10 / 11)  # p05 does not say: none of its frames count
        assert value.coverage == pytest.approx(0.5 * 10 / 12)  # a pair that failed has no frames
        assert not value.covered
    assert result["halves"].values["seen_frames"].frame_coverage is None
    assert result["set-of-halves"].values["seen_spread"].frame_coverage == 0.5
    assert result["shade"].values["distance"].frame_coverage is None


@pytest.mark.parametrize(("share", "covered"), [(95.0, True), (94.9, False), (0.0, False)])
def test_the_threshold_holds_for_frames_as_for_pairs(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, covered: bool
) -> None:
    rows = [{"seen_shade": 7.0, "seen_frames": share}] * 12
    pairs = [(f"p{i}", f"c{i}") for i in range(12)]
    values, _ = aggregate_rows(
        "halves", toy.Halves(), toy.Halves.columns[:2], pairs, dict(zip(dict(pairs), rows, strict=True))
    )
    assert values["seen_shade"].coverage == pytest.approx(share / 100)
    assert values["seen_shade"].covered is covered


def test_frames_that_name_no_column_stop_the_metric(registry: Registry, run: RunFolder) -> None:
    error = score_run(registry, run, ["names-no-frames"])["names-no-frames"].info.error
    assert error == "ValueError: columns ['distance']: their `frames` must name another column of the metric"


def test_derived_columns_see_all_rows(registry: Registry, tmp_path: Path) -> None:
    result = score_run(registry, make_run(registry, tmp_path, "exact"), ["shade"])["shade"]
    spread = result.values["spread_of_shades"]
    assert spread.value == pytest.approx(np.log(12))
    assert spread.ci_low is not None
    assert spread.ci_high is not None
    assert spread.ci_low < spread.value <= spread.ci_high + 1e-12
    assert result.values["close"].ci_method == "wilson"
    assert result.values["close"].ci_high == 100.0


def test_scoring_again_touches_no_plugin_code(registry: Registry, run: RunFolder) -> None:
    first = score_run(registry, run, ["shade", "spread"])
    toy.calls.clear()
    assert score_run(registry, run, ["shade", "spread"]) == first
    assert toy.calls == {}


def test_a_new_metric_leaves_generation_and_other_metrics_alone(registry: Registry, run: RunFolder) -> None:
    score_run(registry, run, ["shade"])
    toy.calls.clear()
    score_run(registry, run, ["shade", "spread"])
    assert "transfer" not in toy.calls
    assert "shade.score" not in toy.calls
    assert toy.calls["spread.load"] == 1


def test_a_new_version_of_a_metric_scores_anew(registry: Registry, run: RunFolder) -> None:
    score_run(registry, run, ["shade"])
    registry.metrics["shade"] = dataclasses.replace(registry.metrics["shade"], version="2")
    toy.calls.clear()
    assert score_run(registry, run, ["shade"])["shade"].info.version == "2"
    assert toy.calls["shade.score"] == 1
    assert len((run.scores_dir / "shade.jsonl").read_text().splitlines()) == 12


def test_a_changed_output_is_scored_again_and_the_rest_is_not(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PIXELS_PER_BATCH", 4 * 64)
    score_run(registry, run, ["shade"])
    monkeypatch.setattr(toy.Off, "transfer", lambda self, pairs, *, seed: [toy.draw(1, 2) for _ in pairs])
    make_run(registry, run.path.parents[2], retry_failed=True)
    toy.calls.clear()
    result = score_run(registry, run, ["shade"])["shade"]
    assert toy.calls["shade.score"] == 1
    assert result.values["distance"].n == 12
    assert result.pair_values is not None
    assert result.pair_values.columns["distance"][3] == 29


def test_one_bad_output_costs_itself_alone(registry: Registry, run: RunFolder) -> None:
    result = score_run(registry, run, ["picky"])["picky"]
    value = result.values["mean_shade"]
    assert (value.n, value.n_failed) == (9, 3)
    assert result.info.failures == {"RuntimeError: p05 is too much": 1}
    assert result.info.error is None
    lines = (run.scores_dir / "picky.jsonl").read_text()
    assert "p05" not in lines
    assert "NaN" not in lines


def test_failing_metrics_are_recorded_and_take_nothing_down(
    registry: Registry, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    results = score_run(registry, run, ["broken", "confused", "bad-derive", "shade"], progress=PlainProgress())
    assert results["broken"].info.error == "ImportError: no such library"
    assert results["broken"].values == {}
    assert "are invalid for a metric of level" in (results["confused"].info.error or "")
    assert results["bad-derive"].info.error == "ZeroDivisionError: nothing to divide"
    assert list(results["bad-derive"].values) == ["distance", "close"]
    assert results["shade"].info.error is None
    assert results["shade"].values["distance"] == results["bad-derive"].values["distance"].model_copy(
        update={"metric": "shade"}
    )
    assert "metric broken failed: ImportError: no such library" in capsys.readouterr().err
    assert not (run.scores_dir / "broken.result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_scoring_continues(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(scoring, "PIXELS_PER_BATCH", 2 * 64)
    monkeypatch.setattr(toy.Stopping, "signal_to_send", number)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="interrupted while scoring"):
        score_run(registry, run, ["stopping"])
    assert signal.getsignal(number) == before
    with (run.scores_dir / "stopping.jsonl").open("a") as stream:
        stream.write('{"pair": "p04", "outp')
    monkeypatch.setattr(toy.Stopping, "signal_to_send", None)
    toy.calls.clear()
    resumed = score_run(registry, run, ["stopping"])["stopping"]
    assert toy.calls["shade.score"] == 4
    whole = score_run(registry, run, ["shade"])["shade"]
    assert resumed.pair_values == whole.pair_values
    assert len(_pairs_of(run, "stopping")) == 11


def test_a_metric_that_swallows_the_interrupt_is_stopped_at_the_next_block(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(self: toy.Shade, items: Sequence[Scored]) -> list[Any]:
        seen.append(len(items))
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        return [{"distance": 1.0, "close": 1.0} for _ in items]

    seen: list[int] = []
    monkeypatch.setattr(scoring, "PIXELS_PER_BATCH", 2 * 64)
    monkeypatch.setattr(toy.Shade, "score", score)
    with pytest.raises(Interrupted, match="interrupted while scoring"):
        score_run(registry, run, ["shade"])
    assert len(seen) == 1
    assert len(_pairs_of(run, "shade")) == seen[0]


def _pairs_of(run: RunFolder, metric: str) -> set[str]:
    from bcd_bench.io.atomic import read_jsonl

    return {line["pair"] for line in read_jsonl(run.scores_dir / f"{metric}.jsonl") if "pair" in line}


def test_set_states_merge_exactly_and_give_a_jackknife_interval(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score_run(registry, run, ["plain-spread"])["plain-spread"].values["spread"]
    monkeypatch.setattr(scoring, "PIXELS_PER_BATCH", 64)
    merged = score_run(registry, run, ["spread"])["spread"].values["spread"]
    pixels = np.concatenate(
        [run.read_output(result).frames.ravel() for result in run.pairs().values() if result.status == "ok"]
    )
    assert whole.value == merged.value == pytest.approx(pixels.astype(float).std())
    assert (whole.ci_low, whole.ci_method) == (None, None)
    assert merged.ci_method == "delete-group jackknife"
    assert merged.ci_low is not None
    assert merged.ci_high is not None
    assert merged.ci_low < merged.value < merged.ci_high
    assert (merged.n, merged.n_failed) == (11, 1)
    assert (run.scores_dir / "spread.state.npz").is_file()


def test_what_a_set_metric_refuses_is_a_failure_with_its_reason(registry: Registry, run: RunFolder) -> None:
    result = score_run(registry, run, ["choosy-spread"])["choosy-spread"]
    pixels = np.concatenate(
        [run.read_output(one).frames.ravel() for one in run.pairs().values() if one.status == "ok" and one.id != "p05"]
    )
    assert result.values["spread"].value == pytest.approx(pixels.astype(float).std())
    assert (result.values["spread"].n, result.values["spread"].n_failed) == (10, 2)
    assert result.info.failures == {"no features": 1}
    assert result.info.error is None


def test_a_damaged_output_is_missing_coverage_until_it_is_mended(registry: Registry, run: RunFolder) -> None:
    path = run.output_path("p01")
    good = path.read_bytes()
    path.write_bytes(run.output_path("p02").read_bytes())
    result = score_run(registry, run, ["shade"])["shade"]
    assert result.values["distance"].n == 10
    assert result.info.failures["output cannot be read: its file has changed since it was written"] == 1
    path.write_bytes(b"no video")
    assert str(run.path) not in str(score_run(registry, run, ["shade"])["shade"].info.failures)
    path.write_bytes(good)
    toy.calls.clear()
    assert score_run(registry, run, ["shade"])["shade"].values["distance"].n == 11


def test_features_reach_metrics_and_failed_ones_are_coverage(registry: Registry, run: RunFolder) -> None:
    result = score_run(registry, run, ["featured"])["featured"]
    value = result.values["brighter"]
    # The contents of p00 and p01 are too dark: p00 is 107 in the output, so the metric itself stumbles over it.
    assert (value.n, value.n_failed) == (9, 3)
    assert value.value == pytest.approx((7 * 7 + 2 * 107) / 9)
    assert toy.calls["brightness.extract"] == 2


def test_memory_holds_a_few_batches_not_the_suite(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PIXELS_PER_BATCH", 64)
    result = score_run(registry, run, ["census"])["census"]
    assert result.pair_values is not None
    counts = [count for count in result.pair_values.columns["alive"] if count is not None]
    assert len(counts) == 11
    assert max(counts) <= min(counts) + 3


def test_wrong_names_and_unfinished_runs_are_refused(registry: Registry, run: RunFolder) -> None:
    with pytest.raises(UsageError, match="did you mean shade"):
        score_run(registry, run, ["shad"])
    with pytest.raises(UsageError, match="only for sprites"):
        score_run(registry, run, ["elsewhere"])
    lines = run.pairs_path.read_text().splitlines()
    run.pairs_path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UsageError, match=r"not finished \(11 of 12 pairs\)"):
        score_run(registry, run, ["shade"])


def test_a_full_disk_is_one_clear_line_and_loses_nothing(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for metric, module in (("shade", "scoring.cache.write_text_atomic"), ("spread", "scoring.metric_runner.save_tree")):
        with monkeypatch.context() as patched:
            patched.setattr(f"bcd_bench.{module}", full)
            with pytest.raises(UsageError, match=r"cannot write to .*: No space left on device"):
                score_run(registry, run, [metric])
    assert list(run.scores_dir.iterdir()) == []
    assert score_run(registry, run, ["shade", "spread"])["spread"].values["spread"].n == 11


def test_a_state_that_cannot_be_stored_is_the_metrics_error(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = toy.PlainSpread.update
    monkeypatch.setattr(toy.PlainSpread, "update", lambda self, state, items: update(self, state, items) | {"x": {1}})
    result = score_run(registry, run, ["plain-spread"])["plain-spread"]
    assert result.info.error == "its state cannot be stored: set cannot be stored"
    assert result.values == {}


def test_a_result_of_another_version_is_made_again(registry: Registry, run: RunFolder) -> None:
    first = score_run(registry, run, ["shade"])
    path = run.scores_dir / "shade.result.json"
    body = json.loads(path.read_text())
    body["result"]["values"]["distance"]["surprise"] = 1
    path.write_text(json.dumps(body))
    toy.calls.clear()
    assert score_run(registry, run, ["shade"]) == first
    assert "shade.score" not in toy.calls


def test_rows_must_be_json_and_complete(registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.Shade, "score", lambda self, items: [{"distance": object(), "close": 1} for _ in items])
    result = score_run(registry, run, ["shade"])["shade"]
    assert result.values == {}
    assert result.info.failures == {"TypeError: object is not JSON-safe": 11}
    assert result.info.error == "no output could be scored (11x TypeError: object is not JSON-safe)"
    monkeypatch.setattr(toy.Shade, "score", lambda self, items: [{"distance": "\udc80", "close": 1} for _ in items])
    result = score_run(registry, run, ["shade"])["shade"]
    assert "surrogates not allowed" in (result.info.error or "")
    monkeypatch.setattr(toy.Shade, "score", lambda self, items: [])
    result = score_run(registry, run, ["shade"])["shade"]
    assert result.info.failures == {"ValueError: score returned 0 rows for 1 outputs": 11}
    monkeypatch.setattr(toy.Shade, "score", lambda self, items: [{"distance": 1, "close": 2.0} for _ in items])
    values = score_run(registry, run, ["shade"])["shade"].values
    assert (values["distance"].n, values["close"].n) == (11, 0)


@pytest.mark.parametrize("number", [10**400, 1.7e308])
def test_numbers_beyond_every_float_take_nothing_down(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    monkeypatch.setattr(toy.Shade, "score", lambda self, items: [{"distance": number, "close": 1} for _ in items])
    values = score_run(registry, run, ["shade"])["shade"].values
    assert (values["distance"].value, values["distance"].ci_low) == (None, None)
    assert values["close"].value == 100


def test_a_metric_that_exits_takes_nothing_down(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Shade, "score", lambda self, items: sys.exit(3))
    assert score_run(registry, run, ["shade"])["shade"].info.error == "no output could be scored (11x SystemExit: 3)"


def test_a_column_may_not_apply_to_a_pair(registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(self: toy.Shade, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        hits = {"p01": None, "p02": np.nan, "p04": 0}
        return [{"distance": np.float32(1), "close": hits.get(item.pair.id, 1), "shade": 0} for item in items]

    monkeypatch.setattr(toy.Shade, "score", score)
    result = score_run(registry, run, ["shade"])["shade"]
    assert (result.values["distance"].n, result.values["distance"].n_failed) == (11, 1)
    close = result.values["close"]
    assert (close.n, close.n_failed, close.value) == (9, 2, pytest.approx(100 * 8 / 9))
    assert result.pair_values is not None
    assert result.pair_values.columns["close"][:5] == [1, None, None, None, 0]


@pytest.fixture
def lens(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file belongs that the metric `shade` now needs: any file, of the user's choice."""
    folder = tmp_path / "assets"
    folder.mkdir()
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(folder))
    monkeypatch.delenv("TOY_LENS", raising=False)
    spec = AssetSpec("lens", "lens.bin", "", 0, "MIT", "grind it", also=("old.bin",), variable="TOY_LENS")
    registry.add("assets", spec, registry.owner("metrics", "shade"))
    registry.metrics["shade"] = dataclasses.replace(registry.metrics["shade"], assets=("lens",))
    return folder / "lens.bin"


def test_a_metric_without_its_asset_is_marked_and_filled_in_later(
    registry: Registry, run: RunFolder, lens: Path
) -> None:
    results = score_run(registry, run, ["shade", "spread"])
    record = write_record(registry, run, results)
    assert results["spread"].info.error is None
    info = record.metrics["shade"]
    assert (info.missing, info.failures, info.assets) == (True, {}, {})
    assert info.error == (
        "asset 'lens': not found (lens.bin or old.bin, any such file, licence MIT) "
        "(bcd-bench assets add lens PATH   (grind it))"
    )
    empty = record.values["distance"]
    assert (empty.value, empty.n, empty.n_failed) == (None, 0, 0)
    rows = collect_rows([run.path])
    [table] = build_tables(rows)
    assert "distance (levels) ↓" not in table.headers, "nobody has a value"
    [table] = build_tables(rows, layout=Layout(keep_unscored=True))
    cells = dict(zip(table.headers, table.lines[0].cells, strict=True))
    assert cells["distance (levels) ↓"] == Cell("not scored")
    assert any(note.startswith("Not scored, something is missing: shade: asset 'lens'") for note in table.notes)
    assert exit_code([run.path]) == 1  # pair p03 failed, and that is all
    assert exit_code([run.path], required=["spread"]) == 1
    assert exit_code([run.path], required=["shade"]) == 3
    assert exit_code([run.path], required=None) == 3

    lens.write_bytes(b"glass")
    record = write_record(registry, run, score_run(registry, run, ["shade", "spread"]))
    assert record.values["distance"].n == 11
    assert record.metrics["shade"].error is None
    sha256 = hashlib.sha256(b"glass").hexdigest()
    assert record.metrics["shade"].assets == {"lens": {"file": "lens.bin", "sha256": sha256}}
    [table] = build_tables(collect_rows([run.path]))
    assert f"Metric shade used lens.bin (sha256 {sha256[:12]}) as lens (on off)." in table.notes

    lens.unlink()
    again = write_record(registry, run, score_run(registry, run, ["shade", "spread"]))
    assert again.values == record.values
    assert again.metrics == record.metrics


def test_another_file_of_the_users_choice_scores_anew(
    registry: Registry, run: RunFolder, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens.write_bytes(b"glass")
    first = score_run(registry, run, ["shade"])["shade"].info
    toy.calls.clear()
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"quartz")
    monkeypatch.setenv("TOY_LENS", str(mine))
    second = score_run(registry, run, ["shade"])["shade"].info
    assert second.identity != first.identity
    assert second.assets["lens"]["file"] == "mine.bin"
    assert toy.calls["shade.score"] == 1
    monkeypatch.setenv("TOY_LENS", str(tmp_path / "gone.bin"))
    error = score_run(registry, run, ["shade"])["shade"].info.error or ""
    assert error.startswith("asset 'lens': TOY_LENS=gone.bin does not exist")  # no folder of this machine


def test_a_package_that_turns_out_to_be_missing_is_no_failure(
    registry: Registry, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: toy.Shade, device: str) -> None:
        raise MissingDependencyError("no torch", hint="pip install torch")

    monkeypatch.setattr(toy.Shade, "load", load)
    result = score_run(registry, run, ["shade"])["shade"]
    assert (result.info.missing, result.info.error) == (True, "no torch (pip install torch)")
    assert result.values["distance"].n_failed == 0
    monkeypatch.undo()
    assert score_run(registry, run, ["shade"])["shade"].values["distance"].n == 11
