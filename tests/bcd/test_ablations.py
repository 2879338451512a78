"""`bcd-bench ablate`: variants of every preset, decisions on claims, and whole ablations of a tiny model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from bcd_bench.cli.app import main
from bcd_bench.statistics.intervals import Interval, PairedDifference
from bcd_bench.types.errors import BcdBenchError, UsageError
from bcd_bench_bcd.ablations.base import Claim
from bcd_bench_bcd.ablations.definitions import ABLATIONS, ablation, capacity, without_extension
from bcd_bench_bcd.ablations.reported import REPORTED
from bcd_bench_bcd.ablations.runner import Request, study_of
from bcd_bench_bcd.ablations.trainings import LandmarkTraining, training_of
from bcd_bench_bcd.ablations.values import Column, Difference, VariantValues, compare
from bcd_bench_bcd.ablations.verdicts import decide, verdict_of
from bcd_bench_bcd.presets.registry import PRESETS, resolve_preset
from bcd_bench_bcd.training import trainer

TINY = (
    "train.batch=4", "train.steps=4", "train.log_every=2", "train.checkpoint_every=2", "train.grid_every=100",
    "train.warmup=2", "train.clips=16", "model.encoder.width=32", "model.encoder.layers=1", "model.encoder.heads=2",
    "model.encoder.feed_forward=64", "model.decoder.width=32", "model.decoder.heads=2", "model.decoder.depth=2",
    "model.decoder.patch=16", "model.decoder.temporal_blocks=[1]", "model.quantizer.dim=32",
    "extensions.patch_skipping=null",
)  # fmt: skip


def request(name: str, preset: str = "sprites-procedural-small", **fields: Any) -> Request:
    suite = training_of(preset).resolve(preset, {}).train.suite
    return Request(ablation(name), preset, suite, Path("unused"), **fields)


def overrides_of(name: str, preset: str) -> dict[str, dict[str, Any]]:
    return {variant.name: dict(variant.overrides) for variant in study_of(request(name, preset)).variants}


# ---- definitions ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_applies_to_every_preset(name: str, preset: str) -> None:
    study = study_of(request(name, preset))
    names = [variant.name for variant in study.variants]
    assert len(set(names)) == len(names) >= (1 if name in ("extensions", "recipes") else 2)
    for claim in study.claims:
        assert {claim.better, claim.worse} <= set(names)
        assert claim.better != claim.worse
    for variant in study.variants:
        changed = resolve_preset(preset, variant.overrides)
        assert changed.objective.target_bits <= capacity(changed)


def test_rates_range_from_too_low_to_too_high() -> None:
    sprites = overrides_of("bitrate", "sprites-procedural-small")
    assert [one["objective.target_bits"] for one in sprites.values()] == [1, 2, 3, 4, 5, 5.6, 7, 9]
    assert sprites["rate-7"]["model.quantizer.entries"] == 256
    assert "model.quantizer.entries" not in sprites["rate-5.6"]
    heads = overrides_of("bitrate", "heads-small")
    assert [one["objective.target_bits"] for one in heads.values()] == [16, 32, 64, 120]
    paper = overrides_of("bitrate", "lrs3")
    assert [one["objective.target_bits"] for one in paper.values()] == [80, 160, 240, 320]


def test_rates_of_landmark_codes_are_numbers_of_groups() -> None:
    heads = overrides_of("bitrate", "heads-landmarks")
    assert {name: one["landmarks.groups"] for name, one in heads.items()} == {
        "rate-16": 2, "rate-32": 4, "rate-64": 8, "rate-96": 12,
    }  # fmt: skip
    assert {one["pixel_path"] for one in heads.values()} == {"heads-landmarks"}
    study = study_of(request("bitrate", "heads-landmarks"))
    assert {(claim.better, claim.worse) for claim in study.claims} == {("rate-64", "rate-16"), ("rate-64", "rate-96")}
    fewer = study_of(request("bitrate", "heads-landmarks", overrides={"landmarks.entries": 16}))
    assert [variant.x for variant in fewer.variants] == [8, 16, 32, 48]
    with pytest.raises(UsageError, match=r"landmarks\.groups: ablation 'bitrate' varies this setting itself"):
        study_of(request("bitrate", "heads-landmarks", overrides={"landmarks.groups": 3}))


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_of_landmark_codes(name: str) -> None:
    applies = ("bitrate", "single-frame", "content-frames")
    if name in applies:
        assert len(study_of(request(name, "heads-landmarks")).variants) >= 2
    else:
        with pytest.raises(UsageError, match="does not apply to presets of bcd-bench train bcd-landmarks"):
            study_of(request(name, "heads-landmarks"))


def test_landmark_trainings_differ_by_their_settings(tmp_path: Path) -> None:
    training = training_of("heads-landmarks")
    assert isinstance(training, LandmarkTraining)
    preset = training.resolve("heads-landmarks", {"landmarks.groups": 2})
    assert training.settings(preset)["landmarks"]["groups"] == 2
    assert training.data(preset) == ()
    assert training.work(preset) == training.work(
        training.resolve("heads-landmarks", {"landmarks.groups": 2, "train.seed": 4})
    )
    assert not training.is_finished(tmp_path, preset)
    (tmp_path / "checkpoint.pt").touch()
    assert training.has_begun(tmp_path, preset)
    assert not training.is_finished(tmp_path, preset)
    (tmp_path / "model.safetensors").touch()
    assert training.is_finished(tmp_path, preset)


@pytest.mark.parametrize("preset", ["sprites-procedural-small", "heads-small", "sprites"])
def test_without_cross_driving_content_and_motion_come_from_the_same_half(preset: str) -> None:
    variants = overrides_of("cross-driven", preset)
    driven, same = (resolve_preset(preset, variants[name]) for name in ("cross-driven", "same-half"))
    assert (driven.train.direction, same.train.direction) == ("forward", "same")
    assert driven.extensions.names == same.extensions.names
    assert not {"symmetric_halves", "swap_cycle", "content_bottleneck"} & set(same.extensions.names)


def test_an_extension_that_others_require_takes_them_along() -> None:
    kept, dropped = without_extension(resolve_preset("sprites-small"), "content_bottleneck")
    assert dropped == ("content_bottleneck", "swap_cycle")
    assert "swap_cycle" not in kept.extensions.names
    _, alone = without_extension(resolve_preset("sprites-small"), "muon")
    assert alone == ("muon",)
    study = study_of(request("extensions"))
    notes = {variant.name: variant.note for variant in study.variants}
    assert notes["without-content_bottleneck"] == "also without swap_cycle, which requires it"
    assert len(study.variants) == 1 + len(resolve_preset("sprites-small").extensions.names)


def test_recipes_separate_the_paper_from_extensions_and_labels() -> None:
    heads = overrides_of("recipes", "heads-tiny")
    assert list(heads) == ["paper", "self-supervised", "with-labels"]
    recipes = {name: resolve_preset("heads-tiny", changes).extensions for name, changes in heads.items()}
    assert recipes["paper"].names == ()
    assert {one.name for one in recipes["with-labels"] if one.labels} == {"same_identity_pairs", "keypoint_supervision"}
    lost = set(recipes["with-labels"].names) - set(recipes["self-supervised"].names)
    assert lost == {"same_identity_pairs", "keypoint_supervision"}
    claims = [(claim.better, claim.worse) for claim in study_of(request("recipes", "heads-tiny")).claims]
    assert claims == [("self-supervised", "paper"), ("with-labels", "self-supervised")]
    assert list(overrides_of("recipes", "sprites-tiny")) == ["paper", "self-supervised"]
    assert list(overrides_of("recipes", "sprites-paper-small")) == ["paper"]


def test_content_frames_are_those_of_the_paper_or_fit_in_a_sprites_clip() -> None:
    def counts(preset: str) -> list[Any]:
        study = study_of(request("content-frames", preset))
        return [variant.settings.get("content_frames") for variant in study.variants]

    assert counts("heads-small") == [1, 5, 15, 20, None]
    assert counts("sprites-small") == [1, 2, 4, None]


def test_reported_rows_are_those_of_the_suite() -> None:
    paper_results = pytest.importorskip("bcd_bench_faces.suites.paper_results")
    rows = [*paper_results.REPORTED, *(row for (row,) in paper_results.REPORTED_BY_CONTENT.values())]
    suite = {tuple(row.metrics.values()) for row in rows}
    ours = {values for rows in REPORTED.values() for _, values in rows}
    # The table of content frames has the full model with three decimals, and Table 3 rounds its row of one frame.
    assert ours - suite == {(86.0, 0.692, 0.41, 3.13, 3.67), (87.9, 0.69, 0.47, 3.13, 3.81)}
    assert (120.1, 0.64, 0.58, 41.5, 40.4) in suite


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overrides": {"objective.target_bits": 3}}, "varies this setting itself"),
        ({"variants": ("rate-6",)}, "has no variant 'rate-6'"),
        ({"overrides": {"model.quantizer.entries": 16}}, "exceeds what 1 x 16 codebook entries can carry, 4 bits"),
        ({"overrides": {"extensions.content_bottleneck": None}}, "requires content_bottleneck"),
    ],
)
def test_what_does_not_fit_an_ablation_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        study_of(request("bitrate", **fields))
    assert "\n" not in str(error.value)


def test_an_unknown_ablation_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown ablation 'bitrat'; nearest: bitrate"):
        ablation("bitrat")


# ---- decisions -----------------------------------------------------------------------------------------------------
CLAIM = Claim("Less is worse.", "more", "less", ("score",), "2 and 1 (Table 9)")


def difference(low: float, high: float, *, higher: bool = True, seeds: tuple[float, ...] = (1.0,), clusters: int = 20):
    paired = PairedDifference((low + high) / 2, Interval(low, high, "clustered bootstrap"), 40, clusters)
    return Difference("score", 10.0, 9.0, paired, seeds, "%", higher, 1)


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        (difference(0.5, 1.5), "agrees"),
        (difference(-1.5, -0.5), "disagrees"),
        (difference(-0.5, 1.5), "undecided"),
        (difference(-1.5, -0.5, higher=False), "agrees"),
        (difference(0.5, 1.5, higher=False), "disagrees"),
        (difference(0.5, 1.5, clusters=5), "undecided"),
        (difference(0.5, 1.5, seeds=(2.0, -0.5)), "undecided"),
        (difference(0.5, 1.5, seeds=(2.0, 0.5)), "agrees"),
    ],
)
def test_the_interval_of_the_paired_difference_decides(found: Difference, decision: str) -> None:
    assert verdict_of(CLAIM, found).decision == decision


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [(-0.9, 0.9, "agrees"), (-0.9, 1.1, "undecided"), (1.1, 2.0, "disagrees"), (-2.0, -1.1, "disagrees")],
)
def test_nearly_equal_means_that_the_interval_lies_within_the_margin(low: float, high: float, decision: str) -> None:
    listed = Claim("Both are nearly equal.", "more", "less", ("score",), margin={"score": 1.0})
    relative = Claim("Both are nearly equal.", "more", "less", ("score",), margin={})  # 10 % of 10.0
    assert verdict_of(listed, difference(low, high)).decision == decision
    assert verdict_of(relative, difference(low, high)).decision == decision


def test_the_sentence_has_our_interval_and_the_reported_numbers() -> None:
    assert verdict_of(CLAIM, difference(0.5, 1.5, seeds=(0.75, 1.25))).sentence == (
        "Agrees: Less is worse. Ours: score 10.0 % for more and 9.0 % for less, difference +1.0, 95 % interval +0.5 to "
        "+1.5 (40 pairs of 20 subjects; by seed +0.8, +1.2). Reported by the paper: 2 and 1 (Table 9)."
    )
    equal = verdict_of(Claim("Equal.", "a", "b", ("score",), margin={"score": 1.0}), difference(0.0, 0.0))
    assert equal.decision == "agrees"
    assert "0.0 to 0.0, without width because the difference is the same on every pair (40" in equal.sentence
    assert "Not a claim of the paper" in verdict_of(Claim("A.", "a", "b", ("score",)), difference(1, 2)).sentence


def variant(name: str, *seeds: dict[str, float], column: str = "score") -> VariantValues:
    values = VariantValues(name)
    values.columns[column] = Column(0.0, None, None, 8, 8, (0.0,), "", True, 2, True, "")
    for seed, pairs in enumerate(seeds):
        values.pairs_by_seed.append({column: pairs})
        values.records[seed] = None  # type: ignore[assignment]
        values.clusters |= {pair: pair for pair in pairs}
    return values


def test_pairs_are_averaged_over_the_seeds_that_both_have() -> None:
    a = variant("a", {f"p{i}": float(i) for i in range(8)}, {f"p{i}": i + 2.0 for i in range(8)})
    b = variant("b", {f"p{i}": 0.0 for i in range(7)}, {f"p{i}": 0.0 for i in range(8)})
    found = compare(a, b, ("missing", "score"))
    assert found is not None
    assert found.paired.n_pairs == 7  # one pair was scored only once
    assert found.paired.difference == pytest.approx(3 + 1)
    assert found.by_seed == (3.0, 5.0)
    one_seed = compare(a, variant("b", {f"p{i}": 0.0 for i in range(8)}), ("score",))
    assert one_seed is not None
    assert one_seed.by_seed == (3.5,)
    assert compare(a, b, ("missing",)) is None


def test_a_variant_without_results_leaves_the_claim_undecided() -> None:
    verdict = decide(CLAIM, {"more": variant("more", {"p": 1.0}), "less": VariantValues("less")})
    assert verdict.decision == "undecided"
    assert "variant less has no results" in verdict.sentence


# ---- whole ablations -----------------------------------------------------------------------------------------------
@pytest.fixture
def ablate(bcd_bench_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command on the tiny model; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        settings = [word for setting in TINY for word in ("--set", setting)]
        with pytest.raises(SystemExit) as stop:
            main(["ablate", *arguments, "--out", str(tmp_path / "out"), "--limit", "8", *settings])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


def files(folder: Path) -> dict[str, int]:
    """The trained weights, the outputs and the cached scores, with the time of their last change."""
    patterns = ("*/model.safetensors", "*/log.jsonl", "runs/*/*/*/outputs/*", "runs/*/*/*/scores/*")
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def test_an_ablation_trains_scores_and_decides_once(ablate: Any, tmp_path: Path) -> None:
    code, out, err = ablate("bitrate-loss")
    assert code == 0, err
    folder = tmp_path / "out"
    table = (folder / "table.md").read_text()
    assert "| with-bitrate-loss " in table
    assert "### Table A6 as reported by the paper" in table
    assert "Produced by: bcd-bench ablate bitrate-loss --preset sprites-procedural-small" in table
    assert str(tmp_path) not in table
    body = json.loads((folder / "table.json").read_text())
    assert [one["name"] for one in body["variants"]] == ["with-bitrate-loss", "without-bitrate-loss"]
    assert body["variants"][1]["overrides"] == {"objective.rate_weight": 0.0}
    assert body["variants"][0]["weights"]["0"]["step"] == 4
    assert len(body["verdicts"]) == 2
    assert body["verdicts"][0]["sentence"] in out
    assert body["verdicts"][0]["n_pairs"] == 8
    accuracies = [body["variants"][0]["columns"][name]["value"] for name in ("skin", "pants", "top", "hair")]
    assert body["variants"][0]["columns"]["content-accuracy"]["value"] == pytest.approx(sum(accuracies) / 4)
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert {row["reported"] for row in rows} == {"True", "False"}
    assert sum(row["column"] == "exact-psnr" for row in rows) == 2
    assert r"\item" in (folder / "table.tex").read_text()
    for name in ("picture.png", "picture.pdf", "samples.png"):
        assert (folder / name).stat().st_size > 1000
    state = json.loads((folder / "ablation.json").read_text())
    run = folder / state["variants"][0]["runs"]["0"]
    assert (run / "record.json").is_file()

    before = files(folder)
    assert len(before) >= 2 * (1 + 1 + 8 + 1)
    code, again, err = ablate("bitrate-loss")
    assert code == 0
    assert again == out
    assert files(folder) == before  # neither a training nor a run nor a score was repeated
    assert "train with" not in err
    assert (folder / "table.md").read_text() == table

    (folder / "without-bitrate-loss-seed0" / "config.json").write_text("{}")
    code, _, err = ablate("bitrate-loss")
    assert code == 2
    assert "is damaged" in err


def test_a_failed_variant_does_not_stop_the_others_and_is_retried(
    ablate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = trainer.train

    def failing(request: Any) -> None:
        if request.out.name.startswith("with-"):
            raise BcdBenchError("step 3: the codebook has collapsed")
        train(request)

    monkeypatch.setattr(trainer, "train", failing)
    code, out, err = ablate("bitrate-loss")
    assert code == 1
    assert "error: with-bitrate-loss, seed 0: step 3: the codebook has collapsed" in err
    assert "1 of 2 runs failed" in err
    table = (tmp_path / "out" / "table.md").read_text()
    assert "with-bitrate-loss (failed)" in table
    assert "with-bitrate-loss, seed 0: step 3: the codebook has collapsed." in table
    assert out.startswith("Undecided: ")
    monkeypatch.setattr(trainer, "train", train)
    code, out, err = ablate("bitrate-loss")
    assert code == 0, err
    assert "train with-bitrate-loss" in err
    assert "train without-bitrate-loss" not in err
    assert "failed" not in (tmp_path / "out" / "table.md").read_text()


def test_an_interrupted_ablation_is_continued_by_the_same_command(ablate: Any, tmp_path: Path) -> None:
    code, _, err = ablate("bitrate-loss", "--variant", "with-bitrate-loss", "--max-minutes", "1e-9")
    assert code == 4
    assert "1 of 1 trainings are unfinished" in err
    folder = tmp_path / "out"
    assert not (folder / "with-bitrate-loss-seed0" / "finished.json").exists()
    assert "unfinished" in (folder / "table.md").read_text()
    code, _, err = ablate("bitrate-loss", "--variant", "with-bitrate-loss", "--max-minutes", "60")
    assert code == 0, err
    weights = (folder / "with-bitrate-loss-seed0" / "model.safetensors").exists()
    assert weights


def test_a_sampler_ablation_trains_the_preset_once_if_it_has_no_weights(ablate: Any, tmp_path: Path) -> None:
    code, _, err = ablate("sampler", "--variant", "euler-1,euler-2")
    assert code == 0, err
    assert err.count("train euler") == 1
    body = json.loads((tmp_path / "out" / "table.json").read_text())
    hashes = {json.dumps(one["weights"]["0"]["sha256"]) for one in body["variants"]}
    assert len(hashes) == 1
    assert len({one["runs"]["0"] for one in body["variants"]}) == 2
    assert body["variants"][0]["columns"]["seconds"]["value"] > 0
    code, _, err = ablate("sampler", "--variant", "euler-1", "--set", "train.lr=0.5")
    assert code == 2
    assert "was trained with different settings: train.lr was 0.001, is 0.5" in err


def test_a_dry_run_lists_the_variants_and_writes_nothing(ablate: Any, tmp_path: Path) -> None:
    code, out, err = ablate("bitrate", "--dry-run", "--variant", "rate-2,rate-7")
    assert code == 0, err
    assert "rate-2, seed 0: " in out
    assert "objective.target_bits=2.0" in out
    assert "a codebook of 256 entries; 4 steps of " in out
    assert "training here: about " in out
    assert not (tmp_path / "out").exists()
