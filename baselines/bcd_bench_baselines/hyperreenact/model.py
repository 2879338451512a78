"""HyperReenact's networks together: five published files, and frames from crops of faces and their landmarks."""

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
    """What is computed once for a source face: its code w+ [1, 14, 512], truncated, and appearance [1, 512, 7, 7]."""

    def __init__(self, code: Tensor, appearance: Tensor) -> None:
        self.code, self.appearance = code, appearance


class HyperReenact(nn.Module):
    """The networks. `load` fills them; nothing here is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.e4e, self.arcface, self.deca = E4E(), ArcFaceIRSE(), DecaEncoder()
        self.generator, self.hypernetwork = Generator(), Hypernetwork()

    @classmethod
    def load(cls, folder: Path) -> HyperReenact:
        """From the folder of the published files, every key of them strictly.

        Raises `UsageError`, naming what was expected, for a folder that lacks one and for files of something else.
        """
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"{folder} is not the folder of HyperReenact's files: it lacks {', '.join(missing)}",
                hint="--weights FOLDER, the original's pretrained_models",
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
        """Of a crop [1, 3, 256, 256] and an aligned face [1, 3, 112, 112] in -1..1; `mean` [1, 512] is the generator's
        mean code, towards which codes are truncated."""
        code = mean[:, None] + TRUNCATION * (self.e4e(picture) - mean[:, None])
        return Source(code, self.arcface(face))

    def frames(self, source: Source, poses: Tensor) -> Tensor:
        """The source's face in the poses of crops [B, 3, 224, 224] in 0..1: [B, 3, 256, 256], about -1..1."""
        changes = self.hypernetwork(self.deca(poses), source.appearance)
        made: Tensor = self.generator(source.code.expand(len(poses), -1, -1), changes)
        return made


def to_signed(pictures: Tensor) -> Tensor:
    """uint8[B, H, W, 3] -> float32[B, 3, H, W] in -1..1."""
    return pictures.permute(0, 3, 1, 2).float() * 2 / 255 - 1


def _load_hypernetwork(network: Hypernetwork, path: Path) -> None:
    """Its file holds `state_dict` or is one; keys that count begin with `hypernet.`, others are of the training."""
    expected = "the hypernetwork of HyperReenact (keys hypernet.…)"
    content = read_checkpoint(path, expected=expected)
    entry: Any = content.get("state_dict", content)
    state = strip_prefix(entry) if isinstance(entry, Mapping) else {}
    kept = {key.removeprefix("hypernet."): value for key, value in state.items() if key.startswith("hypernet.")}
    wanted = network.state_dict()
    missing, more = sorted(wanted.keys() - kept.keys()), sorted(kept.keys() - wanted.keys())
    shapes = [key for key in wanted.keys() & kept.keys() if kept[key].shape != wanted[key].shape]
    for what, keys in (("lacks", missing), ("has besides", more), ("has in another shape", sorted(shapes))):
        if keys:
            raise UsageError(f"{path} is not {expected}: it {what} {len(keys)} tensors, such as {keys[0]}")
    network.load_state_dict(kept)
