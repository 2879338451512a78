"""Presets: that those of the paper are its tables, and what is said to settings that do not exist or do not fit."""

from __future__ import annotations

import pytest

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.autoregressive.presets import PRESETS as MOTION_PRESETS
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.landmarks.presets import PRESETS as LANDMARK_PRESETS
from bcd_bench_bcd.paper.config import ObjectiveConfig
from bcd_bench_bcd.pixels.presets import PRESETS as PIXEL_PRESETS
from bcd_bench_bcd.plugin import bcd_bench_trainables
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.presets.registry import PRESETS, fields_of, resolve_preset


# ---- the paper's tables ----------------------------------------------------------------------------------------------
def test_table_a8_is_what_the_preset_says() -> None:
    preset = PRESETS["sprites"]
    encoder, decoder, vq = preset.model.encoder, preset.model.decoder, preset.model.quantizer
    assert (encoder.width, encoder.feed_forward, encoder.layers, encoder.heads) == (384, 1536, 12, 6)
    assert (decoder.patch, decoder.width, decoder.depth, decoder.heads) == (8, 384, 12, 6)
    assert decoder.temporal_blocks == (0, 2, 4, 6, 8, 10)
    assert (vq.groups, vq.dim, vq.entries, vq.tau_start, vq.tau_end) == (1, 384, 64, 2.0, 0.5)
    assert (vq.tau_decay, vq.alpha) == (0.9999972, 5.0)
    assert preset.extensions == Extensions()  # nothing of ours
    assert preset.train.direction == "forward"
    assert (preset.sampler.name, preset.sampler.steps, preset.sampler.guidance) == ("heun", 50, 1.5)
    assert (preset.train.lr, preset.train.batch, preset.train.weight_decay) == (5e-5, 128, 0.01)
    assert preset.train.betas == (0.9, 0.999)
    assert preset.objective == ObjectiveConfig()
    assert preset.objective.target_bits == 6.0


def test_table_a7_is_what_the_preset_says() -> None:
    preset = resolve_preset("lrs3")
    model, train_config = preset.model, preset.train
    assert (model.encoder.layers, model.encoder.width, model.encoder.feed_forward, model.encoder.heads) == (
        12, 512, 2048, 8,
    )  # fmt: skip
    assert (model.grid, model.channels, model.decoder.patch, model.decoder.width) == ((32, 32), 4, 4, 768)
    assert model.decoder.temporal_blocks == (0, 2, 4, 6, 8, 10)
    assert (model.quantizer.groups, model.quantizer.entries, model.quantizer.dim) == (64, 32, 16)
    assert [(s.epochs, s.temporal, s.lr, s.encoder_lr) for s in train_config.stages] == [
        (30, False, 2e-4, 0.5),
        (15, True, 2e-4, 0.25),
    ]
    assert (train_config.batch, train_config.clip_frames, train_config.frame_step) == (32, 50, 2)
    assert preset.extensions == Extensions()
    assert (preset.sampler.steps, preset.sampler.guidance, preset.objective.target_bits) == (128, 1.5, 160)


# ---- settings --------------------------------------------------------------------------------------------------------
def test_unknown_presets_and_fields_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="nearest: sprites-small"):
        resolve_preset("sprites-smal")
    with pytest.raises(UsageError, match="no such field"):
        resolve_preset("sprites", {"train.learning_rate": 1.0})
    with pytest.raises(UsageError, match=r"train\.batch"):
        resolve_preset("sprites", {"train.batch": 0})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.batchs", "train.batch"),
        ("train.stepps", "train.steps"),
        ("steps", "train.steps or sampler.steps"),
        ("lr", "train.lr or extensions.muon.lr"),
        ("model.decoder.dept", "model.decoder.depth"),
        ("objective.rate_wieght", "objective.rate_weight"),
        ("patch_skipping.min_keep_prop", "extensions.patch_skipping.min_keep_prob"),
    ],
)
def test_a_misspelt_field_is_answered_with_the_nearest_ones(key: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_preset("sprites-small", {key: 3})
    assert all(name in str(caught.value) for name in meant.split(" or "))


def test_settings_that_a_preset_on_pixels_would_ignore_are_refused() -> None:
    for key, value in (("train.frame_step", 2), ("train.clip_frames", 8)):
        with pytest.raises(UsageError, match="apply to videos"):
            resolve_preset("sprites-small", {key: value})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name: str) -> None:
    assert Preset.model_validate_json(PRESETS[name].model_dump_json()) == PRESETS[name]
    assert resolve_preset(name) == PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_every_field_of_a_preset_is_listed_and_can_be_set_to_what_it_is(name: str) -> None:
    fields = {field: value for field, value, _ in fields_of(PRESETS[name])}
    assert len(fields) > 50
    assert {"train.lr", "objective.target_bits", "model.decoder.depth", "sampler.steps"} <= fields.keys()
    for extension in PRESETS[name].extensions:
        assert fields.pop(f"extensions.{extension.name}") == "on"
    assert resolve_preset(name, fields) == PRESETS[name]


def test_fields_of_the_paper_and_of_extensions_say_what_they_mean() -> None:
    meanings = {field: meaning for field, _, meaning in fields_of(PRESETS["sprites-small"])}
    assert meanings["objective.rate_weight"] == "lambda, the weight of the rate loss."
    assert meanings["train.suite"].startswith("The suite whose training split is used")
    assert meanings["train.lr"] == "Learning rate of AdamW."
    assert meanings["extensions.content_bottleneck.kl_weight"] == "Content KL weight, per nat."
    assert meanings["extensions.swap_cycle"].startswith("generated swaps must be")


def test_the_presets_that_the_plugin_names_are_those_there_are() -> None:
    bcd, motion, landmarks, pixels = bcd_bench_trainables()
    assert landmarks.presets.keys() == LANDMARK_PRESETS.keys()
    assert landmarks.default_preset in LANDMARK_PRESETS
    assert pixels.presets.keys() == PIXEL_PRESETS.keys()
    assert pixels.default_preset in PIXEL_PRESETS
    assert bcd.presets.keys() == PRESETS.keys()
    assert bcd.default_preset in PRESETS
    assert motion.presets.keys() == MOTION_PRESETS.keys()
    assert motion.default_preset in MOTION_PRESETS
