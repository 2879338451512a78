"""`bcd-bench train face-landmarks`: renders heads, and trains the network of dense landmarks on them, and nothing else.

Every random number of a step comes from (seed, step, example), so a run that was stopped continues exactly.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bcd_bench.atomic import append_jsonl, write_bytes_atomic, write_json_atomic, write_text_atomic
from bcd_bench.devices import fast_bf16, keep_freed_memory, resolve_device
from bcd_bench.errors import BcdBenchError, UsageError
from bcd_bench.identity import sha256_file
from bcd_bench.progress import open_progress
from bcd_bench.specs import TrainRequest
from bcd_bench.stopping import stopping
from bcd_bench.training import forget_after, save_torch, say_unfinished, writing_checkpoint
from bcd_bench_faces.dense.augment import Example, example
from bcd_bench_faces.dense.crops import square_around, take
from bcd_bench_faces.dense.displacements import Displacements
from bcd_bench_faces.dense.network import DenseNet, NetworkConfig, Seen, load_network, network_bytes, to_input
from bcd_bench_faces.dense.optimizer import Optimizer
from bcd_bench_faces.dense.points import dense_points
from bcd_bench_faces.dense.recipe import Recipe, recipe_of
from bcd_bench_faces.dense.renders import CHECKS, RenderPlan, Renders, coefficient_count

__all__ = ["Trainer", "likelihood", "train"]

WEIGHTS: Final = "face-landmarks.safetensors"
STATE: Final = "checkpoint.pt"
LOG: Final = "log.jsonl"
CHECKED: Final = 64
CLIP: Final = 5.0
"""Largest norm of a gradient."""


def train(request: TrainRequest) -> None:
    """Train as `request` says. Writes face-landmarks.safetensors (float16), config.json, log.jsonl, checkpoint.pt and
    the folder renders. Raises `UsageError` for settings that do not exist or a folder of another run."""
    recipe = recipe_of(request)
    if request.plan_only:
        print(_plan(recipe, request))
        return
    trainer = Trainer(recipe, request.out, request.device)
    trainer.start(resume=request.resume)
    trainer.run(request.max_steps, request.max_minutes)


def likelihood(seen: Seen, points: Tensor, face: Tensor, beta: float) -> Tensor:
    """Gaussian negative log-likelihood of the points (Wood et al., ECCV 2022, eq. 1) over the examples with a face.

    A point counts by its sigma to the power of 2 beta, which keeps what is hard to see from being given up early.
    """
    squares = (seen.points - points).square().sum(dim=2)
    loss = squares / 2 * (-2 * seen.log_sigma).exp() + 2 * seen.log_sigma
    weighted = loss * (2 * beta * seen.log_sigma.detach()).exp()
    return (weighted.mean(dim=1) * face).sum() / face.sum().clamp(min=1)


class Wanted(NamedTuple):
    """What is true of B crops of a step."""

    points: Tensor
    """float32[B, N, 2] in pixels of the crop"""
    face: Tensor
    """float32[B]: 1 where there is one, else 0"""
    codes: Tensor
    """float32[B, K + E]: its identity and expression, as `Displacements` has them"""


class Trainer:
    """One training run in one folder."""

    def __init__(self, recipe: Recipe, out: Path, device: str) -> None:
        self.recipe, self.out = recipe, out
        self.device = resolve_device(device)
        keep_freed_memory(self.device.type)
        torch.manual_seed(recipe.seed)
        self.points = dense_points(recipe.points)
        config = network_config(recipe)
        self.network = DenseNet(config).to(self.device, memory_format=torch.channels_last).train()
        self.average = DenseNet(config).to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.optimizer = Optimizer(self.network, recipe)
        self.precision = recipe.precision
        if recipe.precision == "auto":
            self.precision = "bf16" if fast_bf16(self.device.type) else "fp32"
        self.step_count, self.seconds = 0, 0.0
        self.earlier: dict[str, Any] | None = None
        """The file that training started from: its hash and its card."""
        self._pool = ThreadPoolExecutor(recipe.workers)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Continue from the folder's checkpoint, or begin. Raises `UsageError` where that does not fit."""
        state = self.out / STATE
        if resume and not state.exists() and not (self.out / "config.json").exists():
            raise UsageError(f"{self.out}: there is no training run to resume", hint="start without --resume")
        if state.exists() and not resume:
            raise UsageError(
                f"{self.out}: holds a training run already", hint="add --resume to continue it, or give another --out"
            )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.out / "config.json", self._description())
        except OSError as error:
            raise UsageError(f"{self.out}: cannot be written ({error.strerror})", hint="give another --out") from None
        recipe = self.recipe
        plan = RenderPlan(recipe.renders, recipe.render_side, recipe.points)
        self.renders = Renders(self.out / "renders", plan, recipe.workers)
        checks = RenderPlan(CHECKED, recipe.render_side, recipe.points, CHECKS)
        self.checks = Renders(self.out / "renders" / "checks", checks, recipe.workers)
        with stopping(insist=True) as stop, stop.into():
            self.renders.need(recipe.first)
            self.checks.need(CHECKED)
        some = np.array(self.renders.coefficients[: recipe.first])
        self.displacements = Displacements(self.points, some)
        if state.exists():
            self._load(state)
            return
        write_text_atomic(self.out / LOG, "")
        if self.recipe.init:
            self._start_from(Path(self.recipe.init))
        else:
            self.network.mean.copy_(self._mean_face())
            self.network.decoder.copy_(torch.from_numpy(self.displacements.decoder.astype(np.float32)))
        self.average.load_state_dict(self.network.state_dict())

    def _start_from(self, path: Path) -> None:
        """Take the weights of an earlier training; its card travels on in ours."""
        earlier, vertices, card = load_network(path)
        if earlier.config != self.network.config or not np.array_equal(vertices, self.points.vertices):
            raise UsageError(
                f"{path}: is a network of another size", hint="set side, points, widths, blocks and hidden"
            )
        self.network.load_state_dict(earlier.state_dict())
        self.earlier = {"sha256": sha256_file(path), **card}

    def _mean_face(self) -> Tensor:
        """float32[N, 2]: where the points are on average, in shares of the square around them."""
        some = np.array(self.renders.points[: min(512, self.recipe.first)])
        squares = [square_around(one) for one in some]
        shares = [
            (one - (square.x, square.y)) / square.side + 0.5 for one, square in zip(some, squares, strict=True)
        ]  # fmt: skip
        mean = np.mean(shares, axis=0)
        mirrored = mean[self.points.mirror] * (-1, 1) + (1, 0)
        return torch.from_numpy(((mean + mirrored) / 2).astype(np.float32))

    def _description(self) -> dict[str, Any]:
        return {
            "what": "dense face landmarks",
            "recipe": self.recipe.identity(),
            "network": json.loads(json.dumps(asdict(self.network.config))),
            "precision": self.precision,
            "device": self.device.type,
            "torch": str(torch.__version__),
        }

    def _load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # noqa: BLE001 (torch raises many kinds for a damaged file)
            raise UsageError(
                f"{path}: cannot be read ({str(error).splitlines()[0]})", hint="train again with another --out"
            ) from None
        wanted = self._description()
        for part in ("recipe", "network", "precision"):
            if state["description"][part] != wanted[part]:
                raise UsageError(
                    f"{path}: was made with another {part}", hint="resume with the settings it was started with"
                )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_count, self.seconds, self.earlier = state["step"], state["seconds"], state["earlier"]
        forget_after(self.out / LOG, self.step_count)

    def save(self) -> None:
        """Write checkpoint.pt and the weights, each whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_count,
            "seconds": self.seconds,
            "earlier": self.earlier,
            "description": self._description(),
        }
        with writing_checkpoint(self.out, self.step_count):
            save_torch(self.out / STATE, state)
            write_bytes_atomic(self.out / WEIGHTS, network_bytes(self.average, self.points.vertices, self.card()))

    def card(self) -> dict[str, Any]:
        """What the weights come from; travels in the file."""
        return {
            "steps": self.step_count,
            "examples": self.step_count * self.recipe.batch,
            "renders": self._available(self.step_count - 1),
            "hours": round(self.seconds / 3600, 3),
            "precision": self.precision,
            "device": self.device.type,
            "recipe": self.recipe.identity(),
            "started_from": self.earlier,
            "renders_made_by": RenderPlan(
                self.recipe.renders, self.recipe.render_side, self.recipe.points
            ).description(),
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, max_steps: int | None = None, max_minutes: float | None = None) -> None:
        """Train to the last step, or to the limits; limited and interrupted runs leave a checkpoint."""
        recipe = self.recipe
        last = min(recipe.steps, max_steps or recipe.steps)
        began = time.monotonic()
        with (
            stopping(insist=True) as stop,
            open_progress().task("train face-landmarks", total=last, done=self.step_count, unit="steps") as task,
        ):
            while self.step_count < last:
                tick = time.monotonic()
                if self.renders.ready < self._available(self.step_count):
                    with stop.into():
                        self.renders.need(self._available(self.step_count))
                values = self.step()
                self.seconds += time.monotonic() - tick
                step = self.step_count
                task.advance()
                if step % recipe.check_every == 0 or step == last:
                    values |= self.check()
                if step % recipe.log_every == 0 or step % recipe.check_every == 0 or step == last:
                    append_jsonl(self.out / LOG, [{"step": step, **{k: round(v, 6) for k, v in values.items()}}])
                    task.message(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
                if step % recipe.save_every == 0:
                    self.save()
                if stop() or (max_minutes is not None and (time.monotonic() - began) / 60 >= max_minutes):
                    break
        self.save()
        say_unfinished(self.step_count, last, stopped=stop(), limit=f"--max-minutes {max_minutes or 0:g} is over")
        print(f"weights: {self.out / WEIGHTS} (sha256 {sha256_file(self.out / WEIGHTS)})")

    def step(self) -> dict[str, float]:
        """One step of the optimizer; the loss and its parts."""
        recipe, step = self.recipe, self.step_count
        rising = min(1.0, (step + 1) / max(1, recipe.warmup))
        factor = rising * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        crops, wanted = self._batch(step)
        points, face = wanted.points, wanted.face
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            seen = self.network(crops)
        own = likelihood(seen, points, face, recipe.beta)
        cross = functional.binary_cross_entropy_with_logits(seen.face, face)
        apart = (seen.codes - wanted.codes).square().sum(dim=1)
        shape = (apart * face).sum() / face.sum().clamp(min=1)
        loss = own + recipe.face_weight * cross + recipe.shape_weight * shape
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        values = {
            "loss": loss.item(),
            "face": cross.item(),
            "shape": shape.item(),
            "norm": norm.item(),
            "lr": recipe.lr * factor,
        }
        if not all(np.isfinite(value) for value in values.values()):
            raise BcdBenchError(
                f"step {step}: the loss is not finite; nothing was updated",
                hint=f"resume from the last checkpoint in {self.out}, or start anew with a lower --set lr",
            )
        self.optimizer.step(factor)
        self.step_count += 1
        self._follow()
        return values

    def _available(self, step: int) -> int:
        """How many renders a step draws from."""
        recipe = self.recipe
        return min(recipe.renders, recipe.first + recipe.growth * max(step, 0))

    def _batch(self, step: int) -> tuple[Tensor, Wanted]:
        """The crops of a step, and what is to be said of them."""
        rng = np.random.default_rng([self.recipe.seed, step])
        chosen = rng.integers(0, self._available(step), (self.recipe.batch, 2))

        def prepare(at: int) -> Example:
            mine, other = chosen[at]
            return example(
                self.renders.pictures[mine], np.array(self.renders.points[mine]), self.points.mirror,
                self.renders.pictures[other], self.recipe.side, [self.recipe.seed, step, at], self.recipe.bend,
            )  # fmt: skip

        made = list(self._pool.map(prepare, range(self.recipe.batch)))
        coefficients = np.stack([self.renders.coefficients[mine] for mine, _ in chosen])
        codes = self.displacements.codes(coefficients, np.array([one.mirrored for one in made]))
        wanted = Wanted(
            torch.from_numpy(np.stack([one.points for one in made]).astype(np.float32)),
            torch.tensor([float(one.face) for one in made]),
            torch.from_numpy(codes.astype(np.float32)),
        )
        crops = to_input(np.stack([one.crop for one in made]))
        return crops.to(self.device), Wanted(*(part.to(self.device) for part in wanted))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the network; at first it follows faster."""
        decay = min(self.recipe.average, (1 + self.step_count) / (10 + self.step_count))
        for mine, theirs in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """The average's error on renders that are not trained on, cropped as a second look crops them.

        `error` is the mean distance of points in per cent of the longer side of the box around the face; `surprise`
        the root mean square of distances in predicted sigmas (1 where sigmas are right).
        """
        errors, surprises = [], []
        for start in range(0, CHECKED, 32):
            crops, wanted = [], []
            for picture, points in zip(
                self.checks.pictures[start : start + 32], self.checks.points[start : start + 32], strict=True
            ):
                square = square_around(points)
                corner = np.array([square.x, square.y]) - square.side / 2
                crops.append(take(picture, square, self.recipe.side))
                wanted.append((points - corner) * (self.recipe.side / square.side))
            seen = self.average(to_input(np.stack(crops)).to(self.device))
            truth = torch.from_numpy(np.stack(wanted)).to(self.device)
            squares = (seen.points - truth).square().sum(dim=2)
            boxes = (truth.amax(dim=1) - truth.amin(dim=1)).amax(dim=1)
            errors.append(100 * squares.sqrt().mean(dim=1) / boxes)
            surprises.append((squares / 2 * (-2 * seen.log_sigma).exp()).mean(dim=1))
        return {"error": torch.cat(errors).mean().item(), "surprise": torch.cat(surprises).mean().sqrt().item()}


def network_config(recipe: Recipe) -> NetworkConfig:
    """The sizes of the network that a recipe trains."""
    return NetworkConfig(
        recipe.side, len(dense_points(recipe.points).vertices), cast("Any", recipe.network_widths),
        cast("Any", recipe.network_blocks), recipe.hidden, coefficient_count(),
    )  # fmt: skip


def _plan(recipe: Recipe, request: TrainRequest) -> str:
    config = network_config(recipe)
    count = sum(value.numel() for value in DenseNet(config).parameters())
    size = recipe.renders * (recipe.render_side**2 * 3 + config.points * 8)
    return json.dumps(
        {
            **asdict(recipe), "parameters": count, "weights_megabytes": round(2 * count / 1e6, 2),
            "renders_gigabytes": round(size / 1e9, 2), "out": str(request.out), "device": request.device,
        },
        indent=1,
    )  # fmt: skip
