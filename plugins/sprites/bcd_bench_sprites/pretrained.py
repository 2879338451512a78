"""The classifiers in this package, by suite and hash. Separate from the network, so that torch is not imported."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHIPPED", "shipped_weights"]

SHIPPED = {
    "sprites": "b9e2c356edcbba9d012acb470501ead4820a506174f0b16da921c5a17f701be9",
    "sprites-procedural": "0e553b567b2056c2a5ad466b234832dcba3a6961c7aee55ea611fa39ad2345dc",
}
"""Suite -> sha256 of its weights, so that other files are never accepted."""


def shipped_weights(suite: str) -> Path:
    """The weights file (safetensors) of a suite's classifier; its JSON config is next to it."""
    return Path(__file__).parent / "weights" / f"judge-{suite}.safetensors"
