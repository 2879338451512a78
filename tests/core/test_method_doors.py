"""What a method may ask for beside its pairs: features of its inputs, a word on its identity, a close at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scoring_toy as toy

from bcd_bench import AssetSpec, Clip, Failed, MethodSpec, Pair, hookimpl
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.build import write_record
from bcd_bench.results.rows import row_from_record
from bcd_bench.results.table import build_tables
from bcd_bench.run.executor import Batch, Work, load_method, run_batch
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import make_plan, read_plan
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.scoring.score import score_run
from bcd_bench.testing import method_checks
from bcd_bench.testing.kit import Subject
from bcd_bench.types.errors import MissingAssetError, UsageError


class Shaded:
    """Draws the mean brightness of the content clip, as the extractor gives it."""

    events: ClassVar[list[str]] = []

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def load(self, weights: Path | None, device: str) -> None:
        self.events.append(f"load {weights} {device}")

    def transfer(
        self, pairs: Sequence[Pair], *, seed: int, features: Sequence[Mapping[str, Mapping[str, Any]]]
    ) -> Iterator[Clip | Failed]:
        assert len(features) == len(pairs)
        for pair, item in zip(pairs, features, strict=True):
            content = item["brightness"]["content"]
            if self.config.get("stop_at") == pair.id:
                raise KeyboardInterrupt
            if isinstance(content, Failed):
                yield content
            else:
                frames = np.full((2, *toy.SIZE, 3), np.uint8(content["mean"]), np.uint8)
                yield Clip(frames, 10.0, pair.id)

    def close(self) -> None:
        self.events.append("close")


class Greedy(Shaded):
    def transfer(self, pairs: Any, *, seed: int, features: Any) -> Iterator[Clip | Failed]:
        for item in features:
            yield item["brightness"]["target"]


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> Any:
    if config["file"] == "list":
        return [1]
    if not config["file"]:
        raise UsageError("method 'filed' needs --set file=PATH", hint="--set file=PATH")
    return {"file": sha256_file(config["file"]), "first": pairs[0].id, "name": "mine"}


class Plugin:
    @hookimpl
    def bcd_bench_methods(self) -> list[MethodSpec]:
        here, shaded = "test_method_doors", {"extractors": ("brightness",), "batch_size": 5}
        return [
            MethodSpec("shaded", "1", "s", f"{here}:Shaded", config={"stop_at": ""}, **shaded),
            MethodSpec("greedy", "1", "s", f"{here}:Greedy", **shaded),
            MethodSpec(
                "filed", "1", "s", "scoring_toy:Off", config={"file": "", "off": 0}, identify=f"{here}:identify"
            ),
        ]

    @hookimpl
    def bcd_bench_assets(self) -> list[AssetSpec]:
        return [AssetSpec("lens", "lens.bin", "0" * 64, 5, "MIT", "ask", restricted="for eyes only")]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BCD_BENCH_ASSETS", raising=False)
    toy.calls.clear()
    Shaded.events.clear()
    return Registry.from_modules([toy, Plugin()])


def test_a_method_gets_the_features_it_asks_for(registry: Registry, tmp_path: Path) -> None:
    pairs = toy.suite({})
    run, done = generate(registry, make_plan(registry, "shaded", pairs), pairs, tmp_path / "runs")
    results = run.pairs()
    assert {pair: result.error for pair, result in results.items() if result.status == "failed"} == {
        "p00": "too dark",
        "p01": "too dark",
    }
    assert int(run.read_output(results["p07"]).frames.mean()) == 70
    assert (done.n_failed, Shaded.events) == (2, ["load None cpu", "close"])
    assert toy.calls["brightness.extract"] == 3  # one call a batch
    results = score_run(registry, run, ["featured"], suite=pairs)
    assert toy.calls["brightness.extract"] == 3  # outputs are the content's shades: metrics read the same cache
    assert results["featured"].values["brighter"].value == 0.0


def test_a_method_does_not_get_the_target(registry: Registry, tmp_path: Path) -> None:
    pairs = toy.suite({})
    run, _ = generate(registry, make_plan(registry, "greedy", pairs, limit=2), pairs, tmp_path / "runs")
    assert all("'target' was not requested" in str(result.error) for result in run.pairs().values())


def test_close_is_called_after_an_interrupt(registry: Registry) -> None:
    spec, pairs = registry.methods["shaded"], toy.suite({}).pairs
    needed = tuple(needed_extractors(registry, spec.extractors))
    work = Work("shaded", spec.factory, {"stop_at": "p07"}, None, "cpu", 0, toy.SIZE, needed)
    from bcd_bench.run.local import run_local

    outcomes = run_local(work, iter([Batch(0, pairs[:5]), Batch(1, pairs[5:10])]), jobs=1)
    assert len(next(outcomes).results) == 5
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert Shaded.events[-1] == "close"
    alone = run_batch(load_method(work), Batch(0, pairs[3:4]), seed=0, size=toy.SIZE)
    assert isinstance(alone.results[0], Clip), "a pair alone gets its own features"


def test_extractors_are_part_of_the_identity_and_their_assets_are_wanted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = toy.suite({})
    plain, made = make_plan(registry, "off", pairs), make_plan(registry, "shaded", pairs)
    assert "extractors" not in plain.identity
    assert set(made.identity["extractors"]) == {"brightness"}
    monkeypatch.setattr(toy.Brightness, "__init__", lambda self: setattr(self, "identity", {"weights": "other"}))
    assert make_plan(registry, "shaded", pairs).run_id != made.run_id
    import dataclasses

    registry.extractors["brightness"] = dataclasses.replace(registry.extractors["brightness"], assets=("lens",))
    with pytest.raises(MissingAssetError, match="asset 'lens'"):
        make_plan(registry, "shaded", pairs)


def test_the_record_names_what_took_part(registry: Registry, tmp_path: Path) -> None:
    pairs = toy.suite({})
    run, _ = generate(registry, make_plan(registry, "shaded", pairs), pairs, tmp_path / "runs")
    import dataclasses

    registry.extractors["brightness"] = dataclasses.replace(registry.extractors["brightness"], assets=("lens",))
    record = write_record(registry, run, score_run(registry, run, ["shade"], suite=pairs))
    assert record.provenance.restrictions == ["lens: for eyes only"]
    del registry.extractors["brightness"]  # its plugin is gone; the run can still be scored
    assert write_record(registry, run, {}).provenance.restrictions == []


def test_a_method_may_say_what_stands_for_its_configuration(registry: Registry, tmp_path: Path) -> None:
    pairs, file, elsewhere = toy.suite({}), tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"1")
    elsewhere.write_bytes(b"1")
    made = make_plan(registry, "filed", pairs, config={"file": str(file)})
    assert made.identity["method"]["config"] == {"file": sha256_file(file), "first": "p00", "name": "mine"}
    assert made.method.config == {"file": str(file), "off": 0}
    assert make_plan(registry, "filed", pairs, config={"file": str(elsewhere)}).run_id == made.run_id
    run, _ = generate(registry, made, pairs, tmp_path / "runs")
    record = write_record(registry, run, score_run(registry, run, ["shade"], suite=pairs))
    assert record.method.config == made.identity["method"]["config"]
    assert str(tmp_path) not in (run.path / "record.json").read_text()
    assert read_plan(run.path / "plan.json").method.config["file"] == str(file)
    [table] = build_tables([row_from_record(record, run.path)])
    assert [line.label for line in table.lines] == ["filed: mine"]
    file.write_bytes(b"2")
    assert make_plan(registry, "filed", pairs, config={"file": str(file)}).run_id != made.run_id
    with pytest.raises(UsageError, match=r"method 'filed' needs --set file=PATH"):
        make_plan(registry, "filed", pairs)
    with pytest.raises(UsageError, match=r"method 'filed' is broken: test_method_doors:identify returned a list"):
        make_plan(registry, "filed", pairs, config={"file": "list"})


def test_the_kit_tries_a_method_with_features_and_settings(registry: Registry) -> None:
    subject = Subject(
        registry, registry.plugins[-1], "methods", registry.methods["shaded"], "toy", config={"shaded": {"stop_at": ""}}
    )
    method_checks.order_does_not_matter(subject)
    method_checks.batch_mates_do_not_matter(subject)
    stopped = Subject(
        registry,
        registry.plugins[-1],
        "methods",
        registry.methods["shaded"],
        "toy",
        config={"shaded": {"stop_at": "p04"}},
    )
    with pytest.raises(KeyboardInterrupt):
        method_checks.same_seed_gives_same_bytes(stopped)
