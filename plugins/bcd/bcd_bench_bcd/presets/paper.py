"""The paper's tables as presets, and the same recipe at the size of two CPU cores. None has an extension."""

from __future__ import annotations

from bcd_bench_bcd.paper.presets import TABLE_A7, TABLE_A8
from bcd_bench_bcd.presets.base import preset_of

__all__ = ["LRS3", "SPRITES"]

SPRITES = preset_of(
    TABLE_A8, "Table A8: T5 12x384, DiT-S/8, 1 x 64 codes, 6 bits per frame, batch 128; for GPUs", "sprites"
)

LRS3 = preset_of(
    TABLE_A7,
    "Table A7: T5 12x512, DiT-B/4 on SD 2.0 latents, 64 x 32 codes, 160 bits per frame; for GPUs",
    "lrs3-cross",
    resize=True,
    order="epochs",
    compile="auto",
    log_every=50,
    checkpoint_every=2000,
    grid_every=10_000,
)
