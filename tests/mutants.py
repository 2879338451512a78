"""One-line sabotages of BCD: how many of them do its quick tests catch?

    python tests/mutants.py                # all of them, each with a report of the test that fails
    python tests/mutants.py lambda sigma   # those whose names contain one of these words

Each mutant is one replacement in a copy of the plugin; the tests run against the copy. A mutant that no test fails on
has survived. Exits with 1 if any has, or if a replacement no longer fits the code, and with 2 if the tests fail
without any mutant.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

import accelerate  # noqa: F401 (what the tests need and takes long to import is imported once, before the forks)
import diffusers  # noqa: F401
import pytest
import torch  # noqa: F401
import transformers.models.t5.modeling_t5  # noqa: F401 (the reference of test_t5.py)

FORK = multiprocessing.get_context("fork")
ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "plugins" / "bcd"
PACKAGE = "bcd_bench_bcd"
LONG = ("ablations", "canonical_features", "landmark_motion", "latent_training", "pixel_path", "plan")
TESTS = (
    "tests/bcd/test_paper.py tests/bcd/test_schedules.py",
    " ".join(["tests/bcd", *(f"--ignore=tests/bcd/test_{name}.py" for name in LONG)]),
    "tests/bcd",
)
"""In turn: most mutants fail in the first, which takes seconds; the second takes two minutes, the last ten."""
LEFT_OUT = ("tests/bcd/test_heads_small.py",)
"""Looks at shipped weights alone."""


@dataclass(frozen=True)
class Mutant:
    """Replace `old`, which stands once in `file`, by `new`."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    # the paper's loss
    Mutant("lambda doubled", "paper/loss.py", "diffusion + objective.rate_weight * rate", "diffusion + 2 * objective.rate_weight * rate"),
    Mutant("no condition dropout", "paper/loss.py", "rng.uniform(batch) < objective.condition_drop", "rng.uniform(batch) < 0.0"),
    Mutant("loss weight removed", "paper/loss.py", "(loss_weight(sigma, model.config.edm) * error)", "error"),
    Mutant("content from the driving half", "paper/loss.py", "content, latents = content[:batch], latents[batch:]", "content, latents = content[batch:], latents[batch:]"),
    Mutant("motion from the content half", "paper/loss.py", "content, latents = content[:batch], latents[batch:]", "content, latents = content[:batch], latents[:batch]"),
    Mutant("noise ignores sigma", "paper/loss.py", "noisy = clean + sigma.view(-1, 1, 1, 1) * noise", "noisy = clean + noise"),
    Mutant("cross-driven where it should not be", "paper/loss.py", '(second if direction == "same" else first)', "first"),
    Mutant("never cross-driven", "paper/loss.py", '(second if direction == "same" else first)', "second"),
    Mutant("target is the content half", "paper/loss.py", "clean = model.decoder.patchify(driving_half)", "clean = model.decoder.patchify(content_half)"),
    Mutant("error of absolute values", "paper/loss.py", "(denoised - clean).square()", "(denoised - clean).abs()"),
    Mutant("histogram of the content half", "paper/loss.py", "latents[len(driving_half) :]", "latents[: len(driving_half)]"),
    Mutant("dropped conditions differ", "paper/loss.py", "quantized.motion, drop, drop)", "quantized.motion, drop, ~drop)"),
    # the quantiser and the rate
    Mutant("rate per group is linear", "paper/quantizer.py", "target_bits / len(group_bits)) ** 2).mean()", "target_bits / len(group_bits)).abs()).mean()"),
    Mutant("total rate is linear", "paper/quantizer.py", "(group_bits.sum() - target_bits) ** 2", "(group_bits.sum() - target_bits).abs()"),
    Mutant("entropy in nats", "paper/quantizer.py", "-(mean * (mean + 1e-9).log2()).sum(-1)", "-(mean * (mean + 1e-9).log()).sum(-1)"),
    Mutant("no alpha", "paper/quantizer.py", "return -self.config.alpha * distance", "return -distance"),
    Mutant("distance not squared", "paper/quantizer.py", "distance = distance.square()", "pass"),
    Mutant("alpha for any code dimension", "paper/quantizer.py", "distance = distance * (ALPHA_DIM / self.config.dim)", "pass"),
    Mutant("temperature in the rate", "paper/quantizer.py", "probabilities = logits.softmax(-1)", "probabilities = (logits / tau).softmax(-1)"),
    Mutant("no Gumbel noise", "paper/quantizer.py", "(logits - (-uniform.log()).log()) / tau", "logits / tau"),
    Mutant("no temperature", "paper/quantizer.py", "(-uniform.log()).log()) / tau)", "(-uniform.log()).log()))"),
    Mutant("soft samples", "paper/quantizer.py", "return hard - soft.detach() + soft", "return soft"),
    Mutant("no gradient through samples", "paper/quantizer.py", "return hard - soft.detach() + soft", "return hard"),
    Mutant("farthest code", "paper/quantizer.py", "codes = logits.argmax(-1)", "codes = logits.argmin(-1)"),
    Mutant("groups in the wrong order", "paper/quantizer.py", "self.embed(assignment, parts).transpose(0, 1)", "self.embed(assignment, parts).flip(0).transpose(0, 1)"),
    Mutant("rate of the part alone", "paper/quantizer.py", "mean = histogram + mean - mean.detach()", "pass"),
    # EDM
    Mutant("c_skip", "paper/edm.py", "c_skip = d**2 / (s**2 + d**2)", "c_skip = s**2 / (s**2 + d**2)"),
    Mutant("c_out", "paper/edm.py", "c_out = s * d / (s**2 + d**2).sqrt()", "c_out = s / (s**2 + d**2).sqrt()"),
    Mutant("c_in", "paper/edm.py", "network(c_in * x, c_noise)", "network(x, c_noise)"),
    Mutant("c_noise", "paper/edm.py", "sigma.log() / 4", "sigma.log()"),
    Mutant("mean of ln sigma", "paper/edm.py", "* config.p_std + config.p_mean", "* config.p_std"),
    Mutant("grid without rho", "paper/edm.py", "(high + ramp * (low - high)) ** config.rho", "high + ramp * (low - high)"),
    Mutant("Heun without correction", "paper/edm.py", "slope = (slope + (landed - denoise(landed, after)) / after) / 2", "pass"),
    Mutant("Euler's step", "paper/edm.py", "x = x + (after - now) * slope\n    return x", "x = x + (now - after) * slope\n    return x"),
    Mutant("first order only", "paper/edm.py", "estimate = (1 + ratio) * clean - ratio * previous", "pass"),
    # conditions of the decoder, guidance
    Mutant("no guidance", "paper/model.py", "return null + guidance * (conditional - null)", "return conditional"),
    Mutant("nulls and conditions exchanged", "paper/model.py", "drop = torch.cat([keep, ~keep])", "drop = torch.cat([~keep, keep])"),
    Mutant("latents not standardised", "paper/model.py", "(clips.float() - self.latent_mean) / self.latent_std", "clips.float()"),
    Mutant("motion ignored", "paper/decoder.py", "[:, None] + self.motion_in(motion)", "[:, None] + 0 * self.motion_in(motion)"),
    Mutant("noise level ignored", "paper/decoder.py", "self.noise_in(sinusoid(100.0 * noise, 128))[:, None]", "0 * self.noise_in(sinusoid(100.0 * noise, 128))[:, None]"),
    Mutant("content tokens ignored", "paper/decoder.py", "(self.content_in(content) + self.content_type)", "(0 * self.content_in(content) + self.content_type)"),
    Mutant("no order of frames", "paper/decoder.py", "rotary=self.rotary)", "rotary=False)"),
    Mutant("no positions", "paper/decoder.py", "h = h + self.positions.to(h.dtype)", "h = h + 0 * self.positions.to(h.dtype)"),
    Mutant("temporal blocks within frames", "paper/decoder.py", "h[:, :, tokens:], condition, over_time=True)", "h[:, :, tokens:], condition, over_time=False)"),
    Mutant("content stays where it is dropped", "paper/decoder.py", "content = torch.where(drop_content[:, None, None], self.null_content.to(content.dtype), content)", "pass"),
    Mutant("patches transposed", "paper/decoder.py", "self.columns, p).permute(0, 1, 3, 5, 2, 4, 6)", "self.columns, p).permute(0, 1, 3, 5, 2, 6, 4)"),
    Mutant("gate left out", "paper/decoder.py", "x = x + gate1 * h", "x = x + h"),
    Mutant("scale left out", "paper/decoder.py", "h = self.norm1(x) * (1 + scale1) + shift1", "h = self.norm1(x) + shift1"),
    # the encoder
    Mutant("queries behind the frames", "paper/encoder.py", "content, motion = hidden.split([queries.shape[1], tokens.shape[1]], 1)", "motion, content = hidden.split([tokens.shape[1], queries.shape[1]], 1)"),
    Mutant("T5 without positions", "paper/t5.py", "value, bias.to(query.dtype), scale=1.0)", "value, scale=1.0)"),
    Mutant("T5 divides by the root of the width", "paper/t5.py", "bias.to(query.dtype), scale=1.0)", "bias.to(query.dtype))"),
    Mutant("T5 looks the other way", "paper/t5.py", "relative_bucket(place - place[:, None])", "relative_bucket(place[:, None] - place)"),
    # extensions
    Mutant("extended: no condition dropout", "extensions/loss.py", "both = state.chance(objective.condition_drop)", "both = state.chance(0.0)"),
    Mutant("extended: lambda doubled", "extensions/loss.py", "else objective.rate_weight) * rate", "else 2 * objective.rate_weight) * rate"),
    Mutant("extended: noise ignores sigma", "extensions/loss.py", "clean + sigma.view(-1, 1, 1, 1) * noise", "clean + noise"),
    Mutant("extended: motion from the content half", "extensions/loss.py", "tokens[:batch], latents[:batch], latents[batch:]", "tokens[:batch], latents[:batch], latents[:batch]"),
    Mutant("both directions the same", "extensions/loss.py", "state.latents = state.content_latents.roll(batch // 2, 0)", "state.latents = state.content_latents"),
    Mutant("random direction is forward", "extensions/symmetric_halves.py", "uniform(len(clips)) < 0.5)", "uniform(len(clips)) < 0.0)"),
    Mutant("weight not clamped", "extensions/loss_weight_clamp.py", "weight.clamp(max=self.max)", "weight"),
    Mutant("content channels ignored", "extensions/decoder.py", "inputs.append(patch_content[:, None].expand(-1, frames, -1, -1))", "inputs.append(0 * own[:, None].expand(-1, frames, -1, -1))"),
    Mutant("penalty on content removed", "extensions/content_bottleneck.py", "self.kl_weight.at(state.step) * nats", "0.0 * nats"),
    Mutant("schedules never stop", "extensions/base.py", "self.start <= step and (self.stop is None or step < self.stop)", "self.start <= step"),
    Mutant("latents standardised by running statistics alone", "extensions/quantizer.py", "        return (latents - mean) / std\n\n    def standardized_by_running", "        return self.standardized_by_running(latents)\n\n    def standardized_by_running"),
    # windows
    Mutant("windows not faded", "inference/sliding_window.py", "return torch.minimum(ramp, ramp.flip(0))", "return torch.ones_like(ramp)"),
    Mutant("last window left out", "inference/sliding_window.py", "return [*range(0, frames - window, hop), frames - window]", "return [*range(0, frames - window, hop)]"),
    Mutant("subsets in blocks", "inference/sliding_window.py", "slice(first, None, count)", "slice(first * (frames // count), (first + 1) * (frames // count))"),
    # schedules, optimiser, averaging
    Mutant("temperature frozen", "training/trainer.py", "** (step / self.preset.train.steps)", "** 0"),
    Mutant("temperature of a factor frozen", "training/trainer.py", "quantizer.tau_start * quantizer.tau_decay**steps", "quantizer.tau_start"),
    Mutant("temperature begins again in a stage", "training/trainer.py", "steps = self.stage.steps_before + step", "steps = step"),
    Mutant("average has a long memory from the start", "training/trainer.py", "self.ema.update(self.model, step - max(", "self.ema.update(self.model, 10**6 + step - max("),
    Mutant("average never restarts", "training/trainer.py", "for start in (0, *restarts) if start <= step", "for start in (0,) if start <= step"),
    Mutant("gradients not clipped", "training/trainer.py", "self.model.parameters(), train.gradient_clip)", "self.model.parameters(), 1e9)"),
    Mutant("encoder's rate ignored", "training/optimizers.py", 'scale = config.encoder_lr if name.startswith(("encoder.", "quantizer.")) else 1.0', "scale = 1.0"),
    Mutant("norms decay", "training/optimizers.py", "config.weight_decay if parameter.ndim >= 2 else 0.0", "config.weight_decay"),
    Mutant("nothing decays", "training/optimizers.py", "config.weight_decay if parameter.ndim >= 2 else 0.0", "0.0"),
    Mutant("no warm-up", "training/optimizers.py", "min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0", "1.0"),
    Mutant("stage keeps the first rates", "training/stages.py", 'for name in ("lr", "encoder_lr")', "for name in ()"),
    Mutant("stage starts from nothing", "training/stages.py", "str(folder / WEIGHTS)", "None"),
    # resuming, guards
    Mutant("resume forgets the optimiser", "training/trainer.py", 'self.optimizers.load_state_dicts(state["optimizers"])', "pass"),
    Mutant("resume forgets the average", "training/trainer.py", 'self.ema.module.load_state_dict(state["average"])', "pass"),
    Mutant("resume begins at step 0", "training/trainer.py", "self.loop.load_state_dict(state)", "pass"),
    Mutant("a stage of another name is resumed", "training/checkpoint.py", 'if saved.get("stage") != run["stage"]:', "if False:"),
    Mutant("another recipe is resumed", "training/checkpoint.py", "    if old != new:\n        missing", "    if False:\n        missing"),
    Mutant("every step draws the same", "training/trainer.py", "generator = step_generator(train.seed, step)\n", "generator = step_generator(train.seed, 0)\n"),
    Mutant("contributions of the right conditions", "training/collapse.py", "error(content.roll(1, 0), motion)", "error(content, motion)"),
    Mutant("motion's contribution is content's", "training/collapse.py", "error(content, motion.roll(1, 0))", "error(content.roll(1, 0), motion)"),
    # several parts, inference
    Mutant("rate of one part", "training/step.py", "histogram = torch.stack(histograms).mean(0)", "histogram = counted[0]"),
    Mutant("parts add up", "training/step.py", 'accelerator.backward(losses["loss"] / len(parts))', 'accelerator.backward(losses["loss"])'),
    Mutant("content and motion exchanged", "inference/method.py", "content, motion = pair.content.load(), pair.motion.load()", "motion, content = pair.content.load(), pair.motion.load()"),
    Mutant("every pair has the same noise", "inference/method.py", "torch.Generator().manual_seed(seed)) for seed in seeds]", "torch.Generator().manual_seed(0)) for seed in seeds]"),
    Mutant("solver setting ignored", "inference/method.py", '"steps": self.settings.steps, ', ""),
)  # fmt: skip


def copied(folder: Path) -> Path:
    """A copy of the plugin in `folder`, the weights as links."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PLUGIN / PACKAGE, folder / PACKAGE, copy_function=_link_or_copy, ignore=skip)
    return folder


def mutated(folder: Path, mutant: Mutant) -> Path:
    """A copy of the plugin with the mutant in it. Raises `ValueError` if it does not fit."""
    path = copied(folder) / PACKAGE / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its line stands {text.count(mutant.old)} times in {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new))
    return folder


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".py"):
        shutil.copy2(source, target)
    else:
        Path(target).symlink_to(source)


def failing_test(folder: Path) -> str | None:
    """The first test that fails with the plugin in `folder`; None if none does."""
    return next((failed for tests in TESTS if pass_unchanged(tests) and (failed := failure(folder, tests))), None)


@cache
def pass_unchanged(tests: str) -> bool:
    """Whether these tests pass without any mutant. Ends the script with 2 if they do not."""
    with tempfile.TemporaryDirectory() as scratch:
        failed = failure(copied(Path(scratch)), tests)
    if failed is not None:
        print(f"the tests fail without any mutant: {failed}")
        raise SystemExit(2)
    return True


def failure(folder: Path, tests: str) -> str | None:
    """The first of these tests that fails with the plugin in `folder`; None if none does."""
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_run_tests, args=(folder, tests.split(), theirs))
    child.start()
    theirs.close()
    try:
        failed: str | None = ours.recv()
    except EOFError:
        failed = "a crash of the tests"
    child.join()
    return failed


class _FirstFailure:
    """A pytest plugin that remembers the first test, or file of tests, that failed."""

    name: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.name is None:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.name is None:
            self.name = report.nodeid


def _run_tests(folder: Path, tests: list[str], result: Connection) -> None:
    """In a child process: the first failing one of `tests` with the plugin in `folder`, sent as `result`."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    sys.path[:0] = [str(folder), str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    first = _FirstFailure()
    ignored = [f"--ignore={path}" for path in LEFT_OUT]
    options = ["-n", "0", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # modules that were imported before the fork
    code = pytest.main([*options, *ignored, *tests], plugins=[first])
    result.send(first.name or (f"pytest, which ended with {code}" if code else None))


def main(words: list[str]) -> int:
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    survived = []
    for number, mutant in enumerate(chosen, 1):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                failed = failing_test(mutated(Path(scratch), mutant))
            except ValueError as error:
                failed, mutant = None, Mutant(str(error), mutant.file, "", "")
        if failed is None:
            survived.append(mutant.name)
        result = "survived" if failed is None else f"caught by {failed}"
        print(f"{number}/{len(chosen)} {mutant.name}: {result} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants were caught")
    for name in survived:
        print(f"survived: {name}")
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
