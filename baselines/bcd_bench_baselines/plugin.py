"""What this distribution offers: the specs of its methods, one light module each; heavy code is imported when used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from bcd_bench import AssetSpec, MethodSpec, TrainableSpec, hookimpl

__all__ = ["SPECS", "bcd_bench_assets", "bcd_bench_methods", "bcd_bench_trainables"]

SPECS: tuple[str, ...] = (
    "cdsvae.specs",
    "external.specs",
    "folder.specs",
    "fomm.specs",
    "hyperreenact.specs",
    "lia.specs",
    "liveportrait.specs",
    "mcnet.specs",
    "pca_motion.specs",
)
"""Modules with any of METHODS, ASSETS and TRAINABLES; none of them imports torch."""


def _modules() -> list[ModuleType]:
    return [importlib.import_module(f"bcd_bench_baselines.{name}") for name in SPECS]


def _all(attribute: str) -> list[Any]:
    return [spec for module in _modules() for spec in getattr(module, attribute, ())]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    """Every method of this distribution."""
    return _all("METHODS")


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    """The files they load: published checkpoints, never downloaded at run time."""
    return _all("ASSETS")


@hookimpl
def bcd_bench_trainables() -> list[TrainableSpec]:
    """What is trained here."""
    return _all("TRAINABLES")
