"""Where the weights of `lpips` and `st-lpips` come from, without importing the networks."""

from __future__ import annotations

from pathlib import Path

from bcd_bench.plugin.specs import AssetSpec
from bcd_bench_fidelity.weight_files import packaged_file

__all__ = ["ALEXNET_WEIGHTS", "LPIPS_HEADS_SHA256", "ST_LPIPS_WEIGHTS", "lpips_heads"]

ST_LPIPS_WEIGHTS = AssetSpec(
    name="st-lpips",
    filename="stlpips_alex_shift_tolerant.pth",
    sha256="b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    size=9_899_296,
    licence="BSD-2-Clause",
    how_to="pip download --no-deps stlpips_pytorch==0.0.2, unzip the wheel, and add "
    "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
)
"""The complete metric: a shift-tolerant AlexNet and the weights of its layers."""

ALEXNET_WEIGHTS = AssetSpec(
    name="alexnet",
    filename="alexnet-owt-7be5be79.pth",
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    size=244_408_911,
    licence="BSD-3-Clause",
    how_to="torchvision's AlexNet (IMAGENET1K_V1), the backbone of LPIPS",
    urls=("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
)

LPIPS_HEADS_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
"""Hash of the weights of the layers, LPIPS v0.1 on AlexNet."""
_LPIPS_PACKAGE = "lpips"
_LPIPS_FILE = "weights/v0.1/alex.pth"


def lpips_heads() -> Path:
    """Path of the verified file in the installed package. Raises as `packaged_file`."""
    return packaged_file(
        _LPIPS_PACKAGE,
        _LPIPS_FILE,
        sha256=LPIPS_HEADS_SHA256,
        what="the layer weights of LPIPS",
        install="pip install --no-deps lpips==0.1.4",
    )
