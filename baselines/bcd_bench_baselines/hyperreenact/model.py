"""HyperReenact's networks combined: five published files, and frames from face crops and their landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bcd_bench.types.errors import UsageError
from bcd_bench_baselines.common.checkpoints import blank, load_published, read_checkpoint, strip_prefix
from bcd_bench_baselines.hyperreenact.encoders import E4E, ArcFaceIRSE, DecaEncoder
from bcd_bench_baselines.hyperreenact.generator import Generator
from bcd_bench_baselines.hyperreenact.hypernetwork import Hypernetwork
from bcd_bench_baselines.hyperreenact.specs import FILES

__all__ = ["HyperReenact", "Source", "to_signed"]

TRUNCATION = 0.7


class Source:
    """The encoding of a source face, computed once: its truncated code w+ [1, 14, 512] and appearance [1, 512, 7,
    7]."""

    def __init__(self, code: Tensor, appearance: Tensor) -> None:
        self.code, self.appearance = code, appearance


class HyperReenact(nn.Module):
    """The networks, filled by `load`; inference only."""

    def __init__(self) -> None:
        super().__init__()
        self.e4e, self.arcface, self.deca = E4E(), ArcFaceIRSE(), DecaEncoder()
        self.generator, self.hypernetwork = Generator(), Hypernetwork()

    @classmethod
    def load(cls, folder: Path) -> HyperReenact:
        """Load from the folder of the published files, with strictly matching keys.

        Raises `UsageError`, with the expected contents, for a folder with missing files and for other files.
        """
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"{folder} is not the folder of HyperReenact's files: {', '.join(missing)} missing",
                hint="--weights FOLDER with the original's pretrained_models",
            )
        model = blank(cls)
        load_published({"e": model.e4e}, folder / "e4e-voxceleb.pt", model="e4e for VoxCeleb")
        path = folder / "insight_face.pth"
        load_published({"arcface": model.arcface}, path, model="InsightFace's IR-SE50", flat=True)
        load_published({"E_flame": model.deca}, folder / "data/deca_model.tar", model="DECA")
        load_published({"g_ema": model.generator}, folder / "stylegan-voxceleb.pt", model="StyleGAN2 for VoxCeleb")
        _load_hypernetwork(model.hypernetwork, folder / "hypernetwork.pt")
        return model

    def source(self, picture: Tensor, face: Tensor, mean: Tensor) -> Source:
        """Encode a crop [1, 3, 256, 256] and an aligned face [1, 3, 112, 112] in -1..1; `mean` [1, 512] is the
        generator's mean code, towards which codes are truncated."""
        code = mean[:, None] + TRUNCATION * (self.e4e(picture) - mean[:, None])
        return Source(code, self.arcface(face))

    def frames(self, source: Source, poses: Tensor) -> Tensor:
        """The source's face in the poses of crops [B, 3, 224, 224] in 0..1: [B, 3, 256, 256], about -1..1."""
        changes = self.hypernetwork(self.deca(poses), source.appearance)
        frames: Tensor = self.generator(source.code.expand(len(poses), -1, -1), changes)
        return frames


def to_signed(pictures: Tensor) -> Tensor:
    """uint8[B, H, W, 3] -> float32[B, 3, H, W] in -1..1."""
    return pictures.permute(0, 3, 1, 2).float() * 2 / 255 - 1


def _load_hypernetwork(network: Hypernetwork, path: Path) -> None:
    """Load a file that contains or is a `state_dict`; only keys that begin with `hypernet.` are used for inference."""
    expected = "the hypernetwork of HyperReenact (keys hypernet.…)"
    content = read_checkpoint(path, expected=expected)
    entry: Any = content.get("state_dict", content)
    state = strip_prefix(entry) if isinstance(entry, Mapping) else {}
    hypernet_state = {
        key.removeprefix("hypernet."): value for key, value in state.items() if key.startswith("hypernet.")
    }
    expected_state = network.state_dict()
    missing, unexpected = (
        sorted(expected_state.keys() - hypernet_state.keys()),
        sorted(hypernet_state.keys() - expected_state.keys()),
    )
    shapes = [
        key
        for key in expected_state.keys() & hypernet_state.keys()
        if hypernet_state[key].shape != expected_state[key].shape
    ]
    for problem, keys in (("lacks", missing), ("also has", unexpected), ("has with another shape", sorted(shapes))):
        if keys:
            raise UsageError(f"{path} is not {expected}: it {problem} {len(keys)} tensors, such as {keys[0]}")
    network.load_state_dict(hypernet_state)
