"""`bcd-bench train sprites-judge`: train the classifier of a suite on its train characters and test it on the
others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.atomic import write_bytes_atomic, write_json_atomic
from bcd_bench.plugin.settings import change_settings
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import (
    TRACKERS,
    Limits,
    Parts,
    RunCheckpoint,
    TrackerName,
    TrainingLog,
    TrainingLoop,
    check_finite,
    checkpoints_to_resume,
    count_parameters,
)
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import resolve_device
from bcd_bench_sprites.characters import ART_ASSET, Characters, SuiteName, open_characters
from bcd_bench_sprites.classifier import HEADS, Judge, judge_clips, network_json, to_input
from bcd_bench_sprites.factors import ATTRIBUTES, MOTIONS, attributes_of_all, split

__all__ = ["PRESETS", "JudgeTrainer", "JudgeTraining", "accuracy_on_test", "augment", "train_judge"]

WHAT = "sprites-judge"
_LOG_EVERY, _SAVE_EVERY = 25, 250


@dataclass(frozen=True)
class JudgeTraining:
    """A training recipe; `--set` changes its fields."""

    suite: SuiteName
    steps: int = 1200
    batch: int = 48
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Fraction of the steps with learning-rate warm-up, followed by a cosine decay."""
    noise: float = 0.25
    """Maximum standard deviation of the pixel noise (the range is [-1, 1])."""
    blur: float = 0.8
    """Maximum strength of a 3 x 3 box blur."""
    mix: float = 0.3
    """Maximum weight of another clip blended with the labelled one."""
    seed: int = 0
    tracker: TrackerName = "none"
    """Experiment tracker in addition to log.jsonl: "tensorboard" or "trackio"."""

    def published(self) -> dict[str, Any]:
        """The settings that results depend on."""
        return {name: value for name, value in asdict(self).items() if name != "tracker"}


PRESETS: Mapping[str, JudgeTraining] = {
    "sprites": JudgeTraining("sprites"),
    "sprites-procedural": JudgeTraining("sprites-procedural"),
}


def train_judge(request: TrainRequest) -> None:
    """Train, test, and write `judge.safetensors` (float16) with `judge.json` into `request.out`.

    A step depends on the recipe and its number alone, so `--resume` continues exactly. Raises `UsageError` for invalid
    settings, for a folder that already contains a run without `--resume`, and for `--resume` in a folder without one or
    with one of other settings; `Interrupted` after Ctrl-C (resumable).
    """
    recipe = _recipe(request)
    if request.plan_only:
        print(json.dumps({**recipe.published(), "out": str(request.out), "device": request.device}, indent=1))
        return
    trainer = JudgeTrainer(recipe, open_characters(recipe.suite, request.data.get(ART_ASSET)), request)
    trainer.start(resume=request.resume)
    trainer.loop.run(Limits.of(request), trainer.train_step, trainer.save)
    trainer.finish()


class JudgeTrainer:
    """One training run in one folder."""

    def __init__(self, recipe: JudgeTraining, characters: Characters, request: TrainRequest) -> None:
        self.recipe, self.characters, self.out = recipe, characters, request.out
        self.device = resolve_device(request.device)
        torch.manual_seed(recipe.seed)
        self.judge = Judge().to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.judge.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
        log = TrainingLog(self.out, mean=False, digits=6, tracker=recipe.tracker, tracker_option="tracker")
        self.loop = TrainingLoop(
            f"train sprites-judge {recipe.suite}", recipe.steps, log, log_every=_LOG_EVERY, save_every=_SAVE_EVERY
        )
        self._train = split("train")
        self.checkpoint = RunCheckpoint(self.out, WHAT, self.loop, {"recipe": recipe.published()}, self.device)

    def start(self, *, resume: bool) -> None:
        """Resume from the folder's checkpoint, or begin."""
        self.checkpoint.start(self._parts(), resume=bool(checkpoints_to_resume(self.out, resume=resume)))

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns its loss, the sum of the cross-entropies of all heads."""
        recipe, rng = self.recipe, np.random.default_rng([self.recipe.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        subjects = rng.choice(self._train, recipe.batch)
        motions = rng.integers(0, MOTIONS, recipe.batch)
        clips = augment(to_input(self.characters.clips(subjects, motions), self.device), recipe, generator)
        logits = self.judge(clips)
        losses = [
            functional.cross_entropy(logits[head], torch.from_numpy(truth).to(self.device))
            for head, truth in _labels(subjects, motions).items()
        ]
        loss = torch.stack(losses).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.judge.parameters() if p.grad is not None])
        values = {"loss": loss.item()}
        check_finite(step, {**values, "gradient_norm": norm.item()}, rate=recipe.lr, setting="lr")
        rising = min(1.0, (step + 1) / max(1.0, recipe.warmup * recipe.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * min(rising, 0.5 * (1 + float(np.cos(np.pi * (step / recipe.steps)))))
        self.optimizer.step()
        return values

    def save(self) -> None:
        """Write checkpoint.pt atomically."""
        self.checkpoint.save(self._parts())

    def _parts(self) -> Parts:
        return {"judge": self.judge, "optimizer": self.optimizer}

    def finish(self) -> None:
        """Write the float16 weights, test these (rather than the trained ones), and write judge.json next to them."""
        judge, weights = self.judge, self.out / "judge.safetensors"
        halves = {name: value.half().cpu().contiguous() for name, value in judge.state_dict().items()}
        write_bytes_atomic(weights, safetensors.torch.save(halves))
        judge.load_state_dict({name: value.float() for name, value in halves.items()})
        judge.eval()
        clean = accuracy_on_test(judge, self.characters)
        noisy = accuracy_on_test(judge, self.characters, noise=0.1)
        write_json_atomic(
            self.out / "judge.json",
            {
                "suite": self.recipe.suite,
                "sha256": sha256_file(weights),
                "network": network_json(judge),
                "parameters": count_parameters(judge),
                "recipe": self.recipe.published(),
                "steps": self.loop.step,
                "test_clips": len(split("test")) * MOTIONS,
                "test_accuracy_percent": clean,
                "test_accuracy_percent_with_noise_0.1": noisy,
            },
        )
        accuracies = ", ".join(f"{head} {value:.2f}" for head, value in clean.items())
        print(f"test accuracy in percent after {self.loop.step} steps: {accuracies}\nwrote {weights}")


def augment(clips: Tensor, recipe: JudgeTraining, generator: torch.Generator) -> Tensor:
    """Clips [B, T, 3, 64, 64] as imperfect generators might produce them: blended with another clip, blurred, noisy.

    Each effect applies to half of the clips, with a random strength, so that clean clips remain part of the training.
    """

    def strength(largest: float) -> Tensor:
        shape = (len(clips), 1, 1, 1, 1)
        value = torch.rand(shape, generator=generator) * largest
        return (value * (torch.rand(shape, generator=generator) < 0.5)).to(clips.device)

    clips = clips.lerp(clips.roll(1, 0), strength(recipe.mix))
    blurred = functional.avg_pool2d(clips.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(clips)
    clips = clips.lerp(blurred, strength(recipe.blur))
    deviation = strength(recipe.noise)
    grainy = deviation.flatten().nonzero().flatten()
    noise = torch.randn(len(grainy), *clips.shape[1:], generator=generator).to(clips.device)
    return clips.index_add(0, grainy, deviation[grainy] * noise)


def accuracy_on_test(judge: Judge, characters: Characters, *, noise: float = 0.0) -> dict[str, float]:
    """Accuracy in percent of every head over the 2,664 test clips; `noise` is the standard deviation of Gaussian noise
    in units of [-1, 1]."""
    numbers = split("test")
    correct = dict.fromkeys(HEADS, 0)
    for start in range(0, len(numbers), 16):
        part = np.repeat(numbers[start : start + 16], MOTIONS)
        motions = np.tile(np.arange(MOTIONS), len(part) // MOTIONS)
        frames = characters.clips(part, motions)
        if noise:
            grain = np.random.default_rng([start, 1]).standard_normal(frames.shape, np.float32) * (noise * 127.5)
            frames = (frames + grain).round().clip(0, 255).astype(np.uint8)
        predictions = judge_clips(judge, frames).classes
        for head, truth in _labels(part, motions).items():
            correct[head] += int((predictions[head] == truth).sum())
    return {head: 100 * count / (len(numbers) * MOTIONS) for head, count in correct.items()}


def _labels(characters: npt.NDArray[np.int64], motions: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
    values = attributes_of_all(characters)
    return {"motion": motions, **{name: values[:, number] for number, name in enumerate(ATTRIBUTES)}}


def _recipe(request: TrainRequest) -> JudgeTraining:
    recipe = change_settings(PRESETS[request.preset], request.overrides, owner="sprites-judge", fixed=("suite",))
    if request.seed is not None:
        recipe = replace(recipe, seed=request.seed)
    if min(recipe.steps, recipe.batch) < 1 or recipe.lr <= 0:
        raise UsageError("steps, batch and lr of sprites-judge must be positive")
    if recipe.tracker not in TRACKERS:
        raise UsageError(f"--set tracker={recipe.tracker}: must be one of {', '.join(TRACKERS)}")
    return recipe
