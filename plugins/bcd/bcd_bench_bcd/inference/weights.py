"""Weight files of BCD: safetensors with the model's configuration, recipe and provenance as JSON in the header."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from bcd_bench.assets.hashing import sha256_path
from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.training import save_tensors
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.base import Extensions, ExtensionSettings
from bcd_bench_bcd.extensions.model import build_model, landmarks_of
from bcd_bench_bcd.inference.recipe import FORMAT, MAKER
from bcd_bench_bcd.paper.config import Config, ModelConfig, SamplerConfig
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.presets.base import InferenceConfig

__all__ = ["Description", "LoadedModel", "header", "load_model", "save_model", "save_variant"]

SCALE = ".int8_scale"
"""Suffix of the tensors that hold the row scales of a compressed matrix."""
TENSORS_OF = "tensors_of"
"""Entry of the header of a variant: the file that holds the tensors, and its hash."""


class Description(Config):
    """Description of the model, stored in a weight file."""

    model: ModelConfig
    extensions: ExtensionSettings = Field(default_factory=Extensions)
    inference: InferenceConfig = InferenceConfig()
    sampler: SamplerConfig = SamplerConfig()
    active_patches: tuple[int, ...] | None = None
    """Indices of the patches that are computed (None: all)."""
    autoencoder_sha256: str = ""
    """Hash of the autoencoder whose latents were learned; no other one is accepted."""

    @property
    def recipe(self) -> tuple[str, ...]:
        """("paper",), or the names of the extensions."""
        return self.extensions.recipe

    @property
    def labels(self) -> tuple[str, ...]:
        """The extensions that learned from labels."""
        return tuple(extension.name for extension in self.extensions if extension.labels)

    def build(self) -> BCD:
        """A model of this architecture with random weights. Raises `ValueError` if the parts do not fit."""
        return build_model(self.model, self.extensions, self.active_patches)


@dataclass
class LoadedModel:
    """A model in eval mode, the description in its file, and its training card."""

    model: BCD
    description: Description
    card: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    """The file that it was loaded from."""

    @cached_property
    def sha256(self) -> str:
        """Hash of the weight file, which bitstreams name. Raises `UsageError` for a model that is not from a file."""
        if self.path is None:
            raise UsageError("the weights are not stored in a file, which a bitstream has to name", hint="save them")
        return sha256_path(self.path)

    @property
    def codes_sha256(self) -> str:
        """Hash of the weights whose motion codes these weights give: a pixel path leaves those of its BCD unchanged."""
        return str(self.card.get("pixel_path", {}).get("bcd") or self.sha256)


def save_model(
    path: Path, model: BCD, description: Description, card: dict[str, Any], *, compress: bool = False
) -> None:
    """Write `path` (safetensors) atomically.

    `compress` stores every matrix as int8 with one scale per row, for shipping: a quarter of the size, with an error of
    at most 1/254 of the largest weight of the row. Networks of landmarks, whose errors are pixels, are float16.
    """
    state = {}
    reads_landmarks = landmarks_of(model) is not None
    for name, value in model.state_dict().items():
        if compress and reads_landmarks and name.startswith(("landmarks.", "quantizer.")):
            state[name] = value.half()
        elif compress and value.is_floating_point() and value.ndim >= 2:
            row = (1, 2, 3) if value.ndim == 4 else (-1,)  # of a convolution: the kernel of one output channel
            scale = value.float().abs().amax(row, keepdim=True).clamp_min(1e-12) / 127
            state[name] = (value.float() / scale).round().to(torch.int8)
            state[name + SCALE] = scale
        else:
            state[name] = value.contiguous()
    save_tensors(path, state, header(description, card))


def header(description: Description, card: dict[str, Any]) -> dict[str, str]:
    """The header of a weight file."""
    return {
        "format": FORMAT,
        "description": description.model_dump_json(),
        "recipe": json.dumps(description.recipe),
        "labels": json.dumps(description.labels),
        "card": json.dumps(card, sort_keys=True),
    }


def save_variant(path: Path, base: Path, description: Description, card: dict[str, Any]) -> None:
    """Write `path`: weights with the tensors of the file `base` beside it and another description."""
    of = json.dumps({"file": base.name, "sha256": sha256_path(base)})
    save_tensors(path, {}, {**header(description, card), TENSORS_OF: of})


def _tensors_of(path: Path, named: str) -> dict[str, Tensor]:
    """The tensors of the file beside `path` that `named` names, with its hash. Raises `UsageError`."""
    try:
        of = json.loads(named)
        name, sha256 = str(of["file"]), str(of["sha256"])
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{path.name}: its header does not name the file with its tensors") from None
    base = path.parent / Path(name).name
    if name != base.name or not base.is_file() or sha256_path(base) != sha256:
        raise UsageError(
            f"{path.name}: its tensors are in {name!r} (sha256 {sha256[:12]}), which is not beside it",
            hint=f"copy that file to {path.parent}",
        )
    return read_weight_file(base, form=FORMAT, what="BCD", maker=MAKER)[1]


def load_model(path: Path, device: str = "cpu") -> LoadedModel:
    """Load a file written by `save_model` or `save_variant`.

    Raises `UsageError` for anything else: truncated files, pickles, another format or architecture.
    """
    metadata, tensors = read_weight_file(path, form=FORMAT, what="BCD", maker=MAKER)
    if TENSORS_OF in metadata:
        tensors = _tensors_of(path, metadata[TENSORS_OF])
    stored = {name: value.float() for name, value in tensors.items()}
    scales = {name: stored.pop(name) for name in list(stored) if name.endswith(SCALE)}
    state = {name: value * scales[name + SCALE] if name + SCALE in scales else value for name, value in stored.items()}
    try:
        description = Description.model_validate_json(metadata["description"])
        model = description.build()
        model.load_state_dict(state)
        card = json.loads(metadata.get("card", "{}"))
    except (KeyError, ValidationError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{path.name}: the weights do not match their configuration: {line}") from None
    return LoadedModel(model.to(device).eval(), description, card, path)
