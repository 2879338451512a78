"""What FOMM's and MCNET's recorded outputs have in common, and the limits that the reference recommends for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd_bench_baselines.common.first_order import SIZE, Motion, sample
from bcd_bench_baselines.common.first_order_method import FirstOrderMethod
from bcd_bench_baselines.common.keypoints import Keypoints
from bcd_bench_baselines.common.tensors import to_unit

from .parity import Reference, close

KEYPOINTS = {"most": 5e-5, "mean": 5e-6}
DEFORMATION = {"most": 5e-4, "mean": 2e-5}
MASKS = {"most": 2e-4, "mean": 1e-5}
DEFORMED = {"most": 3e-3, "mean": 5e-5}
FRAMES = {"most": 1e-3, "mean": 3e-5}

Mode = Literal["absolute", "relative"]


@dataclass
class Loaded:
    """A method with the weights of the reference, and what it makes of the reference's images."""

    method: FirstOrderMethod
    reference: Reference
    image: Tensor
    source: Keypoints
    driving: Keypoints

    @property
    def arrays(self) -> dict[str, Any]:
        return self.reference.arrays

    def target(self, mode: Mode, **changes: Any) -> Keypoints:
        settings = {"mode": mode, **changes}
        self.method.config = type(self.method.config).model_validate(settings)
        return self.method.carry_over(self.source, self.driving)

    def motion(self, target: Keypoints) -> Motion:
        network = self.method.generator.dense_motion_network
        poses = (self.source.value, self.source.jacobian), (target.value, target.jacobian)
        found: Motion = network(network.down(self.image), *poses)
        return found

    def frames(self, target: Keypoints) -> Tensor:
        return self.method.decode(self.method.encode(self.image, self.source), self.source, target)


def load(method: FirstOrderMethod, reference: Reference, folder: Path) -> Loaded:
    """The method with the reference's seeded weights, loaded from a file as users have it."""
    [name] = reference.manifest["files"]
    torch.save(reference.checkpoint(name), folder / name)
    method.load(folder / name, "cpu")
    arrays = reference.arrays
    image = to_unit(arrays["source_u8"][None], SIZE)
    driving = method.detect(to_unit(arrays["driving_u8"], SIZE))
    return Loaded(method, reference, image, method.detect(image), driving)


def check_keypoints(loaded: Loaded) -> None:
    for name, found in (("source", loaded.source), ("driving", loaded.driving)):
        close(found.value, loaded.arrays[f"kp_{name}_value"], **KEYPOINTS)
        close(found.jacobian, loaded.arrays[f"kp_{name}_jacobian"], **KEYPOINTS)


def check_mode(loaded: Loaded, mode: Mode, *, corners: bool = False) -> Tensor:
    """Motion and frames of one mode against the arrays; returns the frames. `corners`: how the source is sampled."""
    arrays, short = loaded.arrays, mode[:3]
    target = loaded.target(mode)
    if mode == "relative":
        close(target.value, arrays["kp_norm_rel_value"], **KEYPOINTS)
        close(target.jacobian, arrays["kp_norm_rel_jacobian"], **KEYPOINTS)
    motion = loaded.motion(target)
    close(motion.deformation[:, ::2, ::2], arrays[f"{short}_deformation"], **DEFORMATION)
    close(motion.occlusion[..., ::2, ::2], arrays[f"{short}_occlusion"], **MASKS)
    close(motion.mask[1:2, :, ::4, ::4], arrays[f"{short}_mask_sub"], **MASKS)
    places = F.interpolate(motion.deformation.movedim(-1, 1), SIZE, mode="bilinear", align_corners=corners)
    moved = sample(loaded.image, places.movedim(1, -1), align_corners=corners)
    close(moved[..., 1::8, 2::8], arrays[f"{short}_deformed_sub"], **DEFORMED)
    frames = loaded.frames(target)
    close(frames[..., 1::4, 2::4], arrays[f"{short}_prediction_sub"], **FRAMES)
    whole = 2 if mode == "absolute" else 1
    close(frames[whole], arrays[f"{short}_prediction_full{whole}"], **FRAMES)
    return frames


def check_batches(loaded: Loaded, together: Tensor) -> None:
    """Three frames one by one are the three that were made together, to a hundredth of a grey level."""
    target = loaded.target("relative")
    alone = torch.cat([loaded.frames(target[slice(i, i + 1)]) for i in range(3)])
    close(alone, together.numpy(), most=1e-4, mean=1e-5)
