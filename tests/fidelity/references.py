"""Other people's code with our seeded weights: LPIPS, ST-LPIPS and the I3D of cd-fvd.

The packages import more than they use here; small stand-ins replace what is missing.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def pixels_of(frames: Any) -> Tensor:
    """float32[T, 3, H, W] in -1..1."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def lpips_distances(backbone: Mapping[str, Tensor], heads: Mapping[str, Tensor], one: Any, other: Any) -> Any:
    """float[T] by the package lpips. Raises `ImportError`."""
    with _importable("torchvision"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision, about the parameter `pretrained`
        network = importlib.import_module("lpips").LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    convolutions = [module for module in network.net.modules() if isinstance(module, nn.Conv2d)]
    for index, module in zip((0, 3, 6, 8, 10), convolutions, strict=True):
        module.load_state_dict({part: backbone[f"features.{index}.{part}"] for part in ("weight", "bias")})
    network.load_state_dict(heads, strict=False)
    with torch.no_grad():
        return network.eval()(pixels_of(one), pixels_of(other)).flatten().numpy()


def st_lpips_distances(one: Any, other: Any) -> Any:
    """float[T] by the package stlpips_pytorch, with the weights in it. Raises `ImportError`."""
    with _importable("torchvision", "IPython", "torchsummary"):
        module = importlib.import_module("stlpips_pytorch.stlpips")
    network = module.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    with torch.no_grad():
        return network.eval()(pixels_of(one), pixels_of(other)).flatten().numpy()


def i3d_logits(weights: Mapping[str, Tensor], frames: Any) -> Any:
    """float[400] of one window by cd-fvd, pixels prepared by it. Raises `ImportError`."""
    network = _of_cd_fvd("pytorch_i3d").InceptionI3d(400, in_channels=3)
    network.load_state_dict(weights)
    with torch.no_grad():
        return network.eval()(_of_cd_fvd("utils").preprocess_i3d(frames[None]))[0].numpy()


def frechet_distance(one: Any, other: Any) -> float:
    """The distance of two sets of vectors [N, D] by cd-fvd, in double precision. Raises `ImportError`."""
    return float(_of_cd_fvd("utils").frechet_distance(torch.from_numpy(one).double(), torch.from_numpy(other).double()))


def _of_cd_fvd(name: str) -> Any:
    """A module of its I3D, without the package's other models and what they import."""
    spec = find_spec("cdfvd")
    if spec is None or spec.origin is None:
        raise ImportError("cd-fvd is not installed")
    folder = Path(spec.origin).parent / "third_party" / "i3d"
    if "reference_i3d" not in sys.modules:
        package = types.ModuleType("reference_i3d")
        package.__path__ = [str(folder)]
        sys.modules["reference_i3d"] = package
    full_name = f"reference_i3d.{name}"
    if full_name not in sys.modules:
        found = spec_from_file_location(full_name, folder / f"{name}.py")
        assert found is not None
        assert found.loader is not None
        module = module_from_spec(found)
        sys.modules[full_name] = module
        with _importable("requests", "tqdm"):
            found.loader.exec_module(module)
    return sys.modules[full_name]


@contextmanager
def _importable(*names: str) -> Iterator[None]:
    """Put a stand-in in the place of every module that is not installed or does not import."""
    added = []
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError):  # RuntimeError: a torchvision that does not fit this torch
            for partial in [one for one in sys.modules if one.split(".")[0] == name]:
                del sys.modules[partial]
            module = types.ModuleType(name)
            vars(module).update(embed=None, summary=None, tqdm=None)
            module.models = types.ModuleType(f"{name}.models")  # type: ignore[attr-defined]
            module.models.alexnet = _alexnet  # type: ignore[attr-defined]
            sys.modules[name], sys.modules[f"{name}.models"] = module, module.models  # type: ignore[attr-defined]
            added += [name, f"{name}.models"]
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _alexnet(pretrained: bool = False) -> Any:
    """The features of torchvision's AlexNet, without weights."""
    assert not pretrained
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
              nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1),
              nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)]  # fmt: skip
    return types.SimpleNamespace(features=nn.Sequential(*layers))


def changed(frames: Any) -> Any:
    """The frames darker and with noise, uint8."""
    rng = np.random.default_rng(7)
    return np.clip(0.7 * frames + rng.normal(0, 25, frames.shape), 0, 255).astype(np.uint8)
