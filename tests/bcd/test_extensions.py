"""Extensions: without any, the paper's method; how they are named, set, scheduled and combined."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import bcd_bench_bcd
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions import EXTENSIONS
from bcd_bench_bcd.extensions.base import Extension, Extensions, Schedule, constant
from bcd_bench_bcd.extensions.content_bottleneck import ContentBottleneck
from bcd_bench_bcd.extensions.horizontal_flip import HorizontalFlip
from bcd_bench_bcd.extensions.loss import extended_code_histogram, extended_loss
from bcd_bench_bcd.extensions.model import ExtendedBCD, build_model
from bcd_bench_bcd.extensions.muon import Muon
from bcd_bench_bcd.extensions.robust_loss import pseudo_huber
from bcd_bench_bcd.extensions.swap_cycle import SwapCycle
from bcd_bench_bcd.paper.config import (
    DecoderConfig,
    EncoderConfig,
    LatentConfig,
    ModelConfig,
    ObjectiveConfig,
    QuantizerConfig,
)
from bcd_bench_bcd.paper.loss import bcd_loss, code_histogram
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.paper.rng import Rng, RngLike
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.presets.registry import PRESETS, resolve_preset
from bcd_bench_bcd.training.rng import ClipRng, clip_generators
from tests.bcd.conftest import frames
from tests.bcd.latent_toy import TINY as LATENTS

PACKAGE = Path(bcd_bench_bcd.__file__).parent
FILES = sorted((PACKAGE / "extensions").glob("*.py"))


# ---- without extensions ----------------------------------------------------------------------------------------------
PARTS: dict[str, Any] = {
    "encoder": EncoderConfig(layers=1, width=32, heads=2, feed_forward=64, content_tokens=3),
    "quantizer": QuantizerConfig(groups=2, entries=5, dim=8, distance="scaled"),
}
DECODER = DecoderConfig(depth=2, width=32, heads=2, patch=8, temporal_blocks=(0,), time_positions="rotary")
PIXELS = ModelConfig(frame_size=(32, 32), decoder=DECODER, **PARTS)
OF_LATENTS = ModelConfig(
    frame_size=(64, 64), channels=4, latent=LatentConfig(), decoder=DECODER.model_copy(update={"patch": 4}), **PARTS
)


def both_models(config: ModelConfig) -> tuple[BCD, ExtendedBCD]:
    """The paper's model and one with no extensions, with the same weights away from their start."""
    torch.manual_seed(0)
    papers = BCD(config).train()
    with torch.no_grad():
        for parameter in papers.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    extended = ExtendedBCD(config, Extensions()).train()
    missing, unexpected = extended.load_state_dict(papers.state_dict(), strict=False)
    assert set(missing) == {"quantizer.running_mean", "quantizer.running_std", "quantizer.usage"}
    assert unexpected == []
    return papers, extended


def clips_of(config: ModelConfig) -> torch.Tensor:
    return (
        frames(4) if config.latent is None else torch.randn(4, 8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    )


def rng_of(kind: str) -> RngLike:
    return Rng(torch.Generator().manual_seed(7)) if kind == "batch" else ClipRng(clip_generators(0, 3, range(4)))


@pytest.mark.parametrize("config", [PIXELS, OF_LATENTS], ids=["pixels", "latents"])
@pytest.mark.parametrize("direction", ["forward", "same"])
@pytest.mark.parametrize("form", ["per-group", "total"])
@pytest.mark.parametrize("numbers", ["batch", "clips"])
def test_without_extensions_the_loss_is_the_papers_bit_for_bit(
    config: ModelConfig, direction: Any, form: Any, numbers: str
) -> None:
    papers, extended = both_models(config)
    clips = clips_of(config)
    objective = ObjectiveConfig(condition_drop=0.5, target_bits=3.0, rate_form=form)
    arguments: dict[str, Any] = {"tau": 0.8, "direction": direction}
    theirs = bcd_loss(papers, clips, objective, rng=rng_of(numbers), **arguments)
    ours = extended_loss(extended, clips, objective, Extensions(), step=5, rng=rng_of(numbers), **arguments)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    theirs["loss"].backward()
    ours["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in extended.named_parameters()}
    for name, parameter in papers.named_parameters():
        assert parameter.grad is not None, name
        assert torch.equal(gradients.pop(name), parameter.grad), name  # type: ignore[arg-type]
    assert gradients == {}


@pytest.mark.parametrize("direction", ["forward", "same"])
def test_without_extensions_the_histogram_and_its_rate_are_the_papers(direction: Any) -> None:
    papers, extended = both_models(PIXELS)
    theirs = code_histogram(papers, frames(4), direction)
    assert torch.equal(extended_code_histogram(extended, frames(4), Extensions(), rng_of("clips"), direction), theirs)
    arguments: dict[str, Any] = {"tau": 0.8, "direction": direction, "histogram": theirs}
    one = bcd_loss(papers, frames(2), ObjectiveConfig(), rng=rng_of("batch"), **arguments)
    other = extended_loss(
        extended, frames(2), ObjectiveConfig(), Extensions(), step=0, rng=rng_of("batch"), **arguments
    )
    assert torch.equal(one["loss"], other["loss"])


def test_without_extensions_a_model_is_the_papers_and_computes_the_same() -> None:
    assert type(build_model(PIXELS, Extensions())) is BCD
    assert type(build_model(PIXELS, Extensions([Muon()]))) is ExtendedBCD
    papers, extended = (model.eval() for model in both_models(PIXELS))
    values = papers.values(frames(2))
    assert torch.equal(papers.encode_content(values), extended.encode_content(values))
    assert torch.equal(papers.encode_motion(values).motion, extended.encode_motion(values).motion)


def test_the_papers_package_needs_nothing_else_of_ours() -> None:
    for path in sorted((PACKAGE / "paper").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith("bcd_bench") or name.startswith("bcd_bench_bcd.paper"), (path.name, name)


# ---- schedules -------------------------------------------------------------------------------------------------------
def test_a_schedule_is_linear_between_its_points_and_constant_outside() -> None:
    schedule = Schedule(points=((10, 0.0), (14, 8.0), (19, 8.0), (20, 0.5)))
    assert [schedule.at(step) for step in (0, 9, 10, 11, 14, 19, 20, 99)] == [0, 0, 0, 2, 8, 8, 0.5, 0.5]
    assert schedule.largest == 8.0
    assert constant(2.0).at(3) == 2.0
    assert Schedule().at(3) == 0.0


def test_a_schedule_is_zero_before_its_start_and_from_its_stop_on() -> None:
    schedule = Schedule(points=((0, 1.0), (10, 2.0)), start=5, stop=8)
    assert [schedule.at(step) for step in (0, 4, 5, 7, 8, 20)] == pytest.approx([0, 0, 1.5, 1.7, 0, 0])
    assert [schedule.active(step) for step in (4, 5, 7, 8)] == [False, True, True, False]
    assert [constant(0.3, start=2).at(step) for step in (1, 2, 10**6)] == [0, 0.3, 0.3]


@pytest.mark.parametrize(
    ("schedule", "short"),
    [
        (constant(0.15), 0.15),
        (constant(0.15, stop=300), {"value": 0.15, "stop": 300}),
        (constant(0.15, start=5), {"value": 0.15, "start": 5}),
        (Schedule(points=((3, 0.0), (4, 1e-4))), {"points": [[3, 0.0], [4, 1e-4]]}),
        (
            Schedule(points=((3, 0.0), (4, 1e-4)), start=2, stop=9),
            {"points": [[3, 0.0], [4, 1e-4]], "start": 2, "stop": 9},
        ),
    ],
)
def test_a_schedule_is_written_in_short_and_comes_back(schedule: Schedule, short: Any) -> None:
    assert schedule.model_dump(mode="json") == short
    again = Schedule.model_validate(short)
    assert again.model_dump(mode="json") == short
    assert [again.at(step) for step in range(12)] == [schedule.at(step) for step in range(12)]
    bottleneck = ContentBottleneck(kl_weight=schedule)
    assert ContentBottleneck.model_validate_json(bottleneck.model_dump_json()).kl_weight == again


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"points": [[4, 1.0], [4, 2.0]]}, "increasing steps"),
        ({"points": [[4, 1.0], [3, 2.0]]}, "increasing steps"),
        ({"points": []}, "increasing steps"),
        ({"value": 1, "start": 5, "stop": 5}, "stop after it starts"),
        ({"value": 1, "strat": 5}, "Extra inputs"),
        (True, "valid dictionary"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(value: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Schedule.model_validate(value)


# ---- names -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"extensions.swap_cycel": {}}, "unknown extension 'swap_cycel'; did you mean swap_cycle?"),
        ({"extensions.swap_cycel.weight": 1}, "unknown extension 'swap_cycel'; did you mean swap_cycle?"),
        ({"extensions.nonsense": {}}, "unknown extension 'nonsense'; choose one of: same_identity_pairs, frame_subset"),
        ({"extensions.swap_cycle.wieght": 1}, "extension swap_cycle has no such field; did you mean weight"),
        ({"extensions.swap_cycle.nonsense": 1}, "no such field; its fields: weight, content_weight, start"),
        ({"extensions.content_channels.nonsense": 1}, "extension content_channels has no such field; its fields: none"),
        (
            {"extensions.swap_cycle": {"wieght": 1}},
            "swap_cycle.wieght: Extra inputs are not permitted; did you mean weight",
        ),
        ({"extensions.swap_cycle.weight": -1}, "swap_cycle.weight: Input should be greater than or equal to 0"),
        ({"extensions.swap_cycle": 3}, "swap_cycle: Input should be a valid dictionary"),
        ({"extensions.loss_weight_clamp": {"max": None}}, "loss_weight_clamp.max: Input should be a valid number"),
        ({"extensions.gradient_loss.weight": 1}, "preset 'sprites-small' does not use extension gradient_loss"),
        ({"extensions": {"swap_cycel": {}}}, "unknown extension 'swap_cycel'; did you mean swap_cycle?"),
        ({"extensions": 3}, "extensions: extensions must be a mapping of names to settings, such as {'muon': {}}"),
        ({"extensions": ["swap_cycle"]}, "extensions: extensions must be a mapping of names to settings"),
        ({"extensions.content_bottleneck.kl_weight": {"value": 1, "strat": 3}}, "content_bottleneck.kl_weight.strat"),
    ],
)
def test_extensions_that_do_not_exist_are_answered_in_one_line(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_preset("sprites-small", overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_extension_that_is_not_used_is_answered_with_how_to_switch_it_on() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_preset("sprites", {"extensions.muon.lr": 1e-3})
    assert caught.value.hint == "switch it on with --set extensions.muon={}"
    assert resolve_preset("sprites", {"extensions.muon": {}}).extensions == Extensions([Muon()])


def test_extensions_are_switched_on_changed_and_switched_off() -> None:
    preset = resolve_preset(
        "sprites-small",
        {
            "extensions.muon": None,
            "extensions.horizontal_flip": {},
            "extensions.swap_cycle.weight": 0.1,
            "extensions.content_dropout.probability": 0.4,
        },
    )
    assert preset.extensions.get(Muon) is None
    assert preset.extensions.get(HorizontalFlip) == HorizontalFlip()
    was = PRESETS["sprites-small"].extensions.get(SwapCycle)
    assert was is not None
    assert preset.extensions.get(SwapCycle) == was.model_copy(update={"weight": 0.1})
    assert preset.extensions.dump()["content_dropout"] == {"probability": 0.4}
    assert set(preset.extensions.names) == {*PRESETS["sprites-small"].extensions.names, "horizontal_flip"} - {"muon"}
    assert resolve_preset("sprites-small", {"extensions": {}}).recipe == ("paper",)


def test_extensions_are_kept_in_the_order_of_their_hooks_and_compared_by_their_settings() -> None:
    one, other = (Extensions(order) for order in ([Muon(), SwapCycle()], [SwapCycle(), Muon()]))
    assert one.names == other.names == ("swap_cycle", "muon")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Extensions([Muon(lr=1.0), SwapCycle()])
    assert Extensions.parse(one.dump()) == one
    assert Extensions.parse({**one.dump(), "muon": None}).names == ("swap_cycle",)
    assert len(Extensions()) == 0
    assert not list(Extensions())
    for preset in PRESETS.values():
        assert Extensions.parse(preset.extensions.dump()) == preset.extensions
        assert list(preset.extensions.names) == [name for name in EXTENSIONS if name in preset.extensions.names]


# ---- combinations ----------------------------------------------------------------------------------------------------
SMALL, HEADS, TINY_LATENTS = "sprites-small", "heads-small", "lrs3-tiny"


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        (
            HEADS,
            {"extensions.content_bottleneck": {}},
            "content_bottleneck and canonical_features are mutually exclusive",
        ),
        (
            SMALL,
            {"extensions.gradient_loss": {}},
            "gradient_loss compares neighbouring patches and cannot be combined with patch_skipping",
        ),
        (SMALL, {"extensions.content_bottleneck": None}, "swap_cycle.content_weight requires content_bottleneck"),
        (HEADS, {"extensions.canonical_features": None}, "keypoint_supervision requires canonical_features"),
        (SMALL, {"train.direction": "same"}, "symmetric_halves cannot be combined with train.direction=same"),
        (SMALL, {"train.order": "epochs"}, "requires train.order=random"),
        (SMALL, {"extensions.conv_stem": {"stride": 5}}, "multiples of an even stride"),
        ("sprites", {"extensions.spatial_motion": {}}, "spatial_motion requires content_channels"),
        *(
            (
                TINY_LATENTS,
                {f"extensions.{name}": {}},
                f"extension {name} requires pixels; this preset uses latents",
            )
            for name in ("horizontal_flip", "color_jitter", "patch_skipping")
        ),
        (
            TINY_LATENTS,
            {
                "extensions.conv_stem": {"stride": 2},
                "extensions.canonical_features": {},
            },
            "extension canonical_features requires pixels; this preset uses latents",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(preset: str, overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_preset(preset, overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


WITHOUT_TENSORS = [
    ("pose_correction", "landmark_motion"),
    ("expression_gain", "landmark_motion"),
    ("steady_sources", "landmark_motion"),
    ("field_smoothing", "pixel_path"),
    ("fusion_damping", "pixel_path"),
    ("motion_smoothing", "pixel_path"),
]
"""Extensions that are added to trained weights with another, and need no training."""
ADDED = ("landmark_motion", "pixel_path", *(name for name, _ in WITHOUT_TENSORS))
"""Extensions of trained weights, which have trainers and tests of their own."""


@pytest.mark.parametrize(("name", "to"), WITHOUT_TENSORS)
def test_a_preset_cannot_have_an_extension_of_trained_weights(name: str, to: str) -> None:
    with pytest.raises(UsageError, match=f"{name} applies to trained weights with {to}"):
        resolve_preset("heads-tiny", {f"extensions.{name}": {}})


@pytest.mark.parametrize("name", [name for name in EXTENSIONS if name not in ADDED])
def test_an_extension_trains_without_the_others(name: str) -> None:
    """Beside the paper's recipe, with what it needs and nothing else."""
    required = {"dead_code_restart": {"stop": 9}, "loss_weight_clamp": {"max": 6.0}, "vq_start": {"step": 4}}
    needs = {
        "spatial_motion": ("content_channels",),
        "canonical_features": ("conv_stem", "content_channels"),
        "keypoint_supervision": ("conv_stem", "content_channels", "canonical_features", "same_identity_pairs"),
    }
    small = {f"model.{key.removeprefix('model.')}": value for key, value in LATENTS.items() if "encoder" in key}
    overrides = {
        "model.frame_size": [32, 32],
        **small,
        "model.decoder": {"depth": 1, "width": 32, "heads": 2, "patch": 8, "temporal_blocks": [0]},
        "model.quantizer.entries": 8,
        "model.quantizer.dim": 16,
    }
    for one in (*needs.get(name, ()), name):
        overrides[f"extensions.{one}"] = required.get(one, {})
    preset = resolve_preset("sprites", overrides)
    tokens = 16 if "content_channels" in preset.extensions.names else 3
    encoder = preset.model.encoder.model_copy(update={"content_tokens": tokens})
    torch.manual_seed(0)
    model = build_model(preset.model.model_copy(update={"encoder": encoder}), preset.extensions).train()
    assert isinstance(model, ExtendedBCD)
    losses = extended_loss(
        model, frames(4), preset.objective, preset.extensions, tau=1.0, step=5, rng=torch.Generator().manual_seed(0)
    )
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert preset.recipe == preset.extensions.names


# ---- the registry ----------------------------------------------------------------------------------------------------
def defined_in(path: Path) -> list[type[Extension]]:
    module = importlib.import_module(f"bcd_bench_bcd.extensions.{path.stem}")
    kinds = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Extension)]
    return [kind for kind in kinds if kind is not Extension and kind.__module__ == module.__name__]


def test_every_extension_is_registered_and_explained_in_a_file_of_its_name() -> None:
    found: list[type[Extension]] = []
    for path in FILES:
        if path.stem in ("__init__", "base"):
            continue
        kinds = defined_in(path)
        assert len(kinds) <= 1, path.name
        for kind in kinds:
            assert kind.name == path.stem
            assert kind.__name__ == "".join(part.title() for part in path.stem.split("_")).replace("Vq", "VQ")
            assert kind.summary
            assert "\n" not in kind.summary
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path.name
        assert len(docstring) > 40, path.name
        found += kinds
    assert set(found) == set(EXTENSIONS.values())
    assert all(EXTENSIONS[kind.name] is kind for kind in found)
    assert len(found) >= 25


def test_every_field_of_an_extension_has_a_type_that_json_can_hold() -> None:
    for name, kind in EXTENSIONS.items():
        required = [field for field, info in kind.model_fields.items() if info.is_required()]
        made = kind.model_validate(dict.fromkeys(required, 3))
        assert Extensions.parse({name: made.model_dump(mode="json")}) == Extensions([made])


# ---- recipes ---------------------------------------------------------------------------------------------------------
PAPERS = [name for name in PRESETS if name in ("sprites", "lrs3") or "paper" in name]


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_presets_have_no_extensions(name: str) -> None:
    preset = PRESETS[name]
    assert preset.extensions == Extensions()
    assert preset.recipe == ("paper",)
    assert preset.train.direction == "forward"
    assert preset.train.lr_schedule == "constant" or "small" in name
    assert preset.train.clips is None


def test_all_other_presets_name_their_extensions() -> None:
    assert {"sprites", "lrs3"} <= set(PAPERS)
    for name in PRESETS.keys() - set(PAPERS):
        assert PRESETS[name].recipe == PRESETS[name].extensions.names
        assert "paper" not in PRESETS[name].recipe


def test_only_the_presets_of_heads_learn_from_labels() -> None:
    def labels(preset: Preset) -> list[str]:
        return [extension.name for extension in preset.extensions if extension.labels]

    of_heads = ["same_identity_pairs", "keypoint_supervision"]
    assert {name: labels(preset) for name, preset in PRESETS.items() if labels(preset)} == {
        "heads-small": of_heads,
        "heads-tiny": of_heads,
    }
    labels = ["same_identity_pairs", "landmark_motion", "pixel_path", "keypoint_supervision"]
    assert [name for name, kind in EXTENSIONS.items() if kind.labels] == labels


# ---- the robust loss -------------------------------------------------------------------------------------------------
@given(error=st.floats(-2, 2), width=st.floats(0.01, 1))
@settings(max_examples=80, deadline=None)
def test_pseudo_huber_lies_below_the_square_and_grows_linearly(error: float, width: float) -> None:
    e = torch.tensor([error], dtype=torch.float64)
    value = pseudo_huber(e, width).item()
    assert 0 <= value <= error**2 + 1e-12
    assert value <= 2 * width * abs(error) + 1e-12
    assert pseudo_huber(-e, width).item() == pytest.approx(value)


def test_pseudo_huber_is_the_square_of_small_and_a_line_for_large_errors() -> None:
    small, large = torch.tensor([1e-3], dtype=torch.float64), torch.tensor([100.0], dtype=torch.float64)
    assert pseudo_huber(small, 0.5).item() == pytest.approx(1e-6, rel=1e-3)
    assert pseudo_huber(large, 0.5).item() == pytest.approx(2 * 0.5 * 100 - 2 * 0.25, rel=1e-3)
