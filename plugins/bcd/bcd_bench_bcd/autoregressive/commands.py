"""`bcd-bench generate`: continue a clip or a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES

__all__ = ["generate"]

EXAMPLES = (
    "bcd-bench generate bcd --prompt photo.png --frames 100 --output out.mp4",
    "bcd-bench generate bcd --prompt clip.mp4 --frames 500 --temperature 1 --top-p 0.95 --seed 3 --output out.mp4",
)


def generate(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method: bcd.")],
    prompt: Annotated[Path, typer.Option(metavar="PATH", help="Video, photo or folder of frames to continue.")],
    frames: Annotated[int, typer.Option(metavar="N", help="Frames of the whole video, the prompt included.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The video: .mp4 (H.264) or .mkv (lossless).")],
    weights: Annotated[
        str, typer.Option(metavar="NAME_OR_PATH", help="Motion model: a shipped one, or a file of train bcd-motion.")
    ] = "heads-small",
    bcd: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_PATH", help="Its BCD weights (default: the shipped ones it belongs to)."),
    ] = None,
    prompt_frames: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Use only the first K frames of the prompt.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 takes the most probable code, as in the paper; 1 samples.")
    ] = 0.0,
    top_k: Annotated[int | None, typer.Option(metavar="K", min=1, help="Sample among the K most probable.")] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="P", min=0, max=1, help="Sample among codes of total probability P.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed.")] = 0,
    any_prompt: Annotated[
        bool, typer.Option("--any-prompt", help="Do not check that the prompt of a face model shows a face.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
) -> None:
    """Continue a clip or a photo with generated motion. Rerun an interrupted command to continue it."""
    from bcd_bench.assets.weights import verify_weights
    from bcd_bench.io.inputs import fitted, read_clip
    from bcd_bench.io.video import is_lossless
    from bcd_bench.plugin.registry import nearest
    from bcd_bench.types.clip import Clip
    from bcd_bench.util.devices import device_name
    from bcd_bench_bcd.autoregressive.generate import check_face, generate_video
    from bcd_bench_bcd.autoregressive.generator import MotionGenerator, bcd_of
    from bcd_bench_bcd.autoregressive.pretrained import SHIPPED_MOTION
    from bcd_bench_bcd.autoregressive.sampling import SamplingConfig
    from bcd_bench_bcd.autoregressive.weights import load_motion_model

    if method != "bcd":
        raise UsageError(f"generate {method!r}: only bcd can generate motion")
    if top_p is not None and top_p <= 0:
        raise UsageError(f"--top-p {top_p:g}: must be more than 0")
    is_lossless(output)  # refuses a wrong name before any work
    shipped = {item.name: item for item in SHIPPED_MOTION}
    path = verify_weights(shipped[weights], None).path if weights in shipped else Path(weights).expanduser()
    if not path.is_file():
        raise UsageError(
            f"--weights {weights!r}: no such file, and no shipped motion model; {nearest(weights, shipped)}"
        )
    resolved = device_name(device)
    motion = load_motion_model(path, resolved)
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    generator = MotionGenerator(bcd_of(motion, bcd, resolved), motion, sampling)
    clip = read_clip(prompt, "prompt")
    clip = Clip(clip.frames[:prompt_frames], clip.fps, clip.id)
    if not any_prompt:
        check_face(clip, str(motion.card.get("suite", "")), str(prompt))
    codes = generate_video(generator, fitted(clip, generator.frame_size), frames, output, seed=seed)
    repeated = float((codes[1:] == codes[:-1]).all(1).mean())
    print(f"{output}: {frames} frames at {clip.fps:g} fps, {len(clip)} of them the prompt")
    if repeated > 0.9 and temperature == 0:
        print(f"note: {100 * repeated:.0f} % of the frames repeat the frame before; try --temperature 1")
