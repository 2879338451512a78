"""Bitrate-Controlled Diffusion as the paper describes it, and nothing else.

Read in this order: `config`, `encoder` (Sec. 3.1), `quantizer` (Sec. 3.2), `decoder` and `edm` (Sec. 3.3), `model`,
`loss` (eqs. 6-8), `presets` (Tables A7 and A8). This package imports nothing from bcd-bench; our additions are in
`bcd_bench_bcd.extensions`.
"""

PAPER = "paper"
"""The label of a recipe without extensions."""
