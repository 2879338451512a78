"""What this plugin offers: specs only; heavy code is imported by whoever uses it."""

from __future__ import annotations

from bcd_bench import CommandSpec, MethodSpec, MetricSpec, TrainableSpec, hookimpl
from bcd_bench_bcd import __version__
from bcd_bench_bcd.shipped import SHIPPED

__all__ = ["bcd_bench_commands", "bcd_bench_methods", "bcd_bench_metrics", "bcd_bench_trainables"]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    """BCD with the weights we ship."""
    return [
        MethodSpec(
            name="bcd",
            version=__version__,
            summary="Bitrate-Controlled Diffusion: content tokens, vector-quantised motion, diffusion decoder",
            factory="bcd_bench_bcd.method:BCDMethod",
            licence="Apache-2.0",
            paper="Bitrate-Controlled Diffusion for Disentangling Motion and Content in Video",
            config={"sampler": "default", "solver": None, "steps": None, "guidance": None, "dtype": "float32"},
            weights=SHIPPED,
            batch_size=16,
            metrics=("motion-bitrate",),
        )
    ]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    """What the motion code costs."""
    return [
        MetricSpec(
            name="motion-bitrate",
            version="1",
            summary="Bits per frame of the motion codes, for methods that say them",
            factory="bcd_bench_bcd.bitrate:MotionBitrate",
            licence="Apache-2.0",
        )
    ]


@hookimpl
def bcd_bench_commands() -> list[CommandSpec]:
    """`bcd-bench probe`."""
    return [
        CommandSpec(
            name="probe",
            summary="What a linear classifier reads from BCD's content and motion codes.",
            factory="bcd_bench_bcd.probe:command",
        )
    ]


@hookimpl
def bcd_bench_trainables() -> list[TrainableSpec]:
    """`bcd-bench train bcd`."""
    return [
        TrainableSpec(
            name="bcd",
            version=__version__,
            summary="BCD from scratch on the training split of a suite",
            factory="bcd_bench_bcd.train:train",
            presets={
                "sprites-procedural-small": "the small model on the embedded procedural Sprites; no files needed",
                "sprites-small": "the small model on LPC Sprites (asset sprites-art); hours on two CPU cores",
                "heads-small": "a small model of rendered talking heads, 64x64; hours on a CPU",
                "sprites": "exactly Table A8 of the paper, on LPC Sprites; for GPUs",
            },
            default_preset="sprites-procedural-small",
        )
    ]
