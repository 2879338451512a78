"""`bcd-bench validate-metrics`: known faults in known doses on exact targets, and what every metric makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load, parse_data, plain
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES
from bcd_bench.util.progress import open_progress


def command(
    suite: Annotated[str, typer.Option(metavar="S", help="A suite whose pairs have exact targets.")],
    metric: Annotated[list[str] | None, typer.Option(help="A metric; may be repeated. Default: the suite's.")] = None,
    perturbation: Annotated[list[str] | None, typer.Option(help="A fault; may be repeated. Default: all.")] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Data of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N pairs only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the faults.")] = 0,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="Write to a file: .json has all numbers, else markdown.")] = None,
) -> None:
    """Perturb exact targets in known doses and tell how well every metric ranks them, and what else it reacts to."""
    from bcd_bench.io.atomic import write_bytes_atomic
    from bcd_bench.metric_validation.report import render
    from bcd_bench.metric_validation.run import validate
    from bcd_bench.plugin.suites import load_suite

    registry = load()
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}", hint=f"mkdir -p {output.parent}")
    found = validate(
        registry,
        load_suite(registry, suite, parse_data(data or [])),
        metric or None,
        perturbations=perturbation or None,
        limit=limit,
        seed=seed,
        device=device,
        progress=open_progress(),
    )
    if output is None:
        print(render(found), end="")
        return
    as_json = output.suffix == ".json"
    text = json.dumps(plain(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n" if as_json else render(found)
    write_bytes_atomic(output, text.encode())
    print(f"written: {output}")
