"""Results of `validate-metrics` as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bcd_bench.results.formats.markdown import escape
from bcd_bench.results.schema import MIN_COVERAGE
from bcd_bench.results.table import DAGGER

if TYPE_CHECKING:
    from bcd_bench.metric_validation.run import Validation
    from bcd_bench.metric_validation.sensitivity import Agreement, Reaction

__all__ = ["render"]


def _number(value: float | None, digits: int = 3) -> str:
    """Three significant digits by default; "-" for None."""
    return "-" if value is None else f"{value:.{digits}g}"


def _rank(reaction: Reaction) -> str:
    if reaction.rank is None:
        return "-"
    low, high = reaction.rank_low, reaction.rank_high
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{reaction.rank:.2f}{interval}{' ‡' if reaction.side_effect and reaction.rank else ''}"


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _ranks(validation: Validation) -> list[str]:
    perturbations = list(dict.fromkeys(reaction.perturbation for reaction in validation.reactions))
    reactions = {(reaction.column, reaction.perturbation): reaction for reaction in validation.reactions}
    columns = list(dict.fromkeys(reaction.column for reaction in validation.reactions))
    rows = [[escape(column), *(_rank(reactions[column, fault]) for fault in perturbations)] for column in columns]
    return _grid(["column", *map(escape, perturbations)], rows)


def _dagger(share: float | None) -> str:
    return DAGGER if share is not None and share < MIN_COVERAGE else ""


def _means(validation: Validation) -> list[str]:
    rows = []
    for reaction in validation.reactions:
        steps = zip(reaction.doses, reaction.means, reaction.frames, strict=True)
        values = ", ".join(f"{_number(dose)}: {_number(mean, 4)}{_dagger(share)}" for dose, mean, share in steps)
        unit = f" ({reaction.unit})" if reaction.unit else ""
        counted = f"{reaction.n} ({reaction.n_failed} without)" if reaction.n_failed else str(reaction.n)
        rows.append([escape(reaction.column + unit), escape(reaction.perturbation), values, counted])
    return _grid(["column", "fault", "dose: mean", "pairs"], rows)


def _truth(agreements: Sequence[Agreement]) -> list[str]:
    rows = []
    for agreement in agreements:
        interval = (
            "" if agreement.low is None or agreement.high is None else f" [{agreement.low:.3f}, {agreement.high:.3f}]"
        )
        counted = f"{agreement.n} ({agreement.n_failed} without)" if agreement.n_failed else str(agreement.n)
        floor = f"{_number(agreement.floor)} ({agreement.n_floor} clips)"
        rows.append([escape(agreement.column), f"{agreement.spearman:.3f}{interval}", counted, floor])
    return _grid(["column", "Spearman with the true error", "clips with an error", "floor: mean without"], rows)


def render(validation: Validation) -> str:
    """Render Markdown with the rank table, agreement with known true errors, means at every severity, and provenance.

    Includes headline columns only; the JSON output includes all columns.
    """
    validation = replace(
        validation, reactions=tuple(reaction for reaction in validation.reactions if reaction.headline)
    )
    lines = [
        f"# Metrics under known faults: {escape(validation.suite)}@{escape(validation.suite_version)}",
        "",
        f"{validation.n_pairs} exact targets, seed {validation.seed}. Spearman correlation of dose and value within a "
        "pair, mean over pairs, with its 95 % interval clustered by content identity: 1 says that more of the fault is "
        "always worse, 0 that the column does not move. ‡ marks a reaction to a fault that changes nothing the metric "
        "is about.",
        "",
        *_ranks(validation),
    ]
    if validation.agreements:
        lines += ["", "## Against the truth", "", *_truth(validation.agreements)]
    means = _means(validation)
    lines += ["", "## Means", "", *means, ""]
    if any(DAGGER in line for line in means):
        lines.append(f"- {DAGGER} rests on fewer than {100 * MIN_COVERAGE:.0f} % of the frames.")
    lines += [f"- {escape(note)}" for note in validation.notes]
    environment = validation.environment
    device = escape(environment["device"]["name"])
    plugins = ", ".join(f"{dist} {info['version']}" for dist, info in sorted(environment["plugins"].items()))
    lines.append(
        f"- bcd-bench {environment['bcd_bench']}, {escape(plugins)}; device {device}; "
        f"manifest {validation.manifest_sha256[:12]}"
    )
    return "\n".join(lines) + "\n"
