"""The methods of the generation suites: the motion model, and what it is compared with.

A pair of such a suite has the first frames of a clip as content (the prompt) and the whole clip as driving clip, of
which only the length is used. An output is the whole clip: the prompt, as BCD decodes it, and its continuation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from bcd_bench.plugin.base import Method
from bcd_bench.plugin.settings import first_error
from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.autoregressive.generator import MotionGenerator, Prompt, bcd_of
from bcd_bench_bcd.autoregressive.sampling import SamplingConfig
from bcd_bench_bcd.autoregressive.weights import MAKER, load_motion_model
from bcd_bench_bcd.metrics.motion_bitrate import INFO_KEY
from bcd_bench_bcd.metrics.motion_generation import GENERATION, repeated_share

__all__ = ["BCDGenerate", "MarkovMotion", "RepeatLast", "TrainingMotion", "nearest_training_sequence"]


class GenerateConfig(SamplingConfig):
    """Settings that `run --set` may change."""

    bcd: str | None = None
    """The BCD weights of the motion model: a name or a file (default: the shipped weights with the hash that the motion
    model requires)."""


class _CodeMethod(Method):
    """Generates the codes of a clip in some way, and decodes them with BCD."""

    name = "bcd-generate"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        try:
            self.settings = GenerateConfig.model_validate(dict(config))
        except ValidationError as error:
            raise UsageError(f"{self.name}: --set {first_error(error)}") from None

    def load(self, weights: Path | None, device: str) -> None:
        """Load a motion model and the BCD weights that it belongs to. Raises `UsageError` if there are none."""
        if weights is None:
            raise UsageError(
                f"method {self.name} needs a motion model",
                hint=f"run {MAKER}, then pass --weights train/…/model.safetensors",
            )
        motion = load_motion_model(weights, device)
        self.generator = MotionGenerator(bcd_of(motion, self.settings.bcd, device), motion, self.settings)
        self.markov = motion.markov

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width in pixels that the weights were trained at."""
        return self.generator.frame_size

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield one clip per pair, with the length of its driving clip, whose pixels are not used.

        They only enter the statistics in `Clip.info`: the code length of the real clip under the model.
        """
        results: dict[str, Clip | Failed] = {}
        groups: dict[tuple[int, ...], list[tuple[Pair, Clip, Clip]]] = {}
        for pair in pairs:
            prompt, real = pair.content.load(), pair.motion.load()
            mismatched = next((clip for clip in (prompt, real) if not self.generator.accepts(clip.frames)), None)
            if mismatched is not None:
                size = mismatched.frames.shape[1:3]
                results[pair.id] = Failed(
                    f"the clip has {size[0]} x {size[1]} pixels, the weights require {self.frame_size}"
                )
            elif len(prompt) > len(real):
                results[pair.id] = Failed(f"the prompt has {len(prompt)} frames, the clip only {len(real)}")
            else:
                groups.setdefault((*prompt.frames.shape, *real.frames.shape), []).append((pair, prompt, real))
        for group in groups.values():
            results |= self._group(group, seed)
        return (results[pair.id] for pair in pairs)

    def _group(self, group: Sequence[tuple[Pair, Clip, Clip]], seed: int) -> dict[str, Clip]:
        generator = self.generator
        prompt = generator.prompt(np.stack([clip.frames for _, clip, _ in group]))
        seeds = [pair_seed(seed, pair.id) for pair, _, _ in group]
        codes = self.codes(prompt, len(group[0][2]), seeds)
        frames = generator.frames(prompt, codes, seeds).cpu().numpy()
        real = generator.real_codes(np.stack([clip.frames for _, _, clip in group]))
        statistics = self._statistics(prompt, codes, real)
        return {
            pair.id: Clip(frames[i], clip.fps, pair.id, {INFO_KEY: codes[i].tolist(), GENERATION: statistics[i]})
            for i, (pair, _, clip) in enumerate(group)
        }

    @abstractmethod
    def codes(self, prompt: Prompt, frames: int, seeds: Sequence[int]) -> Tensor:
        """Codes int64 [B, frames, N], of which the first ones are those of the prompt."""

    def _statistics(self, prompt: Prompt, codes: Tensor, real: Tensor) -> list[dict[str, float]]:
        """Code lengths in bits per frame of the real continuations, and how close the generated and the real motion are
        to a training motion."""
        known = prompt.codes.shape[1]
        motion = self.generator.motion
        with torch.inference_mode():
            continued = torch.cat([prompt.codes, real[:, known:]], 1)
            bits = motion.model.code_bits(prompt.content, continued, alone=prompt.alone).sum(-1)
        real_codes = real.cpu().numpy()
        unigram, markov = self.markov.unigram_bits(real_codes), self.markov.bits(real_codes)
        rows = []
        for i in range(len(codes)):
            rows.append(
                {
                    "prompt": known,
                    "bits": round(float(bits[i, known:].double().mean()), 6),
                    "markov_bits": round(float(markov[i, known:].mean()), 6),
                    "unigram_bits": round(float(unigram[i, known:].mean()), 6),
                    "nearest": round(nearest_training_sequence(codes[i], motion.sequences), 6),
                    "real_nearest": round(nearest_training_sequence(real[i], motion.sequences), 6),
                    "real_repeated": round(repeated_share(real[i].tolist(), known), 6),
                }
            )
        return rows


def nearest_training_sequence(codes: Tensor, sequences: Tensor) -> float:
    """Largest share of equal codes, 0 to 1, between codes [T, N] and a training clip's, at any alignment in time.

    The shorter of both is moved along the longer one. `sequences` is [M, T', N].
    """
    codes, sequences = codes.cpu(), sequences.cpu()
    short = min(codes.shape[0], sequences.shape[1])
    best = 0.0
    for start in range(codes.shape[0] - short + 1):
        for offset in range(sequences.shape[1] - short + 1):
            equal = codes[start : start + short] == sequences[:, offset : offset + short]
            best = max(best, float(equal.flatten(1).double().mean(1).max()))
    return best


class BCDGenerate(_CodeMethod):
    """GPT-2 continues the codes of the prompt (Sec. 4.3)."""

    def codes(self, prompt: Prompt, frames: int, seeds: Sequence[int]) -> Tensor:
        return self.generator.codes(prompt, frames, seeds)


class MarkovMotion(_CodeMethod):
    """A Markov chain continues the codes of the prompt: every group's code is drawn given its previous code."""

    name = "bcd-markov"

    def codes(self, prompt: Prompt, frames: int, seeds: Sequence[int]) -> Tensor:
        rows = []
        for known, seed in zip(prompt.codes.cpu().numpy(), seeds, strict=True):
            rng = np.random.default_rng(seed)
            row = list(known)
            while len(row) < frames:
                cumulative = self.markov.next_probabilities(row[-1]).cumsum(-1)
                draws = rng.random(len(cumulative))[:, None] * cumulative[:, -1:]
                row.append((cumulative <= draws).sum(-1).clip(max=cumulative.shape[1] - 1))
            rows.append(np.stack(row[:frames]))
        return torch.from_numpy(np.stack(rows)).to(prompt.codes.device)


class TrainingMotion(_CodeMethod):
    """The continuation of a training motion: one of those whose frame is most similar to the prompt's last frame.

    Motions that end before the clip does are continued in the same way, from their last frame.
    """

    name = "bcd-training-motion"

    def codes(self, prompt: Prompt, frames: int, seeds: Sequence[int]) -> Tensor:
        sequences = self.generator.motion.sequences
        rows = []
        for known, seed in zip(prompt.codes.cpu(), seeds, strict=True):
            rng = np.random.default_rng(seed)
            row = known
            while len(row) < frames:
                equal = (sequences[:, :-1] == row[-1]).double().mean(-1)
                best = (equal == equal.max()).nonzero()
                clip, frame = best[int(rng.integers(len(best)))].tolist()
                row = torch.cat([row, sequences[clip, frame + 1 :]])
            rows.append(row[:frames])
        return torch.stack(rows).to(prompt.codes.device)


class RepeatLast(Method):
    """The prompt, then its last frame until the end of the clip."""

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        del seed
        for pair in pairs:
            prompt, real = pair.content.load(), pair.motion.load()
            index = np.minimum(np.arange(len(real)), len(prompt) - 1)
            yield Clip(prompt.frames[index], real.fps, pair.id)
