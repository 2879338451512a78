"""Records written to disk without a run, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcd_bench.results.schema import (
    MethodInfo,
    MetricInfo,
    PairValues,
    Provenance,
    RecipeInfo,
    RunRecord,
    SuiteInfo,
    Value,
)
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE, rate_interval

N = 40


def write_record(
    folder: Path,
    method: str,
    hits: Sequence[float | None],
    *,
    reference: bool = False,
    n_suite: int = N,
    manifest: str = "ab" * 32,
    version: str = "1",
    with_values: bool = True,
    clusters: Sequence[str] | None = None,
    judge: MetricInfo | None = None,
    outputs: str = "0" * 64,
    fid_interval: tuple[float, float] | None = None,
    weights: dict[str, str] | None = None,
    recipe: RecipeInfo | None = None,
    run_id: str | None = None,
    **provenance: Any,
) -> None:
    """A record of a run with one rate "hit" (percent) and one set column "fid", as scoring would write it."""
    kept = [hit for hit in hits if hit is not None]
    rate = 100 * sum(kept) / len(kept) if kept else None
    failed = len(hits) - len(kept)
    pairs = [(f"p{i}", clusters[i] if clusters else f"c{i // 2}") for i in range(len(hits))]
    of_kept = [pair[1] for pair, hit in zip(pairs, hits, strict=True) if hit is not None]
    interval = rate_interval(np.array(kept), of_kept).scaled(100) if kept else None
    if len(set(of_kept)) < MIN_CLUSTERS_TO_COMPARE:
        interval = None
    values = {
        "hit": Value(
            metric="judge", value=rate, n=len(kept), ci_low=interval and interval.low,
            ci_high=interval and interval.high, ci_method=interval and interval.method, n_failed=failed, unit="%",
            higher_is_better=True, kind="rate",
        ),
        "fid": Value(
            metric="fid", value=(rate or 0) / 7, n=len(kept), n_failed=failed, higher_is_better=False, kind="set",
            ci_low=fid_interval and fid_interval[0], ci_high=fid_interval and fid_interval[1],
        ),
        "detail": Value(metric="judge", value=1.0, n=len(hits), n_failed=0, headline=False, kind="derived"),
    }  # fmt: skip
    record = RunRecord(
        run_id=run_id or f"{method}-0123456789",
        suite=SuiteInfo(name="toy", version=version, manifest_sha256=manifest, n_pairs=n_suite),
        method=MethodInfo(name=method, version="1", reference=reference, weights=weights or {}, recipe=recipe),
        limit=len(hits) if len(hits) < n_suite else None,
        seed=0,
        device="cpu",
        dtype="float32",
        n_pairs=len(hits),
        n_failed=failed,
        failures={"failed": failed} if failed else {},
        outputs_sha256=outputs,
        values=values,
        metrics={"judge": judge or MetricInfo(version="1", identity="x")},
        provenance=Provenance(bcd_bench="0.1.0", **provenance),
    )
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(record.to_json())
    if with_values:
        (folder / "values.json").write_text(PairValues.build(pairs, {"hit": hits}).to_json())


def hits(share: float, n: int = N) -> list[float | None]:
    return [float(i < share * n) for i in range(n)]
