"""What the toy plugin hands in."""

import os
from pathlib import Path

from bcd_bench import (
    AssetSpec,
    CommandSpec,
    MethodSpec,
    MetricSpec,
    ReportedRow,
    SuiteSpec,
    TrainableSpec,
    hookimpl,
)


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    def method(name: str, **config: object) -> MethodSpec:
        return MethodSpec(name, "1", f"{name} for tests.", "bcd_bench_toy.methods:Swap", config=config, batch_size=4)

    return [
        method("toy-swap", noise=3, delay=0.0, bad="", damage=""),
        method("toy-slow", noise=3, delay=0.1, bad="", damage=""),
        method("toy-flaky", noise=3, delay=0.0, bad="m3", damage="raise"),
        method("toy-short", noise=3, delay=0.0, bad="m3", damage="shorten"),
        MethodSpec(
            "toy-asks",
            "1",
            "Asks for a metric that lacks a file.",
            "bcd_bench_toy.methods:Swap",
            config={"noise": 3, "delay": 0.0, "bad": "", "damage": ""},
            metrics=("toy-lost",),
        ),
        MethodSpec("toy-unloadable", "1", "Cannot be imported.", "bcd_bench_toy.absent:Nothing"),
    ]


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    reported = (ReportedRow("Paper & Sons_1", "A paper, table 1", {"toy-content": 99.5}),)
    return [
        SuiteSpec("toy", "1", "Squares in 6 colours and 4 motions.", "bcd_bench_toy.suite:build", reported=reported),
        SuiteSpec("toy-torn", "1", "Raises.", "bcd_bench_toy.suite:torn"),
        SuiteSpec("toy-data", "1", "Needs data.", "bcd_bench_toy.suite:build", data=("toys",)),
    ]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    return [
        MetricSpec("toy-match", "1", "Colour and distance.", "bcd_bench_toy.metrics:Match", needs_target=True),
        MetricSpec("toy-mean", "1", "Mean grey level of the set.", "bcd_bench_toy.metrics:MeanLevel", level="set"),
        MetricSpec("toy-lost", "1", "Needs a file.", "bcd_bench_toy.metrics:MeanLevel", level="set", assets=("toys",)),
        MetricSpec("toy-raises", "1", "Raises on motion 2.", "bcd_bench_toy.metrics:Raises"),
    ]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [AssetSpec("toys", "toys.bin", "0" * 64, 812, "MIT", "carve it from wood")]


@hookimpl
def bcd_bench_trainables() -> list[TrainableSpec]:
    presets = {"tiny": "one step", "long": "many steps"}
    return [
        TrainableSpec("toy-net", "1", "A net.", "bcd_bench_toy.train:train", presets, "tiny"),
        TrainableSpec("toy-lost", "1", "Lost.", "bcd_bench_toy.absent:train", presets, "tiny"),
    ]


@hookimpl
def bcd_bench_commands() -> list[CommandSpec]:
    return [
        CommandSpec("toy-hello", "Greets.", "bcd_bench_toy.train:hello"),
        CommandSpec("toy-mute", "Says nothing.", "bcd_bench_toy.train:mute"),
    ]


@hookimpl
def bcd_bench_run_finished(run_dir: Path) -> None:
    if os.environ.get("TOY_HOOK_RAISES"):
        raise RuntimeError(f"no network for {run_dir.name}")
