"""How much a Sprites model uses its conditions: one denoising of test clips with right and wrong content and motion.

    python results/conditions.py results/training/paper-series.json NAME=WEIGHTS…

For every weight file and noise level: PSNR in dB of the denoised driving half with the right conditions, with the
content of another clip, with the motion of another clip, and with both null; the rise of the squared error, relative to
that with the right conditions, if the content is that of another clip, of the same character in another motion, or of
another character in the same motion, and if the motion is that of another clip. Then the entropy of the codes, also
given the pose. The same 64 test clips and the same noise for all. Other entries of the JSON file are kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bcd_bench_bcd.inference.weights import load_model
from bcd_bench_bcd.metrics.motion_bitrate import code_entropy
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_sprites.characters import open_characters
from bcd_bench_sprites.suite import test_clips

SUITE = "sprites-procedural"
CLIPS = 64
MOTIONS = 9
SIGMAS = (0.3, 1.0, 3.0, 10.0, 40.0)


@torch.inference_mode()
def measure(path: Path) -> dict[str, Any]:
    """The figures of one weight file."""
    loaded = load_model(path)
    model, rows = loaded.model, test_clips()[:CLIPS]
    characters = open_characters(SUITE, None)

    def values(people: np.ndarray, motions: np.ndarray) -> Tensor:
        return model.values(torch.from_numpy(characters.clips(people, motions)))

    people, motions = rows[:, 0], rows[:, 1]
    clips = values(people, motions)
    half = clips.shape[1] // 2
    content = model.encode_content(clips[:, :half])
    quantized = model.encode_motion(clips[:, half:])
    wrong_content = {
        "content of another clip": content.roll(1, 0),
        "content of the same character in another motion": model.encode_content(
            values(people, (motions + 4) % MOTIONS)[:, :half]
        ),
        "content of another character in the same motion": model.encode_content(
            values(np.roll(people, 1), motions)[:, :half]
        ),
    }
    clean = model.decoder.patchify(clips[:, half:])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    levels = {}
    for sigma in SIGMAS:
        errors = {
            "right": _error(model, clean, noise, sigma, content, quantized.motion),
            **{
                name: _error(model, clean, noise, sigma, wrong, quantized.motion)
                for name, wrong in wrong_content.items()
            },
            "motion of another clip": _error(model, clean, noise, sigma, content, quantized.motion.roll(1, 0)),
            "null": _error(model, clean, noise, sigma, content, quantized.motion, null=True),
        }
        levels[str(sigma)] = {
            "psnr": {name: round(float((-10 * (error / 4).log10()).mean()), 3) for name, error in errors.items()},
            "rise": {
                name: round(float(error.mean() / errors["right"].mean()) - 1, 4)
                for name, error in errors.items()
                if name != "right"
            },
        }
    whole = model.encode_motion(clips).codes.numpy()
    poses = [whole[motions == motion, frame] for motion in range(MOTIONS) for frame in range(whole.shape[1])]
    given_pose = sum(len(codes) * code_entropy(codes) for codes in poses if len(codes)) / (len(whole) * whole.shape[1])
    card = loaded.card
    return {
        "recipe": list(loaded.description.recipe),
        "clips": card["clips"] + (card.get("started_from") or {}).get("clips", 0),
        "levels": levels,
        "codes": len(np.unique(whole)),
        "bits": round(code_entropy(whole.reshape(-1, whole.shape[-1])), 3),
        "bits given the pose": round(given_pose, 3),
    }


def _error(
    model: BCD, clean: Tensor, noise: Tensor, sigma: float, content: Tensor, motion: Tensor, *, null: bool = False
) -> Tensor:
    """Squared error [B] of one denoising."""
    drop = torch.full((len(clean),), null)
    sigmas = torch.full((len(clean),), sigma)
    denoised = model.denoise(clean + sigma * noise, sigmas, content, motion, drop, drop)
    return (denoised - clean).square().mean((1, 2, 3))


if __name__ == "__main__":
    target, *named = sys.argv[1:]
    found = {name: measure(Path(path)) for name, path in (pair.split("=", 1) for pair in named)}
    file = Path(target)
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | found, indent=1) + "\n")
