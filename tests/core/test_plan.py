"""Plans: what is fixed before a run, what changes its id, and folders of another version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import toy_plugin

from bcd_bench import AssetSpec, Clip, ClipRef, Pair, Suite, hookimpl
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.fingerprint import pair_seed, run_id
from bcd_bench.run.plan import RunPlan, make_plan, read_plan
from bcd_bench.types.clip import Generated
from bcd_bench.types.errors import MissingAssetError, UsageError


class Nowhere:
    @hookimpl
    def bcd_bench_assets(self) -> list[AssetSpec]:
        return [AssetSpec("nowhere", "nowhere.bin", "0" * 64, 5, "MIT", "ask")]


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy_plugin, Nowhere()])


def plan(registry: Registry, method: str = "noise", **more: object) -> RunPlan:
    return make_plan(registry, method, load_suite(registry, "toy"), **more)  # type: ignore[arg-type]


def test_a_plan_fixes_pairs_batches_and_seeds(registry: Registry) -> None:
    made = plan(registry, seed=5)
    assert [list(batch) for batch in made.batches()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [(pair.id, pair.seed) for pair in made.pairs][:2] == [
        ("p00", pair_seed(5, "p00")),
        ("p01", pair_seed(5, "p01")),
    ]
    assert made.run_id == run_id(made.identity)
    assert str(made.folder) == f"toy@1/noise/{made.run_id}"
    assert (made.partial, made.dtype, made.weights) == (False, "float32", None)
    assert made.method.plugin == "toy_plugin"


def test_a_plan_comes_back_from_its_file(registry: Registry, tmp_path: Path) -> None:
    made = plan(registry, "weighted", limit=3, config={"steps": 9}, data={})
    made.save(tmp_path / "plan.json")
    back = read_plan(tmp_path / "plan.json")
    assert back == made.model_copy(update={"weights_path": None})
    assert made.weights_path == Path(toy_plugin.__file__)
    assert made.weights is not None
    assert made.identity["weights"] == [made.weights.sha256]
    assert toy_plugin.__file__ not in (tmp_path / "plan.json").read_text()


def test_the_device_auto_is_decided_with_the_plan(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcd_bench.run.plan.device_name", {"cpu": "cpu", "auto": "cuda"}.__getitem__)
    automatic = plan(registry, device="auto")
    assert (automatic.device, automatic.run_id) == ("cuda", plan(registry).run_id)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="--device gpu: no such device"):
        plan(registry, device="gpu")


def test_what_changes_the_run_and_what_does_not(registry: Registry, tmp_path: Path) -> None:
    same = {plan(registry).run_id, plan(registry, device="cuda").run_id, plan(registry, limit=10).run_id}
    same |= {plan(registry, limit=99).run_id, plan(registry, config={"steps": 3}).run_id}
    assert len(same) == 1
    (tmp_path / "w").write_bytes(b"1")
    others = [
        plan(registry, limit=9),
        plan(registry, seed=1),
        plan(registry, config={"steps": 4}),
        plan(registry, weights=str(tmp_path / "w")),
        plan(registry, "fragile"),
    ]
    assert len({other.run_id for other in others} | same) == 6


def test_a_limit_makes_a_partial_plan_of_the_first_pairs(registry: Registry) -> None:
    made = plan(registry, limit=3)
    assert ([pair.id for pair in made.pairs], made.partial, made.suite.n_pairs) == (["p00", "p01", "p02"], True, 10)
    with pytest.raises(UsageError, match="--limit 0: must be at least 1"):
        plan(registry, limit=0)


def test_settings_are_checked_by_name(registry: Registry) -> None:
    assert plan(registry, config={"steps": 7}).method.config == {"steps": 7}
    with pytest.raises(UsageError, match=r"method 'noise' has no setting 'step'; did you mean steps\?"):
        plan(registry, config={"step": 7})
    with pytest.raises(UsageError, match="setting 'steps' of method 'noise' is not plain JSON"):
        plan(registry, config={"steps": float("nan")})


def test_a_method_without_batches_is_refused(registry: Registry) -> None:
    registry.methods["noise"] = dataclasses.replace(registry.methods["noise"], batch_size=0)
    with pytest.raises(UsageError, match="method 'noise' is broken: its batch_size is 0"):
        plan(registry)


def test_a_dtype_is_for_methods_that_have_one(registry: Registry) -> None:
    made = plan(registry, "half", dtype="bfloat16")
    assert (made.dtype, made.identity["dtype"], made.method.config) == ("bfloat16", "bfloat16", {"dtype": "bfloat16"})
    with pytest.raises(UsageError, match="method 'noise' has no setting 'dtype'"):
        plan(registry, dtype="bfloat16")


def test_suites_get_their_data_and_their_assets(registry: Registry, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="suite 'toy-data' needs data 'toys'") as caught:
        load_suite(registry, "toy-data")
    assert caught.value.hint == "--data toys=PATH"
    with pytest.raises(UsageError, match="data 'toys' of suite 'toy-data' not found at"):
        load_suite(registry, "toy-data", {"toys": tmp_path / "gone"})
    assert load_suite(registry, "toy-data", {"toys": tmp_path}).name == "toy"
    help_ = {"toys": "the toys are sold out; 'toy' needs none"}
    registry.suites["toy-data"] = dataclasses.replace(registry.suites["toy-data"], data_help=help_)
    with pytest.raises(MissingAssetError, match="suite 'toy-data' needs data 'toys': the toys are sold out") as missing:
        load_suite(registry, "toy-data")
    assert (missing.value.hint, missing.value.exit_code) == ("--data toys=PATH", 3)
    with pytest.raises(UsageError, match="suite 'toy' does not use data 'toys'"):
        load_suite(registry, "toy", {"toys": tmp_path})
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path))
    monkeypatch.delenv("BCD_BENCH_ASSETS", raising=False)
    with pytest.raises(MissingAssetError, match="asset 'nowhere': not found"):
        load_suite(registry, "toy-asset")


def test_the_notes_of_a_suite_are_in_the_plan_and_not_in_its_identity(registry: Registry, tmp_path: Path) -> None:
    suite = load_suite(registry, "toy")
    noted = dataclasses.replace(suite, notes=("a/b.mp4 is left out: no face",))
    assert noted.manifest_sha256 == suite.manifest_sha256
    made, bare = make_plan(registry, "noise", noted), make_plan(registry, "noise", suite)
    assert (made.suite.notes, bare.suite.notes) == (("a/b.mp4 is left out: no face",), ())
    assert made.run_id == bare.run_id
    made.save(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").suite.notes == made.suite.notes


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (["a", "A"], "two pairs have the same id"),
        (["../a"], "is not a safe file name"),
        ([""], "is not a safe file name"),
    ],
)
def test_pair_ids_must_be_safe_file_names(registry: Registry, ids: list[str], error: str) -> None:
    suite = Suite("s", "1", [Pair(i, toy_plugin.ref(0, 0), toy_plugin.ref(1, 1)) for i in ids], (16, 24), 8.0)
    with pytest.raises(UsageError, match=error):
        make_plan(registry, "noise", suite)


class Unmade(Sequence[Pair]):
    """Pairs that are made when they are asked for, and cannot be."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError("no such clip")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda data: Suite("toy", "1", Unmade(), (16, 24), 8.0), r"RuntimeError: no such clip \(test_plan.py:"),
        (lambda data: sys.exit(3), "SystemExit: 3"),
    ],
)
def test_a_suite_that_cannot_be_built_is_one_clear_line(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, make: Any, error: str
) -> None:
    monkeypatch.setattr(toy_plugin, "make_suite", make)
    with pytest.raises(UsageError, match=f"suite 'toy' cannot be built: {error}"):
        load_suite(registry, "toy")


def test_an_empty_suite_is_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match="suite 's' has no pairs"):
        make_plan(registry, "noise", Suite("s", "1", [], (16, 24), 8.0))


def test_plans_of_another_version_and_damaged_ones_are_one_clear_line(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(UsageError, match=r"is not a run folder: plan\.json cannot be read"):
        read_plan(path)
    path.write_text("{")
    with pytest.raises(UsageError, match="is damaged: not JSON"):
        read_plan(path)
    plan(registry).save(path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(
        UsageError, match=r"written by a different version of bcd-bench \(run folder format 2, this one is 1\)"
    ):
        read_plan(path)
    path.write_text(json.dumps({**record, "seed": "x"}))
    with pytest.raises(UsageError, match="is damaged: seed: "):
        read_plan(path)
    path.write_text(json.dumps([]))
    with pytest.raises(UsageError, match="a different version"):
        read_plan(path)


def test_the_manifest_is_the_hash_of_the_json_lines_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcd_bench.types.suite._REMEMBERED", 3)

    class OnTheFly(Sequence[Pair]):
        """Pairs whose clips are new objects at every access, as in suites of many pairs."""

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: Any) -> Any:
            if not 0 <= index < len(self):
                raise IndexError
            clips = [ClipRef(f'"é\n{n % 5}', Generated("toys:draw", {"n": n % 5})) for n in range(index, index + 3)]
            return Pair(f"p{index}", clips[0], clips[1], clips[2] if index % 2 else None, {"b": index, "a": "{}"})

    suite = Suite("toys", "2", OnTheFly(), (8, 6), 12.5, seed=3)
    head = {"name": "toys", "version": "2", "size": [8, 6], "fps": 12.5, "seed": 3}
    lines = [json.dumps(d, sort_keys=True, separators=(",", ":")) for d in (head, *(p.describe() for p in suite.pairs))]
    assert suite.manifest_sha256 == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def test_the_manifest_sees_clips_but_not_lengths() -> None:
    suite = toy_plugin.make_suite({})
    clip = suite.pairs[0].content.load()
    assert isinstance(clip, Clip)
    assert suite.manifest_sha256 == toy_plugin.make_suite({}).manifest_sha256
    assert suite.manifest_sha256 != toy_plugin.make_suite({}, n=9).manifest_sha256
