"""Create the weight files that are shipped in the wheel from finished training runs.

    python -m bcd_bench_bcd.inference.export_pretrained train/bcd-sprites-small/model.safetensors sprites-small

writes `weights/sprites-small.safetensors` (matrices as int8) and prints its size and sha256, to be entered in
`pretrained.py`.

    python -m bcd_bench_bcd.inference.export_pretrained --variant-of heads-landmarks faces-landmarks \\
        pose_correction expression_gain fusion_damping

writes a file that has the tensors of another shipped one and extensions that need none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bcd_bench.assets.hashing import sha256_file
from bcd_bench_bcd.extensions import EXTENSIONS, Extensions
from bcd_bench_bcd.inference.weights import load_model, save_model, save_variant

WEIGHTS = Path(__file__).parents[1] / "weights"


def export(trained: Path, name: str) -> Path:
    """Compress `trained` into the package's weights folder as `name`. Raises `UsageError` for other files."""
    loaded = load_model(trained)
    WEIGHTS.mkdir(exist_ok=True)
    target = WEIGHTS / f"{name}.safetensors"
    save_model(target, loaded.model, loaded.description, loaded.card, compress=True)
    return target


def export_variant(of: str, name: str, extensions: Sequence[str]) -> Path:
    """Write the variant `name` of the shipped weights `of`, with more extensions in their default settings."""
    base, target = (WEIGHTS / f"{one}.safetensors" for one in (of, name))
    loaded = load_model(base)
    added = [EXTENSIONS[extension]() for extension in extensions]
    description = loaded.description.model_copy(
        update={"extensions": Extensions([*loaded.description.extensions, *added])}
    )
    save_variant(target, base, description, loaded.card)
    load_model(target)
    return target


if __name__ == "__main__":
    if sys.argv[1] == "--variant-of":
        written = export_variant(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        written = export(Path(sys.argv[1]), sys.argv[2])
    print(f"{written.name}: {written.stat().st_size / 1e6:.1f} MB, sha256 {sha256_file(written)}")
