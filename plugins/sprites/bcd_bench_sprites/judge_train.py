"""`bcd-bench train sprites-judge`: trains the judge of one suite on its train characters and tests it on the others."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from bcd_bench.atomic import append_jsonl, write_bytes_atomic, write_json_atomic
from bcd_bench.devices import resolve_device
from bcd_bench.errors import Interrupted, UsageError
from bcd_bench.identity import hash_json, sha256_file
from bcd_bench.progress import Task, open_progress
from bcd_bench.specs import TrainRequest
from bcd_bench.training import forget_after, save_tensors, writing_checkpoint
from bcd_bench_sprites.characters import ART_ASSET, Characters, SuiteName, open_characters
from bcd_bench_sprites.factors import ATTRIBUTES, MOTIONS, attributes_of_all, split
from bcd_bench_sprites.judge import HEADS, Judge, judge_clips, network_json, to_input

__all__ = ["PRESETS", "JudgeTraining", "accuracy_on_test", "augment", "train_judge"]

LOG = "log.jsonl"
_LOG_EVERY, _SAVE_EVERY = 25, 250


@dataclass(frozen=True)
class JudgeTraining:
    """A training recipe; `--set` changes fields by name."""

    suite: SuiteName
    steps: int = 1200
    batch: int = 48
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises; a cosine takes it down after that."""
    noise: float = 0.25
    """Largest standard deviation of the pixel noise (the range is [-1, 1])."""
    blur: float = 0.8
    """Largest share of a 3 x 3 box blur."""
    mix: float = 0.3
    """Largest share of another clip laid over the labelled one."""
    seed: int = 0


PRESETS: Mapping[str, JudgeTraining] = {
    "sprites": JudgeTraining("sprites"),
    "sprites-procedural": JudgeTraining("sprites-procedural"),
}


def train_judge(request: TrainRequest) -> None:
    """Train, test, and write `judge.safetensors` (float16) with `judge.json` into `request.out`.

    A finished step depends on the recipe and its number alone, so `--resume` continues exactly. Raises `UsageError`
    for settings that do not exist or a folder of another recipe, `Interrupted` after Ctrl-C (resumable).
    """
    recipe = _recipe(request)
    if request.plan_only:
        print(json.dumps({**asdict(recipe), "out": str(request.out), "device": request.device}, indent=1))
        return
    art = request.data.get(ART_ASSET)
    characters = open_characters(recipe.suite, art)
    torch.manual_seed(recipe.seed)
    device = resolve_device(request.device)
    judge = Judge().to(device).train()
    optimizer = torch.optim.AdamW(judge.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    out = _open_folder(request.out)
    state, identity = out / "state.safetensors", hash_json(asdict(recipe))
    if state.exists() and not request.resume:
        raise UsageError(
            f"{out}: holds a training run already", hint="add --resume to continue it, or give another --out"
        )
    if request.resume and not state.exists():
        raise UsageError(f"{out}: there is no checkpoint to resume", hint="start without --resume")
    done = _restore(state, judge, optimizer, identity) if request.resume else 0
    forget_after(out / LOG, done)
    last = min(recipe.steps, request.max_steps or recipe.steps)
    deadline = time.monotonic() + 60 * request.max_minutes if request.max_minutes else float("inf")
    train = split("train")
    with open_progress().task(f"train sprites-judge {recipe.suite}", total=last, done=done, unit="steps") as task:
        try:
            while done < last and time.monotonic() < deadline:
                loss = _step(judge, optimizer, recipe, characters, train, done, device)
                done += 1
                task.advance()
                if done % _LOG_EVERY == 0 or done == last:
                    _log(out, task, done, loss)
                if done % _SAVE_EVERY == 0:
                    _save(state, judge, optimizer, done, identity)
        except KeyboardInterrupt as stop:
            _save(state, judge, optimizer, done, identity)
            raise Interrupted(f"stopped after step {done} of {last}", hint="the same command with --resume") from stop
    _save(state, judge, optimizer, done, identity)
    _finish(out, judge, recipe, characters, done)


def augment(clips: Tensor, recipe: JudgeTraining, generator: torch.Generator) -> Tensor:
    """Clips [B, T, 3, 64, 64] as imperfect generators show them: another clip faintly on top, blurred, noisy.

    Each happens to half of the clips, in its own strength, so that clean clips stay part of the training.
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
    """Accuracy in percent of every head over the 2,664 test clips; `noise` is Gaussian, its deviation in [-1, 1]."""
    numbers = split("test")
    right = dict.fromkeys(HEADS, 0)
    for start in range(0, len(numbers), 16):
        part = np.repeat(numbers[start : start + 16], MOTIONS)
        motions = np.tile(np.arange(MOTIONS), len(part) // MOTIONS)
        frames = characters.clips(part, motions)
        if noise:
            grain = np.random.default_rng([start, 1]).standard_normal(frames.shape, np.float32) * (noise * 127.5)
            frames = (frames + grain).round().clip(0, 255).astype(np.uint8)
        found = judge_clips(judge, frames).classes
        for head, truth in _labels(part, motions).items():
            right[head] += int((found[head] == truth).sum())
    return {head: 100 * count / (len(numbers) * MOTIONS) for head, count in right.items()}


def _labels(characters: npt.NDArray[np.int64], motions: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
    values = attributes_of_all(characters)
    return {"motion": motions, **{name: values[:, number] for number, name in enumerate(ATTRIBUTES)}}


def _step(
    judge: Judge,
    optimizer: torch.optim.Optimizer,
    recipe: JudgeTraining,
    characters: Characters,
    train: npt.NDArray[np.int64],
    step: int,
    device: torch.device,
) -> float:
    rng = np.random.default_rng([recipe.seed, step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    chosen = rng.choice(train, recipe.batch)
    motions = rng.integers(0, MOTIONS, recipe.batch)
    clips = augment(to_input(characters.clips(chosen, motions), device), recipe, generator)
    logits = judge(clips)
    losses = [
        functional.cross_entropy(logits[head], torch.from_numpy(truth).to(device))
        for head, truth in _labels(chosen, motions).items()
    ]
    loss = torch.stack(losses).sum()
    position = step / recipe.steps
    rising = min(1.0, (step + 1) / max(1.0, recipe.warmup * recipe.steps))
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * min(rising, 0.5 * (1 + float(np.cos(np.pi * position))))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    value = float(loss.detach())
    if not np.isfinite(value):
        raise UsageError(
            f"the loss is {value} at step {step + 1}: training diverged", hint="lower the rate: --set lr=0.001"
        )
    return value


def _finish(out: Path, judge: Judge, recipe: JudgeTraining, characters: Characters, steps: int) -> None:
    """Write the float16 weights, test what they hold (not what was trained), and write the config beside them."""
    weights = out / "judge.safetensors"
    halves = {name: value.half().cpu().contiguous() for name, value in judge.state_dict().items()}
    write_bytes_atomic(weights, safetensors.torch.save(halves))
    judge.load_state_dict({name: value.float() for name, value in halves.items()})
    judge.eval()
    clean, noisy = accuracy_on_test(judge, characters), accuracy_on_test(judge, characters, noise=0.1)
    write_json_atomic(
        out / "judge.json",
        {
            "suite": recipe.suite,
            "sha256": sha256_file(weights),
            "network": network_json(judge),
            "parameters": sum(value.numel() for value in judge.parameters()),
            "recipe": asdict(recipe),
            "steps": steps,
            "test_clips": len(split("test")) * MOTIONS,
            "test_accuracy_percent": clean,
            "test_accuracy_percent_with_noise_0.1": noisy,
        },
    )
    said = ", ".join(f"{head} {value:.2f}" for head, value in clean.items())
    print(f"test accuracy in percent after {steps} steps: {said}\nwrote {weights}")


def _recipe(request: TrainRequest) -> JudgeTraining:
    from bcd_bench.plugins import nearest

    recipe = PRESETS[request.preset]
    changed: dict[str, Any] = {}
    known = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe) if field.name != "suite"}
    for name, value in request.overrides.items():
        if name not in known:
            raise UsageError(f"sprites-judge has no setting {name!r}; {nearest(name, list(known))}")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (known[name] is int and value != int(value))
        ):
            raise UsageError(f"--set {name}={value}: must be {'a whole number' if known[name] is int else 'a number'}")
        changed[name] = known[name](value)
    if request.seed is not None:
        changed["seed"] = request.seed
    recipe = replace(recipe, **changed)
    if min(recipe.steps, recipe.batch) < 1 or recipe.lr <= 0:
        raise UsageError("steps, batch and lr of sprites-judge must be positive")
    return recipe


def _open_folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}") from error
    return out


def _log(out: Path, task: Task, step: int, loss: float) -> None:
    append_jsonl(out / LOG, [{"step": step, "loss": round(loss, 6)}])
    task.message(f"step {step}: loss {loss:.4f}")


def _save(path: Path, judge: Judge, optimizer: torch.optim.Optimizer, step: int, identity: str) -> None:
    tensors = {f"judge.{name}": value.cpu().contiguous() for name, value in judge.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value.cpu().contiguous() for name, value in slots.items()}
    with writing_checkpoint(path.parent, step):
        save_tensors(path, tensors, {"step": str(step), "recipe": identity})


def _restore(path: Path, judge: Judge, optimizer: torch.optim.Optimizer, identity: str) -> int:
    """Put a saved state back and return how many steps it has seen."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = cast("dict[str, str]", file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError as error:
        raise UsageError(f"{path}: not a saved training state ({error})", hint="train without --resume") from error
    if metadata.get("recipe") != identity:
        raise UsageError(f"{path}: was made with other settings", hint="train into another folder with --out")
    judge.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("judge.")})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, slot = name.split(".")
            slots.setdefault(int(number), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])
