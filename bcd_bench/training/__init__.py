"""Training toolkit: data, limits, checkpoints, moving averages, logs, and the training loop.

A trainer is a callable that takes a `TrainRequest`. docs/training.md ("Writing a trainer") contains a complete example.

| module         | what it does                                                                       |
|----------------|------------------------------------------------------------------------------------|
| `data`         | the training split of a suite                                                      |
| `folder`       | refuses or accepts `--out` and `--resume`; one process at a time in a folder        |
| `checkpoint`   | writes and reads checkpoints, compares their settings with those of the command    |
| `run_checkpoint` | start, resume and save of a run of one process, from the state of its parts       |
| `limits`       | `--max-steps` and `--max-minutes`, over all stages of a command                    |
| `loop`         | steps, progress, stop signals, log, checkpoints, and the end                       |
| `log`          | log.jsonl by name, its window between two lines, optional trackers (`trackers`)    |
| `ema`          | exponential moving average of the weights                                          |
| `guard`        | stops a training whose loss or gradient is not finite                              |
| `precision`    | "auto", "fp32" and "bf16"                                                          |
| `muon`         | Muon in the precision that the device computes fast; convolutions as its matrices |
| `processes`    | one process, or several through accelerate                                         |
| `plan`         | what `--plan` needs: parameters and the time of a step                             |

Importing this package imports neither torch nor accelerate; its functions and classes do when they are used.
"""

from __future__ import annotations

from bcd_bench.training.checkpoint import (
    CHECKPOINT,
    check_settings,
    first_difference,
    read_checkpoint,
    restoring,
    save_tensors,
    save_torch,
    writing_checkpoint,
)
from bcd_bench.training.data import open_training_clips
from bcd_bench.training.ema import EMA
from bcd_bench.training.folder import checkpoints_to_resume, training_folder, writing_into
from bcd_bench.training.guard import check_finite
from bcd_bench.training.limits import Limits
from bcd_bench.training.log import LOG, TrainingLog, truncate_log
from bcd_bench.training.loop import Every, TrainingLoop, report_unfinished
from bcd_bench.training.muon import KernelMatrices, muon_optimizer
from bcd_bench.training.plan import count_parameters, seconds_per_step
from bcd_bench.training.precision import PRECISIONS, resolve_precision
from bcd_bench.training.processes import AcceleratedProcesses, OneProcess, Processes, leaving_process_group
from bcd_bench.training.run_checkpoint import Parts, RunCheckpoint, Stateful
from bcd_bench.training.trackers import TRACKERS, TrackerName, open_tracker

__all__ = [
    "CHECKPOINT",
    "EMA",
    "LOG",
    "PRECISIONS",
    "TRACKERS",
    "AcceleratedProcesses",
    "Every",
    "KernelMatrices",
    "Limits",
    "OneProcess",
    "Parts",
    "Processes",
    "RunCheckpoint",
    "Stateful",
    "TrackerName",
    "TrainingLog",
    "TrainingLoop",
    "check_finite",
    "check_settings",
    "checkpoints_to_resume",
    "count_parameters",
    "first_difference",
    "leaving_process_group",
    "muon_optimizer",
    "open_tracker",
    "open_training_clips",
    "read_checkpoint",
    "report_unfinished",
    "resolve_precision",
    "restoring",
    "save_tensors",
    "save_torch",
    "seconds_per_step",
    "training_folder",
    "truncate_log",
    "writing_checkpoint",
    "writing_into",
]
