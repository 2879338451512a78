"""The C-DSVAE weights in the wheel: what the card says of them holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bcd_bench_baselines.cdsvae as package
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.results.schema import PairValues
from bcd_bench.types.errors import MissingAssetError
from bcd_bench_baselines.cdsvae.method import CDSVAEMethod
from bcd_bench_baselines.cdsvae.model import load_model
from bcd_bench_baselines.cdsvae.specs import METHODS, SHIPPED
from bcd_bench_sprites.classifier import judge_clips, shipped_judge
from bcd_bench_sprites.factors import ATTRIBUTES

FOLDER = Path(package.__file__).parent / "weights"
RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda weights: weights.name)
def test_files_records_and_card_agree(weights: Any) -> None:
    path = Path(package.__file__).parents[1] / weights.path
    assert sha256_file(path) == weights.sha256
    assert path.stat().st_size < 5e6
    _, card = load_model(path)
    assert (card["suite"],) == weights.suites
    page = (FOLDER / "README.md").read_text()
    assert weights.sha256 in page
    assert f"{card['step']:,} steps" in page
    (record,) = RESULTS.glob(f"{card['suite']}@1/cdsvae/*/record.json")
    assert weights.sha256 in record.read_text()
    log = RESULTS / "training" / f"cdsvae-{card['suite']}.jsonl"
    (last,) = re.findall(r'^\{"step": (\d+),', log.read_text().splitlines()[-1])
    assert int(last) <= card["step"]


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda weights: weights.name)
def test_first_pairs_come_out_as_the_record_says(weights: Any) -> None:
    (name,) = weights.suites
    try:
        suite = load_suite(load_registry(), name, {})
    except MissingAssetError as error:
        pytest.skip(str(error))
    method = CDSVAEMethod(METHODS[0].config)
    method.load(Path(package.__file__).parents[1] / weights.path, "cpu")
    pairs = suite.pairs[:32]
    frames = np.stack([clip.frames for clip in method.transfer(pairs, seed=0)])
    found = judge_clips(shipped_judge(name), frames).classes
    (folder,) = RESULTS.glob(f"{name}@1/cdsvae/*")
    values = PairValues.load(folder)
    assert values is not None
    assert values.pairs[:32] == [pair.id for pair in pairs]
    for column in ("action", *ATTRIBUTES):
        head, role = ("motion", "motion") if column == "action" else (column, "content")
        truth = [getattr(pair, role).labels[head] for pair in pairs]
        agree = (found[head] == np.array(truth)) == np.array(values.columns[column][:32], bool)
        assert agree.sum() >= 30, column  # another processor's rounding may turn what is close
