"""Motion-model files: the network, code statistics and training sequences, as safetensors with a JSON header."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.training import save_tensors
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.autoregressive.config import MotionConfig
from bcd_bench_bcd.autoregressive.model import Continuation, MotionGPT
from bcd_bench_bcd.autoregressive.ngram import Markov
from bcd_bench_bcd.paper.config import Config

__all__ = [
    "FORMAT",
    "MAKER",
    "Coder",
    "LoadedMotionModel",
    "MotionDescription",
    "load_motion_model",
    "save_motion_model",
]

FORMAT = "bcd-motion-2"
MAKER = "bcd-bench train bcd-motion"
STATISTICS = ("counts", "first", "follow", "sequences")
NETWORK, PROMPT_ENCODER = "network.", "prompt_encoder."


class MotionDescription(Config):
    """Description of the model, stored in a motion-model file."""

    motion: MotionConfig
    bcd_sha256: str
    """Hash of the BCD weights whose codes the model generates; no other weights are accepted."""


@dataclass
class LoadedMotionModel:
    """A motion model in eval mode with its code statistics."""

    model: MotionGPT
    description: MotionDescription
    counts: Tensor
    """Counts of the codes of all training frames, int64 [N, J]."""
    first: Tensor
    """Counts of the codes of first frames, int64 [N, J]."""
    follow: Tensor
    """Counts of a code after a code of the same group, int64 [N, J (previous), J (next)]."""
    sequences: Tensor
    """Codes of the training clips, int64 [M, T, N]."""
    card: dict[str, Any] = field(default_factory=dict)
    prompt_encoder: dict[str, Tensor] | None = None
    """Parameters of BCD's encoder that are adapted to prompts, see `prompt_encoder`; None: prompts are encoded by the
    BCD weights as they are."""
    sha256: str = ""
    """Hash of the file."""

    @property
    def bcd_sha256(self) -> str:
        """Hash of the BCD weights that the model belongs to."""
        return self.description.bcd_sha256

    @property
    def markov(self) -> Markov:
        """The Markov model of the training codes."""
        return Markov(self.counts.numpy(), self.first.numpy(), self.follow.numpy())

    def coder(self, content: Tensor) -> Coder:
        """Next-frame logits for an entropy coder, for the content tokens [K, C_c] of a clip."""
        return Coder(self._exact, content)

    @cached_property
    def _exact(self) -> MotionGPT:
        """A copy of the network in float64 on the CPU, made once for all clips."""
        exact: MotionGPT = copy.deepcopy(self.model).cpu().double().eval()
        return exact


class Coder:
    """Next-frame logits of one clip in float64 on the CPU, so that two machines differ by rounding errors of 1e-12."""

    def __init__(self, exact: MotionGPT, content: Tensor) -> None:
        """`exact` is a network in float64 on the CPU."""
        self._continuation = Continuation(exact, content[None].cpu().double())

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Logits of the next frame's codes, float64 [N, J]."""
        return self._continuation.logits()[0]

    @torch.inference_mode()
    def push(self, codes: Tensor) -> None:
        """Append the codes int64 [N] of the next frame."""
        self._continuation.append(codes[None].cpu())


def save_motion_model(path: Path, loaded: LoadedMotionModel, *, compress: bool = False) -> None:
    """Write `path` (safetensors) atomically. `compress` stores the network as float16, for shipping."""
    entries = loaded.description.motion.codes.entries
    small = torch.uint8 if entries <= 256 else torch.int16
    tensors = {
        NETWORK + name: (value.half() if compress and name != "codebook" else value).contiguous()
        for name, value in loaded.model.state_dict().items()
    }
    tensors |= {name: getattr(loaded, name).to(torch.int32) for name in STATISTICS[:3]}
    tensors["sequences"] = loaded.sequences.to(small)
    for name, value in (loaded.prompt_encoder or {}).items():
        tensors[PROMPT_ENCODER + name] = value.half().contiguous()  # float16 values: see `PromptEncoderTraining.run`
    metadata = {
        "format": FORMAT,
        "description": loaded.description.model_dump_json(),
        "card": json.dumps(loaded.card, sort_keys=True),
    }
    save_tensors(path, tensors, metadata)


def load_motion_model(path: Path, device: str = "cpu") -> LoadedMotionModel:
    """Load a file written by `save_motion_model`.

    Raises `UsageError` for anything else: truncated files, pickles, another format or architecture.
    """
    metadata, tensors = read_weight_file(path, form=FORMAT, what="motion model", maker=MAKER)
    try:
        description = MotionDescription.model_validate_json(metadata["description"])
        model = MotionGPT(description.motion)
        network = {name.removeprefix(NETWORK): t.float() for name, t in tensors.items() if name.startswith(NETWORK)}
        model.load_state_dict(network)
        adapted = {
            name.removeprefix(PROMPT_ENCODER): t.float()
            for name, t in tensors.items()
            if name.startswith(PROMPT_ENCODER)
        }
        statistics = {name: tensors[name].long() for name in STATISTICS}
        codes = description.motion.codes
        shape = (codes.groups, codes.entries)
        if statistics["counts"].shape != shape or statistics["first"].shape != shape:
            raise ValueError("the code statistics have another shape than the codebook")
        if statistics["follow"].shape != (*shape, codes.entries) or statistics["sequences"].ndim != 3:
            raise ValueError("the code statistics have another shape than the codebook")
        card = json.loads(metadata.get("card", "{}"))
    except (KeyError, ValidationError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{path.name}: the motion model does not match its configuration: {line}") from None
    return LoadedMotionModel(
        model.to(device).eval(),
        description,
        prompt_encoder=adapted or None,
        card=card,
        sha256=sha256_file(path),
        **statistics,
    )
