"""`bcd-bench train dense-landmarks`: render heads and train the dense landmark network on them alone.

Every random number of a step comes from (seed, step, example), so an interrupted run resumes exactly.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.atomic import write_bytes_atomic
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import (
    EMA,
    Every,
    Limits,
    Parts,
    RunCheckpoint,
    TrainingLog,
    TrainingLoop,
    check_finite,
    checkpoints_to_resume,
    count_parameters,
    resolve_precision,
)
from bcd_bench.types.errors import Interrupted, UsageError
from bcd_bench.util.devices import keep_freed_memory, resolve_device
from bcd_bench.util.interrupts import stopping
from bcd_bench_faces.dense_landmarks.batches import Batches, render_plan
from bcd_bench_faces.dense_landmarks.config import Recipe, recipe_of
from bcd_bench_faces.dense_landmarks.network import DenseNet, NetworkConfig, load_network, network_bytes
from bcd_bench_faces.dense_landmarks.objective import training_loss
from bcd_bench_faces.dense_landmarks.optimizer import Optimizer
from bcd_bench_faces.dense_landmarks.points import dense_points
from bcd_bench_faces.dense_landmarks.renders import coefficient_count

__all__ = ["Trainer", "train"]

WHAT: Final = "dense face landmarks"
WEIGHTS: Final = "dense-landmarks.safetensors"
CONFIG: Final = "config.json"
CLIP: Final = 5.0
"""Maximum norm of the gradient."""


def train(request: TrainRequest) -> None:
    """Train as requested. Writes dense-landmarks.safetensors (float16), config.json, log.jsonl, checkpoint.pt and the
    folder renders. Raises `UsageError` for invalid settings or a folder of another run."""
    recipe = recipe_of(request)
    if request.plan_only:
        print(_plan(recipe, request))
        return
    trainer = Trainer(recipe, request.out, request.device)
    trainer.start(resume=request.resume)
    trainer.run(Limits.of(request))


class Origin:
    """The weights that training started from: their hash and card, or None."""

    def __init__(self) -> None:
        self.card: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"card": self.card}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.card = state["card"]


class Trainer:
    """One training run in one folder."""

    def __init__(self, recipe: Recipe, out: Path, device: str) -> None:
        self.recipe, self.out = recipe, out
        self.device = resolve_device(device)
        keep_freed_memory(self.device.type)
        torch.manual_seed(recipe.seed)
        self.points = dense_points(recipe.points)
        network = DenseNet(network_config(recipe))
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.ema = EMA(self.network, recipe.average, ramp=(2, 11), buffers="average")
        self.optimizer = Optimizer(self.network, recipe)
        self.precision = resolve_precision(recipe.precision, self.device.type)
        self.origin = Origin()
        log = TrainingLog(out, mean=False, digits=6, tracker=recipe.tracker, tracker_option="tracker")
        self.loop = TrainingLoop(
            "train dense-landmarks", recipe.steps, log, log_every=recipe.log_every, save_every=recipe.save_every
        )
        settings = {
            "recipe": recipe.identity(),
            "network": json.loads(json.dumps(asdict(network.config))),
            "precision": self.precision,
        }
        self.checkpoint = RunCheckpoint(out, WHAT, self.loop, settings, self.device)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Resume from the folder's checkpoint, or begin; renders the first images. Raises `UsageError` if the folder
        does not fit, and `Interrupted` if a signal stops the rendering (resumable)."""
        checkpoints = checkpoints_to_resume(self.out, resume=resume, prepared=self.out / CONFIG)
        state = self.checkpoint.read() if checkpoints else None
        if state is None:
            self.checkpoint.begin()
        self.batches = Batches(self.recipe, self.points, self.out / "renders")
        try:
            with stopping(insist=True) as stop, stop.into():
                self.batches.prepare()
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted while rendering; finished renders are saved", hint="rerun the same command with --resume"
            ) from None
        if state is not None:
            self.checkpoint.restore(state, self._parts())
            return
        if self.recipe.init:
            self._start_from(Path(self.recipe.init))
        else:
            self.network.mean.copy_(self.batches.mean_face())
            decoder = self.batches.displacements.decoder.astype(np.float32)
            self.network.decoder.copy_(torch.from_numpy(decoder))
        self.ema.copy_from(self.network)

    def _start_from(self, path: Path) -> None:
        """Load the weights of an earlier training; its card is included in ours."""
        earlier, vertices, card = load_network(path)
        if earlier.config != self.network.config or not np.array_equal(vertices, self.points.vertices):
            raise UsageError(
                f"{path}: the network has a different size", hint="set side, points, widths, blocks and hidden"
            )
        self.network.load_state_dict(earlier.state_dict())
        self.origin.card = {"sha256": sha256_file(path), **card}

    def _parts(self) -> Parts:
        return {
            "network": self.network,
            "average": self.ema.module,
            "optimizer": self.optimizer,
            "origin": self.origin,
        }

    def save(self) -> None:
        """Write checkpoint.pt and the weights, each atomically."""
        with self.checkpoint.saving(self._parts()):
            weights = network_bytes(self.ema.module, self.points.vertices, self.card())
            write_bytes_atomic(self.out / WEIGHTS, weights)

    def card(self) -> dict[str, Any]:
        """Provenance of the weights, stored in their file."""
        step = self.loop.step
        return {
            "steps": step,
            "examples": step * self.recipe.batch,
            "renders": self.batches.available(step - 1),
            "hours": round(self.loop.seconds / 3600, 3),
            "precision": self.precision,
            "device": self.device.type,
            "recipe": self.recipe.identity(),
            "started_from": self.origin.card,
            "renders_made_by": render_plan(self.recipe).description(),
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, limits: Limits) -> None:
        """Train to the last step, or to the limits; limited and interrupted runs leave a checkpoint."""
        check = Every(self.recipe.check_every, lambda step: self.batches.check(self.ema.module, self.device))
        self.loop.run(limits, self.train_step, self.save, validate=check)
        print(f"weights: {self.out / WEIGHTS} (sha256 {sha256_file(self.out / WEIGHTS)})")

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the loss and its terms, the gradient norm before clipping, and the learning
        rate."""
        recipe = self.recipe
        if not self.batches.is_ready(step):
            with self.loop.interruptible():
                self.batches.prepare_step(step)
        rising = min(1.0, (step + 1) / max(1, recipe.warmup))
        factor = rising * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        crops, targets = self.batches.batch(step, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            predicted = self.network(crops)
        losses = training_loss(predicted, targets, recipe)
        self.network.zero_grad(set_to_none=True)
        losses.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        values = {name: value.item() for name, value in losses._asdict().items()}
        values |= {"norm": norm.item(), "lr": recipe.lr * factor}
        check_finite(step, values, rate=recipe.lr, setting="lr")
        self.optimizer.step(factor)
        self.ema.update(self.network, step)
        return values


def network_config(recipe: Recipe) -> NetworkConfig:
    """The sizes of a recipe's network."""
    return NetworkConfig(
        recipe.side, len(dense_points(recipe.points).vertices), cast("Any", recipe.network_widths),
        cast("Any", recipe.network_blocks), recipe.hidden, coefficient_count(),
    )  # fmt: skip


def _plan(recipe: Recipe, request: TrainRequest) -> str:
    config = network_config(recipe)
    count = count_parameters(DenseNet(config))
    size = recipe.renders * (recipe.render_side**2 * 3 + config.points * 8)
    return json.dumps(
        {
            **asdict(recipe), "parameters": count, "weights_megabytes": round(2 * count / 1e6, 2),
            "renders_gigabytes": round(size / 1e9, 2), "out": str(request.out), "device": request.device,
        },
        indent=1,
    )  # fmt: skip
