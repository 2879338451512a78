"""`bcd-bench probe`: linear probes of BCD's content and motion codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from bcd_bench.util.devices import DEVICES

__all__ = ["balanced_accuracy", "command", "linear_probe"]

FOLDS = 4
RIDGE = 1e-2


def balanced_accuracy(truth: npt.NDArray[np.int64], guess: npt.NDArray[np.int64]) -> float:
    """Mean recall over the classes that occur, in percent: a constant prediction scores exactly 100 / classes."""
    return float(np.mean([(guess[truth == label] == label).mean() for label in np.unique(truth)]) * 100)


def linear_probe(features: npt.NDArray[np.float64], labels: Sequence[Any], groups: Sequence[Any]) -> float:
    """Balanced accuracy (percent) of a ridge classifier on held-out groups, over 4 folds.

    `features` [N, D] are standardised on the training folds; no group (character) is in both training and test folds.
    """
    truth = np.unique(np.asarray(labels), return_inverse=True)[1]
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    fold = np.random.RandomState(0).permutation(group.max() + 1)[group] % FOLDS
    targets = np.eye(truth.max() + 1)[truth]
    guess = np.zeros(len(truth), np.int64)
    for held_out in range(FOLDS):
        train, test = fold != held_out, fold == held_out
        mean, spread = features[train].mean(0), features[train].std(0)
        used = spread > 1e-6 * max(spread.max(), 1e-12)
        x = (features[:, used] - mean[used]) / spread[used]
        a = np.column_stack([x[train], np.ones(train.sum())])
        gram = a.T @ a + RIDGE * train.sum() * np.eye(a.shape[1])
        weights = np.linalg.solve(gram, a.T @ targets[train])
        guess[test] = (np.column_stack([x[test], np.ones(test.sum())]) @ weights).argmax(1)
    return balanced_accuracy(truth.astype(np.int64), guess)


def command(
    suite: Annotated[str, typer.Option(help="A suite whose clips have labels.")] = "sprites-procedural",
    weights: Annotated[
        str | None, typer.Option(help="Name or path of BCD weights (default: the shipped ones).")
    ] = None,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="Also write the results as JSON.")] = None,
) -> None:
    """Linear probes of BCD's content and motion codes on the content clips of a suite, held out by character."""
    from bcd_bench.assets.weights import resolve_weights
    from bcd_bench.io.atomic import write_json_atomic
    from bcd_bench.plugin.registry import load_registry
    from bcd_bench.plugin.suites import load_suite
    from bcd_bench_bcd.inference.method import BCDMethod

    registry = load_registry()
    loaded = load_suite(registry, suite, {})
    resolved = resolve_weights(registry.method("bcd"), suite, weights)
    method = BCDMethod({})
    method.load(None if resolved is None else resolved.path, device)
    clips = {pair.content.id: pair.content for pair in loaded.pairs}
    features = _features(method, list(clips.values()))
    labels = [clip.labels for clip in clips.values()]
    subjects = [clip.labels["subject"] for clip in clips.values()]
    accuracies: dict[str, dict[str, float]] = {}
    for name in sorted(set(labels[0]) - {"subject"}):
        values = [label[name] for label in labels]
        accuracies[name] = {source: linear_probe(values_of, values, subjects) for source, values_of in features.items()}
        accuracies[name]["chance"] = 100 / len(set(values))
    columns = [*features, "chance"]
    print(f"Balanced accuracy in percent of linear probes on {len(clips)} clips, held out by character")
    print("label".ljust(12) + "".join(column.rjust(len(column) + 2) for column in columns))
    for name, row in accuracies.items():
        print(name.ljust(12) + "".join(f"{row[column]:.1f}".rjust(len(column) + 2) for column in columns))
    if output is not None:
        sha256 = None if resolved is None else resolved.sha256
        write_json_atomic(output, {"suite": suite, "weights_sha256": sha256, "clips": len(clips), "probes": accuracies})


def _features(method: Any, clips: Sequence[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Features to probe, float64 [N, ...] each: "content" [N, K * C_c] as the decoder gets it, with a bottleneck also
    "unrounded content", and "motion codes" as one-hot vectors per frame [N, T * G * J].
    """
    import torch

    from bcd_bench.util.progress import open_progress

    model = method.model
    entries = model.config.quantizer.entries
    parts: dict[str, list[npt.NDArray[np.float64]]] = {}

    def keep(name: str, values: torch.Tensor) -> None:
        parts.setdefault(name, []).append(values.flatten(1).double().cpu().numpy())

    with open_progress().task("probe", total=len(clips), unit="clips") as task, torch.inference_mode():
        for start in range(0, len(clips), 16):
            frames = np.stack([clip.load().frames for clip in clips[start : start + 16]])
            values = method.codec.values(torch.tensor(frames).to(method.device))
            tokens, latents = model.encode(values)
            bottleneck = getattr(model, "bottleneck", None)
            if bottleneck is None:
                keep("content", tokens)
            else:
                keep("content", bottleneck.rounded(bottleneck.mean(tokens)))
                keep("unrounded content", bottleneck.mean(tokens))
            keep("motion codes", torch.nn.functional.one_hot(model.quantizer(latents).codes, entries))
            task.advance(len(frames))
    return {name: np.concatenate(values) for name, values in parts.items()}
