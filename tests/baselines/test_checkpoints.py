"""Published files: loaded key by key, data only; anything else is refused in one line that says what was expected."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bcd_bench.types.errors import UsageError
from bcd_bench_baselines.common.checkpoints import blank, load_published, read_checkpoint
from bcd_bench_baselines.common.random_weights import fill_seeded


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def state(prefix: str = "") -> dict[str, Tensor]:
    module = blank(network)
    fill_seeded({"net": module}, 3)
    return OrderedDict((prefix + key, value) for key, value in module.state_dict().items())


def load(path: Path, **more: Any) -> nn.Sequential:
    module = blank(network)
    load_published({"generator": module}, path, model="TOY", **more)
    return module


def same(module: nn.Module, wanted: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, wanted[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_an_entry_is_loaded_from_among_others(tmp_path: Path, prefix: str, zipped: bool) -> None:
    others = {"optimizer": {"state": {0: {"step": np.float64(3)}}}, "epoch": 99, "loss": np.float32(0.5)}
    path = tmp_path / "a.pth.tar"
    torch.save({"generator": state(prefix), **others}, path, _use_new_zipfile_serialization=zipped)
    assert same(load(path), state())


def test_a_flat_file_and_safetensors(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.pth")
    save_file(state("module."), tmp_path / "a.safetensors")
    assert same(load(tmp_path / "a.pth", flat=True), state())
    assert same(load(tmp_path / "a.safetensors", flat=True), state())


def test_another_models_file_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    torch.save({"gen": state(), "epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(
        UsageError,
        match=r"not a checkpoint of TOY .entries 'generator' of 9 tensors.*no entry 'generator', but gen, epoch",
    ):
        load(tmp_path / "other.pt")
    found = state()
    del found["0.bias"], found["2.weight"]
    found |= {"extra.weight": torch.zeros(1)}
    torch.save({"generator": found}, tmp_path / "keys.pt")
    with pytest.raises(
        UsageError,
        match=r"2 of 9 tensors are missing \(0.bias, 2.weight\); 1 do not belong to this model \(extra.weight\)",
    ):
        load(tmp_path / "keys.pt")
    torch.save({"generator": {**state(), "0.weight": torch.zeros(4, 3, 5, 5), "0.bias": 3}}, tmp_path / "shape.pt")
    module = blank(network)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(
        UsageError, match=r"0.bias is int, expected \[4\], 0.weight is \[4, 3, 5, 5\], expected \[4, 3, 3, 3\]"
    ):
        load_published({"generator": module}, tmp_path / "shape.pt", model="TOY")
    assert all(torch.equal(value.nan_to_num(), before[key].nan_to_num()) for key, value in module.state_dict().items())


class Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {os.environ['TOY_PROOF']}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    proof, path = tmp_path / "proof", tmp_path / "evil.pth"
    monkeypatch.setenv("TOY_PROOF", str(proof))
    content = {"generator": state(), "epoch": Shell()}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UsageError, match="expected a checkpoint of TOY") as caught:
        load(path)
    if how != "pickle":  # a bare pickle is no checkpoint to begin with
        assert "contains code or objects (posix.system)" in str(caught.value)
    assert not proof.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0.01, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float, zipped: bool) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"generator": state()}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UsageError, match=r"truncated.*expected a checkpoint of TOY") as caught:
        load(path, hint="bring another")
    assert caught.value.hint == "bring another"


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04nothing", b"\x80\x02."])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="expected the thing") as caught:
            read_checkpoint(tmp_path / name, expected="the thing")
        assert "\n" not in str(caught.value)


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(UsageError, match="contains list, not a state dict"):
        load(tmp_path / "a.pth")
    with pytest.raises(UsageError, match="is not a file; expected a checkpoint of TOY"):
        load(tmp_path)


def test_seeds_fill_each_tensor_by_its_name() -> None:
    one, other, small = blank(network), blank(network), blank(lambda: nn.Sequential(nn.Conv2d(3, 4, 3)))
    fill_seeded({"net": one}, 5, {"1.bias": torch.full((4,), 9.0)})
    fill_seeded({"net": other}, 6)
    fill_seeded({"net": small}, 5)
    assert torch.equal(one[0].weight, small[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert torch.equal(one[1].bias, torch.full((4,), 9.0))
    assert one[1].num_batches_tracked == 0
    assert (one[1].running_var >= 0.5).all()
    assert (one[1].running_var < 1.5).all()
