"""Create the weight files that are shipped in the wheel from finished training runs.

    python -m bcd_bench_bcd.inference.export_pretrained train/bcd-sprites-small/model.safetensors sprites-small

writes `weights/sprites-small.safetensors` (matrices as int8) and prints its size and sha256, to be entered in
`pretrained.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bcd_bench.assets.hashing import sha256_file
from bcd_bench_bcd.inference.weights import load_model, save_model

WEIGHTS = Path(__file__).parents[1] / "weights"


def export(trained: Path, name: str) -> Path:
    """Compress `trained` into the package's weights folder as `name`. Raises `UsageError` for other files."""
    loaded = load_model(trained)
    WEIGHTS.mkdir(exist_ok=True)
    target = WEIGHTS / f"{name}.safetensors"
    save_model(target, loaded.model, loaded.description, loaded.card, compress=True)
    return target


if __name__ == "__main__":
    written = export(Path(sys.argv[1]), sys.argv[2])
    print(f"{written.name}: {written.stat().st_size / 1e6:.1f} MB, sha256 {sha256_file(written)}")
