"""Where the weights of `lpips` and `st-lpips` come from, without importing the networks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.plugin.specs import AssetSpec
from bcd_bench.types.errors import MissingAssetError, MissingDependencyError

__all__ = ["ALEXNET_WEIGHTS", "LPIPS_HEADS_SHA256", "ST_LPIPS_WEIGHTS", "asset_path", "lpips_heads"]

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


def asset_path(asset: AssetSpec) -> Path:
    """Path of the verified file. Raises `MissingAssetError`."""
    from bcd_bench.assets.store import AssetStore
    from bcd_bench.plugin.registry import load_registry

    return AssetStore(load_registry()).find(asset.name)


def lpips_heads() -> Path:
    """Path of the verified file in the installed package, whose code is not run. Raises `MissingDependencyError`, or
    `MissingAssetError` for a wrong file."""
    install = "pip install --no-deps lpips==0.1.4"
    spec = find_spec(_LPIPS_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError("the layer weights of LPIPS are not installed", hint=install)
    path = Path(spec.origin).parent / _LPIPS_FILE
    if not path.is_file() or sha256_file(path) != LPIPS_HEADS_SHA256:
        raise MissingAssetError(
            f"the layer weights of LPIPS at {path} are missing or modified and were rejected "
            f"(expected sha256 {LPIPS_HEADS_SHA256[:12]}…)",
            hint=f"{install} --force-reinstall",
        )
    return path
