"""Writes the results of an ablation into its folder: tables, picture, samples, and the claims with their decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.io.atomic import write_json_atomic, write_text_atomic
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.ablations import tables
from bcd_bench_bcd.ablations.base import Study
from bcd_bench_bcd.ablations.picture import draw
from bcd_bench_bcd.ablations.runner import WEIGHTS, Outcome, Request
from bcd_bench_bcd.ablations.values import VariantValues, variant_values
from bcd_bench_bcd.ablations.verdicts import Verdict, decide

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["Report", "files_of", "write_report"]


class Report:
    """The values of all variants, and the verdicts on the claims of an ablation."""

    def __init__(self, request: Request, study: Study, outcomes: Sequence[Outcome]) -> None:
        self.request, self.study, self.outcomes = request, study, outcomes
        self.variants: list[VariantValues] = [
            variant_values(
                variant.name,
                [one for one in outcomes if one.job.variant.name == variant.name],
                timed=request.ablation.timed,
            )
            for variant in study.variants
        ]
        by_name = {values.name: values for values in self.variants}
        wanted = {variant.name for variant in study.variants}
        # a restricted call decides only the claims whose variants it has
        claims = [claim for claim in study.claims if {claim.better, claim.worse} <= wanted]
        self.verdicts: list[Verdict] = [decide(claim, by_name) for claim in claims]

    def cards(self) -> dict[str, dict[str, Any]]:
        """Variant -> seed -> description of its weights: hash, steps, clips and hours of the training."""
        from bcd_bench_bcd.inference.recipe import read_card

        cards: dict[str, dict[str, Any]] = {}
        for outcome in self.outcomes:
            job = outcome.job
            values = next(values for values in self.variants if values.name == job.variant.name)
            record = values.records.get(job.seed)
            if record is None:
                continue
            card: Mapping[str, Any] = {} if job.folder is None else read_card(job.folder / WEIGHTS)
            kept = {key: card[key] for key in ("step", "clips", "hours", "device", "precision") if key in card}
            cards.setdefault(job.variant.name, {})[str(job.seed)] = {"sha256": record.method.weights, **kept}
        return cards


def write_report(
    request: Request, study: Study, outcomes: Sequence[Outcome], command: str, registry: Registry
) -> Report:
    """Write table.md, .csv, .json and .tex, picture.png and .pdf, and samples.png. Returns what was written.

    `command` is the command line that reproduces the folder. Raises `UsageError` if a file cannot be written.
    """
    report = Report(request, study, outcomes)
    ours = tables.our_table(request, study, report.variants, command)
    all_tables = [ours, *tables.reported_tables(request)]
    out = request.out
    body = tables.to_json(request, study, report.variants, report.verdicts, command, report.cards())
    try:
        write_text_atomic(out / "table.md", tables.to_markdown(all_tables, report.verdicts))
        write_text_atomic(out / "table.tex", tables.to_latex(all_tables, report.verdicts))
        write_text_atomic(out / "table.csv", tables.to_csv(request, report.variants))
        write_json_atomic(out / "table.json", json.loads(json.dumps(body)))
        draw(request, study, report.variants, out / "picture", command)
        if any(values.records for values in report.variants):
            _write_samples(out, registry)
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror or error})", hint="use a different --out"
        ) from None
    return report


def _write_samples(out: Path, registry: Registry) -> None:
    """Two pairs by every variant, one below the other."""
    from bcd_bench.figures.draw import Options, draw_figure

    draw_figure("rates", Options((out,)), registry).save(out / "samples.png")


def files_of(out: Path) -> list[Path]:
    """The files of a report that exist in a folder."""
    names = ("table.md", "table.csv", "table.json", "table.tex", "picture.png", "picture.pdf", "samples.png")
    return [out / name for name in names if (out / name).exists()]
