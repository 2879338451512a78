"""Settings as K=V: one line that says what is wrong, and the names that were meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bcd_bench.plugin.settings import change_settings, change_tree, field_names, first_error, validate
from bcd_bench.types.errors import UsageError


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lr: float = Field(default=0.1, gt=0)
    steps: int = 5


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = "x"
    train: Part = Part()
    other: Part | None = None

    @model_validator(mode="after")
    def _named(self) -> Whole:
        if self.name == "":
            raise ValueError("a name is needed")
        return self


@dataclass(frozen=True)
class Flat:
    suite: str
    steps: int = 5
    lr: float = 0.1
    widths: str = "1,2"


def test_values_are_checked_and_converted() -> None:
    assert validate(Whole, {"train": {"lr": "0.5"}}).train.lr == 0.5
    assert change_tree(Whole(), {"train.lr": 1, "name": "y"}) == Whole(name="y", train=Part(lr=1))
    assert change_tree(Whole(other=Part()), {"other.steps": 7}).other == Part(steps=7)
    assert change_settings(Flat("a"), {"steps": 6.0, "lr": 1, "widths": [3, 4]}) == Flat("a", 6, 1.0, "3,4")
    assert list(field_names(Whole)) == ["name", "train.lr", "train.steps", "other"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.lr": 0}, "toy: --set train.lr: Input should be greater than 0"),
        ({"train.step": 3}, "toy: --set train.step: no such setting; did you mean train.steps?"),
        ({"lr": 3}, "toy: --set lr: no such setting; did you mean train.lr?"),
        ({"train.lr.x": 3}, "toy: --set train.lr.x: no such setting; did you mean train.lr or train.steps?"),
        ({"other.steps": 3}, "toy: --set other.steps: no such setting; did you mean train.steps?"),
        ({"name": ""}, "toy: --set a name is needed"),
    ],
)
def test_a_tree_of_settings_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        change_tree(Whole(), changes, owner="toy")
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 3}, "--set step: no such setting; did you mean steps?"),
        ({"suite": "b"}, "--set suite: fixed by the preset"),
        ({"zzz": 1}, "--set zzz: no such setting; available: lr, steps, widths"),
        ({"steps": 2.5}, "--set steps=2.5: must be a whole number"),
        ({"steps": float("inf")}, "--set steps=inf: must be a whole number"),
        ({"lr": True}, "--set lr=True: must be a number"),
        ({"lr": "fast"}, "--set lr=fast: must be a number"),
    ],
)
def test_a_flat_recipe_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        change_settings(Flat("a"), changes, fixed=("suite",))
    assert str(caught.value) == said


def test_a_misspelt_name_in_a_method_s_configuration_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^m: --set step: no such setting; did you mean steps\?$"):
        validate(Part, {"step": 1}, "--set", owner="m")


def test_the_first_error_names_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"train": {"steps": "many"}})
    assert first_error(caught.value).startswith("train.steps: Input should be a valid integer")
