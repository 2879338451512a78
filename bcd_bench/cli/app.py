"""`main()`: imports only the requested command, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.util.interrupts import raise_on_terminate

if TYPE_CHECKING:
    import typer

__all__ = ["VERBS", "main"]

VERBS = {
    "list": "List methods, suites, metrics and plugins.",
    "show": "Show one suite, method, metric or trainable in full.",
    "doctor": "Check the installation and show how to fix problems.",
    "assets": "List, fetch, add and verify weights and data.",
    "cache": "Show the size of the cache, and make it smaller.",
    "train": "Train a method or a metric's network from a preset.",
    "transfer": "Animate a photo or clip with the motion of a video.",
    "demo": "Open a local page to animate photos and clips.",
    "run": "Generate, score and record methods on a suite.",
    "export": "Write a suite's clips and pairs as files.",
    "merge": "Combine the shards of a run on several machines.",
    "status": "Show the progress of runs, also of running ones.",
    "score": "Score finished runs again, without generating.",
    "compare": "Compare runs pair by pair.",
    "report": "Make tables and pages from runs and records.",
    "view": "Make a page with the videos of runs.",
    "study": "Let people rate videos: build, serve and report.",
    "verify": "Check records, run folders and bundles.",
    "bundle": "Pack a run's record as one file for others to check.",
    "figure": "Draw figures of videos from runs, as PNG and PDF.",
    "validate-metrics": "Measure how metrics respond to perturbations.",
    "new-plugin": "Write a plugin that installs, runs and is tested.",
}
"""Command -> one-line help, short enough for 80 columns. Its module is `bcd_bench.cli.<command>`, see `MODULES`."""
EXAMPLES = (
    "bcd-bench run --method bcd --suite sprites-procedural --limit 64",
    "bcd-bench run --help    # options and examples of a command",
    "bcd-bench --install-completion",
)
HELP = {"help_option_names": ["-h", "--help"]}
COMPLETION = ("--install-completion", "--show-completion")

NO_ROOM_OR_RIGHT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""File-system errors that the user has to fix: a full disk, or missing permissions."""

MODULES = {"list": "list_", "new-plugin": "new_plugin", "validate-metrics": "validate_metrics"}


def _placeholder() -> None:
    """Placeholder for a command that was not requested: its help line is shown, but its module is not imported."""


def _chosen_verb(arguments: Sequence[str]) -> str | None:
    if "_BCD_BENCH_COMPLETE" in os.environ:  # the shell requests completions of this line
        line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
        arguments = line.split()[1:]
    return next((word for word in arguments if not word.startswith("-")), None)


def _completes(arguments: Sequence[str]) -> bool:
    """True if typer's completion is requested; it is disabled otherwise, because it imports additional modules."""
    return "_BCD_BENCH_COMPLETE" in os.environ or any(word in COMPLETION for word in arguments)


def _verb(factory: str, name: str) -> Any:
    from bcd_bench.plugin.loading import load_code  # imports NumPy, which the general help does without

    return load_code(factory, f"command {name!r}")


def _add_plugin_verbs(app: typer.Typer, chosen: str | None) -> None:
    """Add the commands of plugins, for the general help and for commands that are not built in."""
    if chosen in VERBS:
        return
    from bcd_bench.cli.help import examples_text
    from bcd_bench.plugin.registry import load_registry

    registry = load_registry()
    for name, spec in sorted(registry.commands.items()):
        if name in VERBS:
            owner = registry.owner("commands", name)
            print(
                f"warning: command {name!r} of plugin {owner.name} is hidden by the built-in command of that name",
                file=sys.stderr,
            )
            continue
        if name != chosen:
            app.command(name, help=spec.summary)(_placeholder)
            continue
        function = _verb(spec.factory, name)
        examples = getattr(sys.modules.get(function.__module__), "EXAMPLES", ())
        app.command(name, epilog=examples_text(examples))(function)


def build_app(chosen: str | None, *, completion: bool = False) -> typer.Typer:
    """Build the typer app. Only the command `chosen` is imported; all others are just a line of help."""
    import typer

    from bcd_bench.cli.help import examples_text, options

    app = typer.Typer(
        name="bcd-bench",
        add_completion=completion,
        add_help_option=False,
        rich_markup_mode=None,
        context_settings=HELP,
        epilog=examples_text(EXAMPLES),
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    for name, summary in VERBS.items():
        if name != chosen:
            app.command(name, help=summary)(_placeholder)
            continue
        module = importlib.import_module(f"bcd_bench.cli.{MODULES.get(name, name)}")
        epilog = examples_text(getattr(module, "EXAMPLES", ()))
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=summary, epilog=epilog)
        else:
            app.command(name, epilog=epilog)(module.command)
    _add_plugin_verbs(app, chosen)
    return app


def _say(kind: str, text: str) -> None:
    print(f"{kind}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _stdout_for_results() -> Iterator[None]:
    """Reserve stdout for the output of commands. Anything that libraries and child processes write to file descriptor 1
    goes to stderr, so that JSON, CSV and tables are not corrupted.

    Does nothing if stdout is not file descriptor 1 (in a test, or in a program that has replaced it).
    """
    try:
        direct = sys.stdout.fileno() == 1 and os.fstat(2) is not None
    except (OSError, ValueError, AttributeError):  # one of the two is closed or replaced
        direct = False
    if not direct:
        yield
        return
    printed = sys.stdout
    printed.flush()
    saved_fd = os.dup(1)
    stream = open(  # noqa: SIM115, PTH123 - closed below, and there is no path
        saved_fd,
        "w",
        encoding=printed.encoding,
        errors=printed.errors,
        newline="\n",
        buffering=1 if printed.isatty() else -1,
    )
    os.dup2(2, 1)
    sys.stdout = stream
    try:
        yield
    finally:
        sys.stdout = printed
        with contextlib.suppress(OSError, ValueError):  # the reader has closed the pipe
            stream.flush()
        os.dup2(saved_fd, 1)
        with contextlib.suppress(OSError, ValueError):
            stream.close()


def executor_options(arguments: Sequence[str]) -> list[str]:
    """Write settings of the chosen executor as `--set`: with `--executor ray`, `--ray-address A` is
    `--set executor.address=A`."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--executor=") else [word])]
    name = next((words[index + 1] for index, word in enumerate(words[:-1]) if word == "--executor"), None)
    rewritten: list[str] = []
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        if name is None or not option.startswith(f"--{name}-"):
            rewritten.append(word)
            continue
        given = value if equals else next(rest, None)
        if given is None:
            raise UsageError(f"{option} needs a value")
        rewritten += ["--set", f"executor.{option.removeprefix(f'--{name}-').replace('-', '_')}={given}"]
    return rewritten


def _run(arguments: list[str]) -> int:
    import typer

    arguments = executor_options(arguments)
    verb = _chosen_verb(arguments)
    command: Any = typer.main.get_command(build_app(verb, completion=_completes(arguments)))
    try:
        code = command.main(args=arguments or ["--help"], prog_name="bcd-bench", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        explain = getattr(error, "format_message", None)  # typer's own errors: unknown option, missing argument
        if explain is None:
            raise
        _say("error", " ".join(str(explain()).split()))
        _say("hint", f"bcd-bench {verb} --help" if verb in VERBS else "bcd-bench --help")
        return 2
    if code == 130:  # newer versions of typer return this after Ctrl-C
        raise KeyboardInterrupt
    return int(code or 0)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 finished with failed pairs, 2 wrong usage, 3 missing asset or
    dependency, 4 interrupted (resumable)."""
    raise_on_terminate()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # print the table even if the terminal cannot display a character
    with _stdout_for_results():
        code = _exit_code(list(sys.argv[1:] if arguments is None else arguments))
    if arguments is None:  # the process ends here; its last collection would take a second if torch is imported
        gc.freeze()
    raise SystemExit(code)


def _exit_code(arguments: list[str]) -> int:
    """Run the command; exceptions become a one-line message and an exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BcdBenchError as error:
        _say("interrupted" if isinstance(error, Interrupted) else "error", " ".join(str(error).split()))
        if error.hint:
            _say("hint", error.hint)
        code = error.exit_code
    except KeyboardInterrupt:
        _say("interrupted", "completed work was saved; rerun the same command to resume")
        code = Interrupted.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # keeps the interpreter's own flush quiet
        code = 0
    except OSError as error:
        if error.errno not in NO_ROOM_OR_RIGHT:
            raise
        _say("error", f"{error.filename or 'cannot write'}: {error.strerror}")
        code = 2
    return code
