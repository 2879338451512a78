"""`bcd-bench train cdsvae`: the loop, its checkpoint, log and samples.

Every random number of a step comes from (seed, step), so a run that was stopped continues exactly as if it had not
been.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bcd_bench.atomic import append_jsonl, atomic_path, write_json_atomic
from bcd_bench.devices import fast_bf16, keep_freed_memory, resolve_device
from bcd_bench.errors import BcdBenchError, UsageError
from bcd_bench.progress import open_progress
from bcd_bench.specs import TrainingClips, TrainRequest
from bcd_bench.stopping import stopping
from bcd_bench.training import (
    forget_after,
    open_training_clips,
    save_tensors,
    say_unfinished,
    writing_checkpoint,
)
from bcd_bench_baselines import __version__
from bcd_bench_baselines.cdsvae.model import CDSVAE, save_model, to_frames, to_unit
from bcd_bench_baselines.cdsvae.objective import Losses, training_loss
from bcd_bench_baselines.cdsvae.presets import Preset, resolve_preset

__all__ = ["Trainer", "train"]

CHECKPOINT, WEIGHTS, LOG, SAMPLES = "checkpoint.safetensors", "model.safetensors", "log.jsonl", "samples.png"
COLUMNS = (*(field.name for field in fields(Losses)), "gradient_norm")


def train(request: TrainRequest) -> None:
    """Train C-DSVAE as `request` says. Writes model.safetensors, config.json, log.jsonl, samples.png and a checkpoint.

    Raises `UsageError` for settings that do not exist, a device that is not there, or a folder that does not fit.
    """
    overrides = dict(request.overrides)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    trainer = Trainer(preset, open_training_clips(preset.train.suite, request), request.out, request.device)
    if request.plan_only:
        print(trainer.plan())
        return
    trainer.start(resume=request.resume)
    trainer.run(max_steps=request.max_steps, max_minutes=request.max_minutes)


class Trainer:
    """One training run in one folder."""

    def __init__(self, preset: Preset, clips: TrainingClips, out: Path, device: str) -> None:
        self.preset, self.clips, self.out = preset, clips, out
        self.device = resolve_device(device)
        keep_freed_memory(self.device.type)
        self.precision = preset.train.precision
        if self.precision == "auto":
            self.precision = "bf16" if fast_bf16(self.device.type) else "fp32"
        torch.manual_seed(preset.train.seed)
        self.model = CDSVAE(preset.model).to(self.device).train()
        self.model.bf16 = self.precision == "bf16"
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.average.bf16 = False
        self.optimizer = torch.optim.Adam(self.model.parameters(), preset.train.lr)
        self.done, self.seconds = 0, 0.0
        self.window: list[list[float]] = []

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Prepare the folder: continue from its checkpoint, or begin. Raises `UsageError` where that does not fit."""
        path = self.out / CHECKPOINT
        if resume:
            if not path.exists():
                raise UsageError(f"{self.out}: there is no checkpoint to resume", hint="start without --resume")
            self._load(path)
            return
        if path.exists():
            raise UsageError(
                f"{self.out}: holds a training run already", hint="add --resume to continue it, or give another --out"
            )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / LOG).write_text("")
        except OSError as error:
            raise UsageError(f"{self.out}: cannot be written ({error.strerror})", hint="give another --out") from None
        write_json_atomic(self.out / "config.json", self._description())

    def save(self) -> None:
        """Write the checkpoint, the weights and a sheet of swaps, each whole or not at all."""
        tensors = {f"model.{name}": value.detach().cpu() for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value.cpu() for name, value in self.average.state_dict().items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value.cpu() for name, value in slots.items()}
        state = {"step": self.done, "seconds": self.seconds, "window": self.window, "description": self._description()}
        whole = {name: value.contiguous() for name, value in tensors.items()}
        with writing_checkpoint(self.out, self.done):
            save_tensors(self.out / CHECKPOINT, whole, {"state": json.dumps(state)})
            save_model(self.out / WEIGHTS, self.average, self.card())
            self._draw_samples()

    def _load(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt", str(self.device)) as file:
                state = json.loads(cast("dict[str, str]", file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UsageError(
                f"{path}: cannot be read ({str(error).splitlines()[0]})", hint="train again with another --out"
            ) from None
        made, asked = state["description"], json.loads(json.dumps(self._description()))
        for part in ("preset", "precision"):
            if made[part] != asked[part]:
                raise UsageError(
                    f"{path}: was made with another {part}: {_first_difference(made[part], asked[part])}",
                    hint="resume with the settings it was started with (see config.json beside it)",
                )
        for prefix, module in (("model.", self.model), ("average.", self.average)):
            module.load_state_dict(
                {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
            )
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, slot = name.split(".")
                slots.setdefault(int(number), {})[slot] = value
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.done, self.seconds, self.window = state["step"], state["seconds"], state["window"]
        forget_after(self.out / LOG, self.done)

    def _description(self) -> dict[str, Any]:
        return {
            "what": "C-DSVAE training run",
            "version": __version__,
            "preset": self.preset.model_dump(mode="json"),
            "precision": self.precision,
            "device": self.device.type,
            "torch": str(torch.__version__),
        }

    def card(self) -> dict[str, Any]:
        """What the weights were trained on, how, and for how long; travels in the weight file."""
        return {
            "suite": self.preset.train.suite,
            "step": self.done,
            "clips": self.done * self.preset.train.batch,
            "hours": round(self.seconds / 3600, 3),
            "device": self.device.type,
            "precision": self.precision,
            "objective": self.preset.objective.model_dump(mode="json"),
            "train": self.preset.train.model_dump(mode="json"),
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, *, max_steps: int | None = None, max_minutes: float | None = None) -> None:
        """Train to the preset's last step, or to the limits. Interrupted or limited runs leave a checkpoint."""
        train = self.preset.train
        last = min(train.steps, max_steps or train.steps)
        began = time.monotonic()
        name = f"train cdsvae {train.suite}"
        with (
            stopping(insist=True) as stop,
            open_progress().task(name, total=last, done=self.done, unit="steps") as task,
        ):
            while self.done < last:
                tick = time.monotonic()
                self.window.append(self.step())
                self.seconds += time.monotonic() - tick
                task.advance()
                if self.done % train.log_every == 0 or self.done == last:
                    task.message(self._log())
                if self.done % train.checkpoint_every == 0:
                    self.save()
                if stop() or (max_minutes is not None and time.monotonic() - began >= 60 * max_minutes):
                    break
        self.save()
        say_unfinished(self.done, last, stopped=stop(), limit=f"--max-minutes {max_minutes or 0:g} is over")
        print(f"weights: {self.out / WEIGHTS}")

    def step(self) -> list[float]:
        """One optimiser step; returns the values of COLUMNS."""
        train = self.preset.train
        generator = _generator(train.seed, self.done)
        indices = torch.randint(len(self.clips), (train.batch,), generator=generator).tolist()
        batch = to_unit(torch.from_numpy(self.clips.clips(indices)).to(self.device))
        losses = training_loss(self.model, batch, self.preset.objective, total=len(self.clips), generator=generator)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clip)
        values = [float(value) for value in (*_values(losses), norm.detach())]
        if not all(math.isfinite(value) for value in values):
            raise BcdBenchError(
                f"step {self.done}: the loss is not finite (loss {values[0]:g}, gradient norm {values[-1]:g}); "
                "nothing was updated",
                hint=f"train again with a lower rate: --set train.lr={train.lr / 2:g}",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = train.lr * min(1.0, (self.done + 1) / (train.warmup + 1))
        self.optimizer.step()
        self._average(self.done)
        self.done += 1
        return values

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Exponential moving average of the weights, with a short memory at the start."""
        decay = min(self.preset.train.ema, step / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in self.model.parameters()], 1 - decay)

    def _log(self) -> str:
        means = np.mean(self.window, axis=0).tolist()
        self.window = []
        line = {"step": self.done, **{name: round(value, 5) for name, value in zip(COLUMNS, means, strict=True)}}
        pixels = 3 * math.prod(self.preset.model.frame_size) * self._length()
        line["psnr"] = round(10 * math.log10(pixels / line["reconstruction"]), 3)
        append_jsonl(self.out / LOG, [line])
        rate = self.preset.train.batch * self.done / max(self.seconds, 1e-9)
        said = ", ".join(f"{name} {line[name]:.3g}" for name in COLUMNS[2:])
        return f"step {self.done}: loss {line['total']:.1f}, {line['psnr']:.2f} dB, {said}, {rate:.1f} clips/s"

    def _length(self) -> int:
        return int(self.clips.clips([0]).shape[1])

    @torch.no_grad()
    def _draw_samples(self) -> None:
        """Four swaps of training clips: rows of content, motion, result, and a line between blocks."""
        from PIL import Image

        generator = _generator(self.preset.train.seed, -1)
        indices = torch.randint(len(self.clips), (8,), generator=generator).tolist()
        clips = torch.from_numpy(self.clips.clips(indices)).to(self.device)
        content, motion = clips[:4], clips[4:]
        static = self.average.posterior_f(self.average.features(to_unit(content))).mean
        dynamic = self.average.posterior_z(self.average.features(to_unit(motion))).mean
        swapped = to_frames(self.average.decode(static, dynamic))
        rows = []
        for block in zip(content, motion, swapped, strict=True):
            rows += [torch.cat(list(clip), 1) for clip in block]
            rows.append(torch.full((4, rows[-1].shape[1], 3), 128, dtype=torch.uint8, device=self.device))
        with atomic_path(self.out / SAMPLES) as temporary:
            Image.fromarray(torch.cat(rows).cpu().numpy()).save(temporary, format="PNG")

    # ---- what would be done --------------------------------------------------------------------------------------
    def plan(self) -> str:
        """Parameters, clips and an estimate of the time from real steps on this device; leaves nothing behind."""
        train = self.preset.train
        times = []
        for _ in range(3):
            tick = time.monotonic()
            self.step()
            times.append(time.monotonic() - tick)
        seconds = min(times[1:])
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in self.model.named_children()}
        clips = train.steps * train.batch
        return "\n".join(
            [
                f"suite: {train.suite} ({len(self.clips)} training clips)",
                f"parameters: {sum(parts.values()) / 1e6:.2f} M "
                f"({', '.join(f'{name} {count / 1e6:.2f} M' for name, count in parts.items())})",
                f"work: {train.steps} steps of {train.batch} clips = {clips} clips "
                f"= {clips / len(self.clips):.1f} epochs",
                f"speed here ({self.device.type}, {self.precision}): {seconds:.2f} s a step, "
                f"{train.batch / seconds:.1f} clips/s, {seconds * train.steps / 3600:.2f} h in all",
            ]
        )


def _values(losses: Losses) -> list[Tensor]:
    """The values of `losses` in the order of its fields, without gradients."""
    return [getattr(losses, field.name).detach() for field in fields(losses)]


def _generator(seed: int, step: int) -> torch.Generator:
    digest = hashlib.sha256(f"cdsvae-train/{seed}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    return f"{where} was {old!r}, is {new!r}" if where else f"{old!r} is not {new!r}"
