"""Speed of generating motion codes with the key-value cache, as a ratio to recomputing every frame.

    python benchmarks/generation.py [--frames 200] [--repeat 3]

One clip is continued from one frame, on one thread. Times are CPU times, which other work on the machine disturbs
little. The reference is transformers' GPT-2 over the whole window, so a short window bounds the cost of a frame and
the ratio. Both ways must generate the same codes.
"""

from __future__ import annotations

import argparse
import time

import torch

from bcd_bench_bcd.autoregressive.config import CodeConfig, GPTConfig, MotionConfig
from bcd_bench_bcd.autoregressive.model import MotionGPT
from bcd_bench_bcd.autoregressive.pretrained import SHIPPED_MOTION
from bcd_bench_bcd.autoregressive.sampling import SamplingConfig, generate_codes
from bcd_bench_bcd.autoregressive.weights import load_motion_model

HEADS = CodeConfig(groups=32, entries=16, dim=8, content_tokens=64, content_width=1248)
"""Codes and content of the BCD weights `heads-small`."""


def models() -> dict[str, MotionGPT]:
    """A shipped model, and models with random weights for the codes of heads."""
    from bcd_bench.assets.weights import verify_weights

    shipped = SHIPPED_MOTION[0]
    trained = load_motion_model(verify_weights(shipped, None).path).model
    found = {f"{shipped.name}, {trained.prefix_length} content + {trained.frames} frames": trained}
    for prefix, window in (("pooled", 24), ("pooled", 256), ("tokens", 256)):
        torch.manual_seed(0)
        gpt = GPTConfig.model_validate({"layers": 6, "width": 192, "heads": 6, "frames": window, "prefix": prefix})
        model = MotionGPT(MotionConfig(codes=HEADS, gpt=gpt)).eval()
        model.codebook.normal_()
        found[f"6 x 192, {model.prefix_length} content + {window} frames"] = model
    return found


def seconds(model: MotionGPT, frames: int, *, cache: bool) -> tuple[float, torch.Tensor]:
    """CPU time of one continuation, and its codes."""
    codes = model.config.codes
    generator = torch.Generator().manual_seed(1)
    content = torch.randn(1, codes.content_tokens, codes.content_width, generator=generator)
    prompt = torch.randint(codes.entries, (1, 1, codes.groups), generator=generator)
    started = time.process_time()
    made = generate_codes(model, content, prompt, frames, SamplingConfig(temperature=1), [0], cache=cache)
    return time.process_time() - started, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, model in models().items():
        seconds(model, 4, cache=True)  # first calls
        runs = {
            cache: [seconds(model, options.frames, cache=cache) for _ in range(options.repeat)]
            for cache in (True, False)
        }
        fast, slow = (min(time for time, _ in runs[cache]) for cache in (True, False))
        same = torch.equal(runs[True][0][1], runs[False][0][1])
        print(
            f"{name}: {options.frames} frames in {fast:.2f} s with the cache ({1e3 * fast / options.frames:.1f} ms per "
            f"frame), {slow:.2f} s without: {slow / fast:.1f}x; {'equal codes' if same else 'DIFFERENT CODES'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
