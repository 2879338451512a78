"""Create the weight files that are shipped in the wheel from finished training runs.

    python -m bcd_bench_bcd.inference.export_pretrained train/bcd-sprites-small/model.safetensors sprites-small

writes `weights/sprites-small.safetensors` (matrices as int8) and prints its size and sha256, to be entered in
`pretrained.py`.

    python -m bcd_bench_bcd.inference.export_pretrained --variant-of heads-landmarks faces-landmarks \\
        pose_correction expression_gain fusion_damping

writes a file that has the tensors of another shipped one and extensions that need none.

    python -m bcd_bench_bcd.inference.export_pretrained --extend heads-landmarks field_smoothing

adds such extensions to a shipped file itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.training import save_tensors
from bcd_bench_bcd.extensions import EXTENSIONS, Extensions
from bcd_bench_bcd.inference.recipe import FORMAT, MAKER
from bcd_bench_bcd.inference.weights import Description, header, load_model, save_model, save_variant

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
    save_variant(target, base, extended(loaded.description, extensions), loaded.card)
    load_model(target)
    return target


def extend(name: str, extensions: Sequence[str]) -> Path:
    """Add extensions that need no tensors, in their default settings, to the shipped weights `name`."""
    target = WEIGHTS / f"{name}.safetensors"
    loaded = load_model(target)
    tensors = read_weight_file(target, form=FORMAT, what="BCD", maker=MAKER)[1]
    save_tensors(target, tensors, header(extended(loaded.description, extensions), loaded.card))
    load_model(target)
    return target


def extended(description: Description, extensions: Sequence[str]) -> Description:
    """`description` with more extensions, in their default settings."""
    added = [EXTENSIONS[extension]() for extension in extensions]
    return description.model_copy(update={"extensions": Extensions([*description.extensions, *added])})


if __name__ == "__main__":
    if sys.argv[1] == "--variant-of":
        written = export_variant(sys.argv[2], sys.argv[3], sys.argv[4:])
    elif sys.argv[1] == "--extend":
        written = extend(sys.argv[2], sys.argv[3:])
    else:
        written = export(Path(sys.argv[1]), sys.argv[2])
    print(f"{written.name}: {written.stat().st_size / 1e6:.1f} MB, sha256 {sha256_file(written)}")
