"""Checks of a plugin as a whole, and of every spec it registers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING

from bcd_bench.assets.hashing import canonical_json
from bcd_bench.plugin.loading import load_factory

if TYPE_CHECKING:
    from bcd_bench.testing.check import Subject

__all__ = ["CHECKS", "SPEC_CHECKS"]

HEAVY = ("torch", "tensorflow", "jax", "transformers", "diffusers", "pandas", "scipy", "cv2", "av")

LOOK = """
import sys
from bcd_bench.plugin.registry import load_registry
registry = load_registry(only=[sys.argv[1]])
plugin = next(p for p in registry.plugins if p.name == sys.argv[1])
print(",".join(name for name in sys.argv[2:] if name in sys.modules) if plugin.status == "ok" else plugin.error)
"""


def registers_without_torch(subject: Subject) -> None:
    """Loading the plugin imports no slow packages, since `bcd-bench list` imports every plugin."""
    command = [sys.executable, "-c", LOOK, subject.plugin.name, *HEAVY]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, f"loading plugin {subject.plugin.name} failed: {process.stderr.strip()[-500:]}"
    heavy = process.stdout.strip()
    assert not heavy, f"loading plugin {subject.plugin.name} imported {heavy}; import it where it is used"


def has_a_source_hash(subject: Subject) -> None:
    """The plugin has a source hash, which is part of the identity of its runs."""
    assert len(subject.plugin.source_sha256) == 64


def spec_is_json_safe(subject: Subject) -> None:
    """All values of a spec are JSON-serializable, as required by `show --json` and the plan."""
    assert canonical_json(dataclasses.asdict(subject.spec))


def spec_is_described(subject: Subject) -> None:
    """The spec has a version and a one-line summary, if its kind defines them."""
    for attribute in ("version", "summary"):
        text = getattr(subject.spec, attribute, "-")
        assert isinstance(text, str), f"{attribute} of {subject.spec.name} is {type(text).__name__}, not text"
        assert text.strip(), f"{subject.spec.name} has no {attribute}"
        assert "\n" not in text, f"{attribute} of {subject.spec.name} is more than one line"


def factory_can_be_imported(subject: Subject) -> None:
    """`factory` ("package.module:Name") refers to a callable."""
    factory = getattr(subject.spec, "factory", None)
    if factory is not None:
        assert callable(load_factory(factory)), f"{factory} is not callable"


def default_preset_exists(subject: Subject) -> None:
    """The default preset of `train NAME` is one of the presets."""
    if subject.kind == "trainables":
        assert subject.spec.default_preset in subject.spec.presets


CHECKS = (registers_without_torch, has_a_source_hash)
SPEC_CHECKS = (spec_is_json_safe, spec_is_described, factory_can_be_imported, default_preset_exists)
