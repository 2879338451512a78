"""Results as pandas data frames, for notebooks and plots: values of runs and values of pairs.

    >>> import bcd_bench
    >>> table = bcd_bench.results_frame("results")
    >>> table.pivot_table(index="method", columns="column", values="value")

Both frames are in long form, one row per value. They are read from records and require neither torch nor plugins.
"""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.results.formats.csv import FIELDS, lines
from bcd_bench.results.rows import collect_rows, conflict_notes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["pairs_frame", "results_frame"]

_PAIR_FIELDS = ("suite", "suite_version", "method", "run_id", "seed", "pair", "content_identity", "column", "value")


def results_frame(*paths: str | PathLike[str], suite: str | None = None, reported: bool = False) -> pd.DataFrame:
    """One row for each run and column, with the columns of `bcd-bench report --format csv`.

    `paths` are run folders, directory trees containing them, or record files; default: ./runs. `suite` selects one
    suite. With `reported`, values quoted from papers are included and marked in the column `reported`; they were not
    measured by this harness. A value that could not be computed is NaN. Warns about records of one run with different
    content. Raises `UsageError` for a path that does not exist or a record that cannot be read.
    """
    import pandas as pd

    registry = None
    if reported:
        from bcd_bench.plugin.registry import load_registry

        registry = load_registry()
    rows = collect_rows(_places(paths), suite, registry)
    for note in conflict_notes(rows):
        warnings.warn(note, stacklevel=2)
    frame = pd.DataFrame(list(lines(rows)), columns=FIELDS)
    numbers = ("value", "ci_low", "ci_high", "wilson_low", "wilson_high", "frame_coverage")
    counts = ("n_pairs", "n_failed_outputs", "n", "n_failed", "n_clusters")
    kinds: dict[str, Any] = {**dict.fromkeys(numbers, "float64"), **dict.fromkeys(counts, "Int64")}
    return frame.astype(kinds | {"higher_is_better": "boolean"})


def pairs_frame(*paths: str | PathLike[str], suite: str | None = None) -> pd.DataFrame:
    """One row for each run, pair and per-pair column ("mean" and "rate"); NaN for pairs that were not scored.

    The columns are suite, suite_version, method, run_id, seed, pair, content_identity (the unit for clustering),
    column and value. Rates are 0 or 1 here and percentages only in `results_frame`. Runs without `values.json` are
    skipped. `paths`, `suite` and errors are as in `results_frame`.
    """
    import pandas as pd

    frames = []
    for row in collect_rows(_places(paths), suite):
        values = row.pair_values
        if values is None:
            continue
        assert row.record is not None  # measured rows come from records
        identities = [values.clusters[index] for index in values.cluster_of]
        index = pd.MultiIndex.from_arrays([values.pairs, identities], names=["pair", "content_identity"])
        wide = pd.DataFrame(values.columns, index=index, dtype="float64")
        tall = wide.melt(var_name="column", value_name="value", ignore_index=False).reset_index()
        head = {
            "suite": row.suite,
            "suite_version": row.suite_version,
            "method": row.method,
            "run_id": row.run_id,
            "seed": row.record.seed,
        }
        frames.append(tall.assign(**head)[list(_PAIR_FIELDS)])
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(_PAIR_FIELDS))
    return frame.astype({"value": "float64"})


def _places(paths: tuple[str | PathLike[str], ...]) -> list[Path]:
    return [Path(path) for path in paths] or [Path("runs")]
