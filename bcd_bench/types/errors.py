"""User-facing errors: one-line messages with the exit code of the command line."""

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
    """Base class of all errors that the user can fix. The message is one line; `exit_code` follows the CLI contract."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        """Command (or action) that fixes the problem, printed on its own line."""


class UsageError(BcdBenchError):
    """Invalid names, options, configuration or files."""


class UnreadableVideoError(UsageError):
    """The content of a file is not a displayable video: it has another type, or is damaged or truncated."""


class UnsupportedVideoError(UsageError):
    """This installation cannot decode a file that another installation may decode."""


class MissingAssetError(BcdBenchError):
    """A file that must be downloaded or provided first is missing, or its hash differs."""

    exit_code = 3


class MissingDependencyError(BcdBenchError):
    """A Python package required by an optional feature is not installed."""

    exit_code = 3


class TransferError(BcdBenchError):
    """A method failed on the pair that it was to transfer."""

    exit_code = 1


class Interrupted(BcdBenchError):
    """Ctrl-C or SIGTERM: everything finished so far is on disk, and rerunning the same command resumes."""

    exit_code = 4


def printable(text: str) -> str:
    """`text` on one line, without characters that a terminal or UTF-8 cannot represent (control characters,
    surrogates)."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def one_line(error: BaseException, *, place: bool = True) -> str:
    """Format an exception on one line without machine paths: type, message, and the innermost code line outside
    Python's and bcd-bench's import machinery."""
    import traceback
    from pathlib import Path

    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the exception is a plugin's, and so is its `__str__`
        message = "(its message cannot be shown)"
    if isinstance(error, ValueError) and "read-only" in message:
        message += "; clips and features are read-only: work on a copy"
    text = printable(f"{type(error).__name__}: {message}").rstrip(": ")
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
