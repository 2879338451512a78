"""Named recipes of BCD, and how `--set` changes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from bcd_bench.errors import UsageError
from bcd_bench_bcd.configs import (
    CanvasConfig,
    DecoderConfig,
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    Preset,
    QuantizerConfig,
    SamplerConfig,
    TrainConfig,
)
from bcd_bench_bcd.video_presets import LRS3, LRS3_TINY

__all__ = ["PRESETS", "resolve_preset"]

_SMALL_DIFFUSION = DiffusionConfig(p_mean=1.8, p_std=1.5, prediction="x", weight_max=6.0)
_TWO_STEPS = SamplerConfig(name="euler", steps=2, guidance=1.0, sigma_min=0.3, sigma_max=20.0)
_ONE_STEP = _TWO_STEPS.model_copy(update={"steps": 1})

_SPRITES_SMALL = Preset(
    summary="9 M parameters, LPC Sprites in pixels, trains on two CPU cores; what we ship",
    model=ModelConfig(
        encoder=EncoderConfig(layers=4, width=192, heads=4, feed_forward=768, content_tokens=64, content_dim=8),
        quantizer=QuantizerConfig(dim=192, alpha=12.0, distance="l2", normalize="batch", codes_from_data=True),
        decoder=DecoderConfig(
            depth=6, width=192, heads=4, patch=8, temporal_blocks=(2,), content="channels", skip_static_patches=True
        ),
        diffusion=_SMALL_DIFFUSION,
    ),
    objective=ObjectiveConfig(
        content_drop=0.15,
        content_drop_until=300,
        code_confidence=0.02,
        # A high price, or content dropped while it has one, drives who moves into the code, and nothing brings it back.
        content_price=((300, 0.0), (450, 1e-4), (700, 1e-4), (701, 1e-5)),
        huber=0.05,
        huber_from=700,
        target_bits=5.6,
        revive_every=50,
        revive_from=1300,
        revive_until=1800,
        cycle=0.01,
        cycle_content=1e-4,
        cycle_from=400,
    ),
    sampler=_TWO_STEPS,
    train=TrainConfig(
        suite="sprites",
        steps=4000,
        batch=20,
        patch_floor=0.3,
        direction="both",
        optimizer="muon",
        lr=1e-3,
        muon_lr=2e-3,
        encoder_lr=1.0,
        betas=(0.9, 0.99),
        warmup=100,
        schedule="cosine",
        ema=0.998,
        checkpoint_every=250,
        grid_every=500,
    ),
)

_HEADS_SMALL = Preset(
    summary="8 M parameters, rendered talking heads at 128x128, resized to the suite's size; trains on two CPU cores",
    model=ModelConfig(
        frame_size=(128, 128),
        window=8,
        resize=True,
        encoder=EncoderConfig(
            layers=3, width=160, heads=4, feed_forward=640, content_tokens=64, stem="conv", stem_shrink=16
        ),
        quantizer=QuantizerConfig(
            groups=32,
            entries=16,
            dim=8,
            alpha=20.0,
            distance="l2",
            normalize="batch",
            codes_from_data=True,
            straight_through="latent",
        ),
        decoder=DecoderConfig(
            depth=4, width=192, heads=4, patch=16, temporal_blocks=(1,), content="channels", motion_map=16
        ),
        canvas=CanvasConfig(),
        diffusion=_SMALL_DIFFUSION,
    ),
    objective=ObjectiveConfig(
        condition_drop=0.05,
        code_confidence=0.002,
        target_bits=64.0,
        few_content=0.1,
        recolour=0.3,
        quantize_from=300,
        edges=1.0,
        picture=1.0,
        guide=1.0,
        canvas_from=1500,
        draw_from=1900,
    ),
    sampler=_ONE_STEP,
    train=TrainConfig(
        suite="heads-cross-128",
        take_frames=8,
        take_stride=3,
        half_frames=4,
        mirror=True,
        steps=2300,
        batch=32,
        direction="both",
        optimizer="muon",
        lr=1e-3,
        muon_lr=2e-3,
        betas=(0.9, 0.99),
        warmup=100,
        schedule="cosine",
        hold=1900,
        ema=0.998,
        checkpoint_every=100,
        grid_every=500,
    ),
)

_SPRITES = Preset(
    summary="Table A8: T5 12x384, DiT-S/8, 1 x 64 codes, 6 bits per frame, batch 128; for GPUs",
    model=ModelConfig(
        quantizer=QuantizerConfig(distance="scaled", codes_from_data=True, tau_decay=0.9999972),
        decoder=DecoderConfig(time_positions="rotary"),
    ),
    objective=ObjectiveConfig(),
    sampler=SamplerConfig(),
    train=TrainConfig(suite="sprites", direction="forward"),
)

_SPRITES_PROCEDURAL_SMALL = _SPRITES_SMALL.model_copy(
    update={
        "summary": "the same small model on the embedded procedural suite: no files needed (default)",
        "train": _SPRITES_SMALL.train.model_copy(update={"suite": "sprites-procedural", "steps": 4400}),
    }
)

PRESETS: dict[str, Preset] = {
    "sprites-procedural-small": _SPRITES_PROCEDURAL_SMALL,
    "sprites-small": _SPRITES_SMALL,
    "sprites": _SPRITES,
    "heads-small": _HEADS_SMALL,
    "lrs3": LRS3,
    "lrs3-tiny": LRS3_TINY,
}


def _fields(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _nearest_fields(key: str, tree: dict[str, Any]) -> str:
    """A clause that names the fields that `key` may have meant: by their last name, then by the whole."""
    import difflib

    fields = list(_fields(tree))
    last = {name.rpartition(".")[2] for name in fields}
    close = difflib.get_close_matches(key.rpartition(".")[2], last, n=2, cutoff=0.7)
    found = [name for one in close for name in fields if name.rpartition(".")[2] == one]
    near = found or difflib.get_close_matches(key, fields, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near[:3])}?" if near else "; fields look like train.lr or model.decoder.depth"


def resolve_preset(name: str, overrides: dict[str, Any] | None = None) -> Preset:
    """The preset `name` with dotted `overrides` ("train.lr": 1e-4) applied and validated.

    Raises `UsageError` for unknown presets or fields and for values out of range.
    """
    import difflib

    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=2)
        raise UsageError(
            f"unknown preset {name!r} of bcd; nearest: {', '.join(near) or 'none'}",
            hint=f"choose one of: {', '.join(PRESETS)}",
        )
    tree = PRESETS[name].model_dump(mode="json")
    for key, value in (overrides or {}).items():
        node, *path = tree, *key.split(".")
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or path[-1] not in node:
            raise UsageError(f"--set {key}: preset {name!r} has no such field{_nearest_fields(key, tree)}")
        node[path[-1]] = value
    try:
        return Preset.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"--set {where}: {first['msg']}") from None
