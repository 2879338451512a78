"""The judges in this package, by suite and hash. Apart from the network, so that naming them imports no torch."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHIPPED", "shipped_weights"]

SHIPPED = {
    "sprites": "b9e2c356edcbba9d012acb470501ead4820a506174f0b16da921c5a17f701be9",
    "sprites-procedural": "0e553b567b2056c2a5ad466b234832dcba3a6961c7aee55ea611fa39ad2345dc",
}
"""Suite -> sha256 of its weights, so that another file is never taken for them."""


def shipped_weights(suite: str) -> Path:
    """The weights file (safetensors) of a suite's judge; its JSON config lies beside it."""
    return Path(__file__).parent / "weights" / f"judge-{suite}.safetensors"
