"""Writes golden.npz: what other people's code makes of the seeded pictures. Run by hand, in the root of the repository.

    python -m tests.fidelity.make_golden

    python -m tests.fidelity.make_golden perceptual

The first needs pytorch-fid with a torchvision that imports, efficientnet-lite-pytorch, and scikit-image; the second,
which writes golden_perceptual.npz, needs lpips, stlpips_pytorch and cd-fvd.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from bcd_bench_fidelity.backbones import EFFICIENTNET_LITE0
from tests.fidelity import references
from tests.fidelity.seeded import pictures, seeded_alexnet, seeded_heads, seeded_i3d, seeded_inception

GOLDEN = Path(__file__).parent / "golden.npz"
PERCEPTUAL = Path(__file__).parent / "golden_perceptual.npz"
LEAST = 9
"""Frames of the clip whose logits are stored: as few as I3D takes."""
SETS = {"a": (12, 1), "b": (10, 2)}
"""Set -> number of pictures and seed, for the distance."""


def set_of(name: str) -> Any:
    """uint8[N, 64, 48, 3]; set b is darker, so that the two differ."""
    count, seed = SETS[name]
    made = pictures(count, 64, 48, seed=seed)
    return made if name == "a" else (made * 0.8).astype(np.uint8)


def reference_network() -> Any:
    """pytorch-fid's own network with the seeded weights."""
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda *_, **__: seeded_inception()
    return inception.InceptionV3([3]).eval()


def reference_features(network: Any, frames: Any) -> Any:
    """float32[N, 2048], pixels given as its command gives them."""
    with torch.no_grad():
        return network(torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255))[0][:, :, 0, 0].numpy()


def reference_distance() -> float:
    """The result of pytorch-fid's command on the two sets as PNG files."""
    from PIL import Image
    from pytorch_fid import fid_score

    reference_network()  # its command builds the network again, with the seeded weights
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in SETS]
        for path in paths:
            path.mkdir()
            for number, picture in enumerate(set_of(path.name)):
                Image.fromarray(picture).save(path / f"{number:03d}.png")
        return float(fid_score.calculate_fid_given_paths([str(path) for path in paths], 8, "cpu", 2048, 0))


def reference_lite0(frames: Any) -> Any:
    """float32[N, 1280] of the package efficientnet-lite-pytorch with the same weights."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(EFFICIENTNET_LITE0.weights())).eval()
    scaled = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() - 127) / 128
    resized = functional.interpolate(scaled, (224, 224), mode="bilinear", align_corners=False)
    with torch.no_grad():
        return network.extract_features(resized).mean((2, 3)).numpy()


def reference_ssim(one: Any, other: Any) -> float:
    """scikit-image with the settings that it says match Wang et al. (2004)."""
    from skimage.metrics import structural_similarity

    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    values = [
        structural_similarity(a, b, data_range=255, channel_axis=-1, **settings)
        for a, b in zip(one, other, strict=True)
    ]
    return float(np.mean(values))


def make_perceptual() -> None:
    """Write `PERCEPTUAL`."""
    one = pictures(2, 96, 80)
    other = references.changed(one)
    np.savez(
        PERCEPTUAL,
        lpips=references.lpips_distances(seeded_alexnet(), seeded_heads(), one, other),
        st_lpips=references.st_lpips_distances(one, other),
        i3d=references.i3d_logits(seeded_i3d(), pictures(LEAST, 64, 48)),
    )


if __name__ == "__main__" and sys.argv[1:] == ["perceptual"]:
    make_perceptual()
elif __name__ == "__main__":
    frames = pictures(3, 64, 48)
    np.savez(
        GOLDEN,
        inception=reference_features(reference_network(), frames),
        distance=reference_distance(),
        lite0=reference_lite0(frames),
        ssim=reference_ssim(frames, np.roll(frames, 1, axis=2)),
    )
