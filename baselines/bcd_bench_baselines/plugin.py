"""Specs of the methods of this distribution, in one lightweight module each; heavy code is imported when used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from bcd_bench import AssetSpec, CommandSpec, MethodSpec, MetricSpec, TrainableSpec, hookimpl

__all__ = [
    "SPECS",
    "bcd_bench_assets",
    "bcd_bench_commands",
    "bcd_bench_methods",
    "bcd_bench_metrics",
    "bcd_bench_trainables",
]

SPECS: tuple[str, ...] = (
    "cdsvae.specs",
    "codecs.specs",
    "external.specs",
    "folder.specs",
    "fomm.specs",
    "hyperreenact.specs",
    "lia.specs",
    "liveportrait.specs",
    "mcnet.specs",
    "pca_motion.specs",
)
"""Modules with METHODS, METRICS, COMMANDS, ASSETS or TRAINABLES; none of them imports torch."""


def _modules() -> list[ModuleType]:
    return [importlib.import_module(f"bcd_bench_baselines.{name}") for name in SPECS]


def _all(attribute: str) -> list[Any]:
    return [spec for module in _modules() for spec in getattr(module, attribute, ())]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    """All methods of this distribution."""
    return _all("METHODS")


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    """The metrics of values that only these methods report."""
    return _all("METRICS")


@hookimpl
def bcd_bench_commands() -> list[CommandSpec]:
    """The comparison of codecs."""
    return _all("COMMANDS")


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    """The files that the methods load: published checkpoints, never downloaded at run time."""
    return _all("ASSETS")


@hookimpl
def bcd_bench_trainables() -> list[TrainableSpec]:
    """The trainables of this distribution."""
    return _all("TRAINABLES")
