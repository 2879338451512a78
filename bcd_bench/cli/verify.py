"""`bcd-bench verify`: checks records, run folders and bundles, and says of each what is wrong."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, parse_data, print_json
from bcd_bench.types.errors import UsageError, printable

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.verification.check import Check

EXAMPLES = (
    "bcd-bench verify results",
    "bcd-bench verify runs/sprites@1/bcd/RUN_ID --rescore --rerun 4",
    "bcd-bench verify bundle.zip --rescore --outputs DIR",
    "bcd-bench verify results --leaderboard",
    "bcd-bench verify bundle.zip --rerun 8 --sign-off results/verified.json",
)


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Records, run folders, trees, or bundles.")],
    rescore: Annotated[bool, typer.Option("--rescore", help="Score the outputs again, and compare.")] = False,
    outputs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --rescore: the outputs (default: those of the run folder).")
    ] = None,
    rerun: Annotated[int, typer.Option(metavar="N", help="Make N random pairs again, and compare.")] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="With --rerun: random seed that chooses the pairs.")] = 0,
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="The weights of the run, if the method does not provide them."),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data, for the suite.")] = None,
    device: Annotated[str, typer.Option(metavar="D", help="cpu, cuda, cuda:N or auto.")] = "cpu",
    leaderboard: Annotated[
        bool,
        typer.Option("--leaderboard", help="Check the rules for records of a leaderboard too, and bundles in PATH."),
    ] = False,
    sign_off: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add the records that passed --rescore or --rerun to verified.json."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check records, run folders and bundles."""
    if outputs is not None and not rescore:
        raise UsageError("--outputs is for --rescore", hint="bcd-bench verify PATH --rescore --outputs DIR")
    if outputs is not None and not outputs.is_dir():
        raise UsageError(f"--outputs {outputs}: no such folder")
    if rerun < 0:
        raise UsageError(f"--rerun {rerun}: must be at least 1")
    if sign_off is not None and not (rescore or rerun):
        raise UsageError(
            "--sign-off needs --rescore or --rerun N", hint="bcd-bench verify RUN --rescore --sign-off FILE"
        )
    from bcd_bench.util.progress import open_progress

    registry = load()
    options = {"data": parse_data(data or []), "device": device, "progress": open_progress()}
    reports = []
    with contextlib.ExitStack() as stack:
        files = _records(paths, stack, bundles=leaderboard)
        for option, value in (("--outputs", outputs), ("--weights", weights)):
            if value is not None and len(files) > 1:
                raise UsageError(f"{option} is for one record, and there are {len(files)}")
        for shown, path in files:
            again = {"rescore": rescore, "outputs": outputs, "rerun": rerun, "seed": seed, "weights": weights}
            report = _verify(registry, shown, path, again, options)
            if leaderboard:
                _check_place(report, path, paths)
            if sign_off is not None:
                _sign(report, path, sign_off, device)
            reports.append(report)
            if not as_json:
                _print(report)
        if leaderboard:
            reports += _sign_offs(paths, [path for _, path in files], quiet=as_json)
    wrong = sum(not report["ok"] for report in reports)
    if as_json:
        print_json(reports)
    else:
        number = len(files)
        sound = number - sum(not report["ok"] for report in reports[:number])
        print(f"{sound} of {number} record{'s' if number != 1 else ''} passed")
    if wrong:
        raise typer.Exit(1)


def _records(paths: list[Path], stack: contextlib.ExitStack, *, bundles: bool) -> list[tuple[Path, Path]]:
    """(path to show, record file) of every record; bundles are opened into folders that `stack` removes.

    With `bundles`, those in folders are among them.
    """
    from bcd_bench.results.schema import RECORD_NAME, find_records
    from bcd_bench.verification.bundle import is_bundle, opened

    found: list[tuple[Path, Path]] = []
    for path in paths:
        if is_bundle(path):
            found.append((path, stack.enter_context(opened(path)) / RECORD_NAME))
            continue
        records = find_records([path])
        inside = sorted(path.rglob("*.zip")) if bundles and path.is_dir() else []
        found += [(one, stack.enter_context(opened(one)) / RECORD_NAME) for one in inside]
        if not records and not inside:
            raise UsageError(f"{path}: contains no record", hint=f"bcd-bench score {path}")
        found += [(record.parent if record.name == RECORD_NAME else record, record) for record in records]
    return found


def _verify(
    registry: Registry, shown: Path, path: Path, again: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    from bcd_bench.results.schema import load_record
    from bcd_bench.verification.again import check_rerun, check_rescored
    from bcd_bench.verification.check import failed, passed
    from bcd_bench.verification.files import check_files
    from bcd_bench.verification.installed import check_installed

    report: dict[str, Any] = {"path": str(shown), "suite": None, "method": None, "run_id": None, "flags": []}
    folder = path.parent
    try:
        record = load_record(path)
    except UsageError as error:
        checks = [failed("schema", str(error).replace(f"{folder}/", ""))]
        return {**report, "ok": False, "checks": checks}
    report |= {
        "suite": f"{record.suite.name}@{record.suite.version}",
        "method": record.method.name,
        "run_id": record.run_id,
        "flags": [
            flag
            for flag, held in (
                ("partial", record.partial),
                ("random weights", record.seeded),
                ("no fingerprint", record.unhashed),
                ("reference", record.method.reference),
            )
            if held
        ],
    }
    checks = [passed("schema", f"a record of format {record.format}"), *check_files(record, folder)]
    sound = all(check.status != "failed" for check in checks)
    if sound:  # otherwise the files cannot be relied on
        checks += check_installed(registry, record, folder, options["data"], again["weights"])
    if sound and again["rescore"]:
        checks.append(check_rescored(registry, record, folder, outputs=again["outputs"], **options))
    if sound and again["rerun"]:
        rerun = {key: again[key] for key in ("seed", "weights")}
        checks.append(check_rerun(registry, record, folder, again["rerun"], **rerun, **options))
    return {**report, "ok": all(check.status != "failed" for check in checks), "checks": checks}


def _check_place(report: dict[str, Any], path: Path, paths: list[Path]) -> None:
    """Add the check of the rules of a leaderboard, whose folder is the one of `paths` that contains the record."""
    from bcd_bench.results.schema import load_record
    from bcd_bench.verification.leaderboard import check_entry

    if report["suite"] is None:  # not a record
        return
    root = next((root for root in paths if root.is_dir() and path.is_relative_to(root)), None)
    check = check_entry(load_record(path), path, root)
    report["checks"].append(check)
    report["ok"] = report["ok"] and check.status == "ok"


def _sign_offs(paths: list[Path], records: list[Path], *, quiet: bool) -> list[dict[str, Any]]:
    """A report for each `verified.json` of these folders."""
    from bcd_bench.verification.leaderboard import check_sign_offs
    from bcd_bench.verification.signoff import SIGN_OFF_NAME

    found = []
    for root in paths:
        check = check_sign_offs(root, records)
        if check is not None:
            report = {"path": str(root / SIGN_OFF_NAME), "method": None, "ok": check.status == "ok", "checks": [check]}
            found.append(report)
            if not quiet:
                _print({**report, "flags": []})
    return found


def _sign(report: dict[str, Any], path: Path, file: Path, device: str) -> None:
    """Add an entry for a record that passed to `file`."""
    from bcd_bench.results.schema import load_record
    from bcd_bench.verification.signoff import add_sign_off, record_key, sign_off

    if report["suite"] is None:
        return
    entry = sign_off(load_record(path), report["checks"], device)
    if entry is None:
        print(f"not signed off: {printable(report['path'])}", file=sys.stderr)
        return
    add_sign_off(file, record_key(path), entry)


def _print(report: Mapping[str, Any]) -> None:
    flags = f" ({', '.join(report['flags'])}: not ranked)" if report["flags"] else ""
    run = f": {report['method']} on {report['suite']}{flags}" if report["method"] else ""
    print(f"{printable(report['path'])}{printable(run)}")
    checks: list[Check] = report["checks"]
    width = max(len(check.name) for check in checks)
    for check in checks:
        status = {"ok": "ok", "failed": "FAILED", "skipped": "-"}[check.status]
        print(f"  {status:<6}  {check.name:<{width}}  {printable(check.detail)}")
    print()
    sys.stdout.flush()
