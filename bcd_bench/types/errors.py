"""Errors a user meets: one clear line each, with the exit code the command line turns them into."""

from __future__ import annotations

__all__ = [
    "BcdBenchError",
    "Interrupted",
    "MissingAssetError",
    "MissingDependencyError",
    "TransferError",
    "UnreadableVideoError",
    "UnsupportedVideoError",
    "UsageError",
    "one_line",
    "printable",
]


class BcdBenchError(Exception):
    """Base of every error that is the user's to mend. The message is one line; `exit_code` follows the contract."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        """The command (or action) that mends it, printed on its own line."""


class UsageError(BcdBenchError):
    """Wrong names, options, configuration, or files that do not fit."""


class UnreadableVideoError(UsageError):
    """The content of a file is no video that can be shown: of another kind, damaged, or cut short."""


class UnsupportedVideoError(UsageError):
    """This installation cannot decode a file, which another one may."""


class MissingAssetError(BcdBenchError):
    """A file that has to be fetched or given first is absent, or its hash differs."""

    exit_code = 3


class MissingDependencyError(BcdBenchError):
    """A Python package that an optional part needs is not installed."""

    exit_code = 3


class TransferError(BcdBenchError):
    """A method failed on the pair that it was to transfer."""

    exit_code = 1


class Interrupted(BcdBenchError):
    """Ctrl-C or SIGTERM: everything finished so far is on disk and the same command continues."""

    exit_code = 4


def printable(text: str) -> str:
    """`text` on one line, without what a terminal or UTF-8 cannot hold (control characters, lone surrogates)."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def one_line(error: BaseException, *, place: bool = True) -> str:
    """An exception as one line without machine paths: type, message, and the innermost line of code that is not of
    Python's or our own loading."""
    import traceback
    from pathlib import Path

    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - the exception is a plugin's, and so is its `__str__`
        said = "(its message cannot be shown)"
    if isinstance(error, ValueError) and "read-only" in said:
        said += "; clips and features are handed out read-only: work on a copy"
    text = printable(f"{type(error).__name__}: {said}").rstrip(": ")
    if not place:
        return text
    ours = Path(__file__).parents[1] / "plugin"
    loading = {str(ours / "registry.py"), str(ours / "loading.py"), str(ours / "manager.py")}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and frame.filename not in loading and "importlib" not in frame.filename
    ]
    return f"{text} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else text
