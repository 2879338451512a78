"""Weight files: that they come back as they were, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import bcd_bench_bcd
from bcd_bench import WeightsRecipe
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.inference.pretrained import SHIPPED
from bcd_bench_bcd.inference.recipe import describe_weights
from bcd_bench_bcd.inference.weights import Description, header, load_model, save_model
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.presets.base import InferenceConfig
from bcd_bench_bcd.presets.registry import resolve_preset
from tests.bcd.conftest import TINY, description_of, tiny_model

PACKAGE = Path(bcd_bench_bcd.__file__).parent


@pytest.mark.parametrize("stem", [None, {}])
@pytest.mark.parametrize("compress", [False, True])
def test_weights_come_back(tmp_path: Path, compress: bool, stem: Any) -> None:
    model, path = tiny_model(**{"extensions.conv_stem": stem}), tmp_path / "w.safetensors"
    description = description_of(
        model, sampler=SamplerConfig(steps=3), inference=InferenceConfig(window=4), autoencoder_sha256="a" * 64
    )
    save_model(path, model, description, {"suite": "x"}, compress=compress)
    again = load_model(path)
    assert again.card == {"suite": "x"}
    assert again.description == description
    assert not again.model.training
    for name, value in model.state_dict().items():
        found = again.model.state_dict()[name]
        if compress and value.ndim >= 2:
            allowed = value.abs().amax((1, 2, 3) if value.ndim == 4 else -1, keepdim=True) / 254 + 1e-7
            assert ((found - value).abs() <= allowed).all(), name
        else:
            assert torch.equal(found, value), name


def test_compressed_weights_are_a_quarter_of_the_size(tmp_path: Path) -> None:
    model = tiny_model(**{"model.encoder.width": 64, "model.decoder.width": 64, "model.quantizer.dim": 64})
    for name, compress in (("whole", False), ("small", True)):
        save_model(tmp_path / name, model, description_of(model), {}, compress=compress)
    assert (tmp_path / "small").stat().st_size < 0.35 * (tmp_path / "whole").stat().st_size


def test_weights_name_their_recipe_and_the_extensions_that_saw_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    paper = Description(model=resolve_preset("sprites", {**TINY, "train.suite": "sprites"}).model)
    model = paper.build()
    assert type(model) is BCD
    save_model(tmp_path / "paper.safetensors", model, paper, {})
    again = load_model(tmp_path / "paper.safetensors")
    assert type(again.model) is BCD
    assert again.description.recipe == ("paper",)
    assert again.description.labels == ()
    assert json.loads(header(paper, {})["recipe"]) == ["paper"]
    heads = resolve_preset("heads-small")
    description = Description(model=heads.model, extensions=heads.extensions)
    assert description.recipe == heads.extensions.names
    assert description.labels == ("same_identity_pairs", "keypoint_supervision")
    assert json.loads(header(description, {})["recipe"]) == list(heads.extensions.names)


def test_files_that_are_not_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    path, model = tmp_path / "w.safetensors", tiny_model()
    save_model(path, model, description_of(model), {})
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:5000])
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    deeper = header(description_of(tiny_model(**{"model.encoder.layers": 2})), {})
    save_file(state, tmp_path / "mismatch.safetensors", deeper)
    plain = header(description_of(model).model_copy(update={"extensions": Extensions(), "active_patches": None}), {})
    save_file(state, tmp_path / "extensions.safetensors", plain)
    unknown = json.loads(deeper["description"])
    unknown["extensions"]["swap_cycel"] = {}
    save_file(state, tmp_path / "unknown.safetensors", {**deeper, "description": json.dumps(unknown)})
    for name, text in {
        "cut.safetensors": "not a readable safetensors file",
        "pickle.pt": "not a readable safetensors file",
        "other.safetensors": "not BCD weights",
        "mismatch.safetensors": "do not match their configuration",
        "extensions.safetensors": "do not match their configuration",
        "unknown.safetensors": "do not match their configuration",
        "absent.safetensors": "not a readable safetensors file",
    }.items():
        with pytest.raises(UsageError, match=text) as caught:
            load_model(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="is a folder, not a weights file"):
        load_model(tmp_path)


@pytest.mark.parametrize("read", [load_model, describe_weights])
def test_weights_of_the_first_format_are_refused_in_one_line(tmp_path: Path, read: Any) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "old.safetensors", {"format": "bcd-1", "config": "{}", "extra": "{}"})
    with pytest.raises(UsageError, match=r"old\.safetensors: not BCD weights \(format 'bcd-1', expected 'bcd-2'\)$"):
        read(tmp_path / "old.safetensors")


def test_the_recipe_is_read_without_the_tensors(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "w.safetensors"
    save_model(path, model, description_of(model), {})
    found = describe_weights(path)
    assert found.label == f"+ {len(model.extensions)} extensions"
    assert found.parts == model.extensions.names
    assert found.labels == ()
    paper = resolve_preset("sprites", TINY).model
    save_model(path, BCD(paper), Description(model=paper), {})
    assert describe_weights(path) == WeightsRecipe("paper")


def test_labels_of_a_recipe_are_named() -> None:
    [heads] = [weights for weights in SHIPPED if weights.name == "heads-small"]
    found = describe_weights(PACKAGE / str(heads.path))
    assert found.labels == ("same_identity_pairs", "keypoint_supervision")
