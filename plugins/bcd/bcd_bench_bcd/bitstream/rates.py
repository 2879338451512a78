"""`bcd-bench rates`: bits per frame of a suite's driving clips under each probability model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from bcd_bench.types.clip import ClipRef
    from bcd_bench_bcd.bitstream.autoregressive_model import MotionModel
    from bcd_bench_bcd.bitstream.code_models import CodeModel
    from bcd_bench_bcd.inference.method import BCDMethod

__all__ = ["EncodedClips", "command", "rates_of"]

BATCH = 16
"""Clips of equal length that are encoded at once."""


@dataclass
class EncodedClips:
    """Driving clips of a suite, encoded by BCD."""

    codes: list[npt.NDArray[np.int64]]
    """Codes int64 [T, N] of each clip."""
    probabilities: list[npt.NDArray[np.float64]]
    """Mean assignment probabilities [N, J] of each clip (eq. 4)."""
    content: list[Tensor]
    """Content [K, C] of each clip, as the decoder gets it."""
    content_bits: list[int]
    """Bits of the coded content of each clip."""
    fps: float


def rates_of(clips: EncodedClips, motion_model: MotionModel | None = None) -> dict[str, float]:
    """Bits per frame by name:

    - "soft": entropy of the mean assignment probabilities (eq. 5)
    - "hard": zero-order entropy of the codes
    - "static, own counts": bytes of all clips as one stream with a table of their own counts, which is not included
    - "static", "adaptive", "context", "autoregressive": bytes of all clips as one stream; "static" and
      "autoregressive" need a motion model. Adaptive models start uniform; clips start without a previous frame
    - "per file MODEL": bytes of the motion sections of one file per clip
    - "content": bits of a clip's coded content divided by its frames
    """
    import numpy as np

    from bcd_bench_bcd.bitstream.autoregressive_model import Autoregressive
    from bcd_bench_bcd.bitstream.code_models import Adaptive, Context, Static
    from bcd_bench_bcd.metrics.motion_bitrate import code_entropy, soft_entropy

    lengths = np.array([len(codes) for codes in clips.codes])
    frames = int(lengths.sum())
    groups, entries = clips.probabilities[0].shape
    counts = None if motion_model is None else motion_model.counts.cpu().numpy()

    def autoregressive() -> Autoregressive:
        assert motion_model is not None
        assert counts is not None
        given = motion_model
        remaining = iter(clips.content)
        return Autoregressive(lambda: given.coder(next(remaining)), counts)

    models: dict[str, Any] = {
        "adaptive": lambda: Adaptive(groups, entries),
        "context": lambda: Context(groups, entries),
    }
    if counts is not None:
        table = counts
        models = {"static": lambda: Static.from_counts(table), **models, "autoregressive": autoregressive}
    own = np.stack([np.bincount(group, minlength=entries) for group in np.concatenate(clips.codes).T])
    rates = {
        "soft": soft_entropy(np.average(np.stack(clips.probabilities), axis=0, weights=lengths)),
        "hard": code_entropy(np.concatenate(clips.codes)),
    }
    rates["static, own counts"] = 8 * one_stream(Static.from_counts(own), clips.codes) / frames
    rates |= {name: 8 * one_stream(make(), clips.codes) / frames for name, make in models.items()}
    for name, make in models.items():
        if name == "autoregressive":
            model = make()
            total = 0
            for index, codes in enumerate(clips.codes):
                if index:
                    model.start_clip()
                total += one_stream(model, [codes])
        else:
            total = sum(one_stream(make(), [codes]) for codes in clips.codes)
        rates[f"per file {name}"] = 8 * total / frames
    rates["content"] = sum(clips.content_bits) / frames
    return rates


def one_stream(model: CodeModel, clips: Sequence[npt.NDArray[np.int64]]) -> int:
    """Bytes of the codes of all clips in one motion section."""
    import numpy as np

    from bcd_bench_bcd.bitstream.codec import encode_motion

    starts = np.cumsum([len(codes) for codes in clips])[:-1].tolist()
    return len(encode_motion(model, np.concatenate(clips), starts))


def encode_drivers(method: BCDMethod, drivers: Sequence[ClipRef]) -> EncodedClips:
    """Encode clips by BCD. Raises `UsageError` for clips of a size that the weights do not accept."""
    import torch

    from bcd_bench.util.progress import open_progress
    from bcd_bench_bcd.inference.method import fits

    encoded = EncodedClips([], [], [], [], 0.0)
    batch: list[Any] = []

    def flush() -> None:
        if not batch:
            return
        frames = [clip.frames for clip in batch]
        motion, probabilities = method.encode_motion_statistics(frames)
        tokens = method.encode_content(frames)
        encoded.codes.extend(motion.codes.cpu().numpy())
        encoded.probabilities.extend(probabilities.cpu().numpy())
        for clip, one in zip(frames, tokens, strict=True):
            encoded.content_bits.append(8 * len(method.coded_content(clip, one[None]).payload))
            encoded.content.append(method.content_sent(one[None])[0].cpu())
        batch.clear()

    with open_progress().task("encode", total=len(drivers), unit="clips") as task, torch.inference_mode():
        for reference in drivers:
            clip = reference.load()
            if not fits(clip.frames, method.description):
                size = method.description.model.frame_size
                raise UsageError(f"clip {clip.id} has {clip.frames.shape[1:3]} pixels, the weights require {size}")
            if batch and (clip.frames.shape != batch[0].frames.shape or len(batch) == BATCH):
                flush()
            batch.append(clip)
            encoded.fps += clip.fps / len(drivers)
            task.advance()
        flush()
    return encoded


def command(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method; only bcd has a bitstream.")],
    suite: Annotated[str, typer.Option(help="The suite whose driving clips are encoded.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first driving clips.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Name or path of BCD weights (default: those of the suite).")
    ] = None,
    motion_model: Annotated[
        Path | None, typer.Option(help="Motion-model file (default: the shipped one of the weights, if any).")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data, as in run.")] = None,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="Also write the results as JSON.")] = None,
) -> None:
    """Bits per frame of a suite's driving clips under each probability model, as ideal rates and as real bytes."""
    from bcd_bench.cli.common import parse_data, print_table
    from bcd_bench.io.atomic import write_json_atomic
    from bcd_bench.plugin.registry import load_registry
    from bcd_bench.plugin.suites import load_suite
    from bcd_bench_bcd.bitstream import opening

    opening.check_method(method)
    loaded = load_suite(load_registry(), suite, parse_data(data or []))
    drivers = list({pair.motion.id: pair.motion for pair in loaded.pairs}.values())[:limit]
    bcd = opening.open_method(weights, device, suite=suite)
    probabilities = opening.motion_model(motion_model, bcd.loaded.codes_sha256)
    if probabilities is not None and probabilities.bcd_sha256 != bcd.loaded.codes_sha256:
        raise UsageError("--motion-model: it was trained on codes of other weights")
    clips = encode_drivers(bcd, drivers)
    rates = rates_of(clips, probabilities)
    frames = sum(map(len, clips.codes))
    rows = [[name, f"{bits:.3f}", f"{bits * clips.fps / 1000:.4f}"] for name, bits in rates.items()]
    print_table(f"{suite}: {len(drivers)} driving clips, {frames} frames", ("rate", "bit/frame", "kbit/s"), rows)
    if output is not None:
        record = {
            "suite": suite,
            "clips": len(drivers),
            "frames": frames,
            "fps": clips.fps,
            "weights_sha256": bcd.loaded.sha256,
            "motion_model_sha256": None if probabilities is None else probabilities.sha256,
            "bits_per_frame": rates,
        }
        write_json_atomic(output, record)
