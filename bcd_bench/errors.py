"""Errors a user meets: one clear line each, with the exit code the command line turns them into."""

from __future__ import annotations

__all__ = ["BcdBenchError", "Interrupted", "MissingAssetError", "MissingDependencyError", "UsageError"]


class BcdBenchError(Exception):
    """Base of every error that is the user's to mend. The message is one line; `exit_code` follows the contract."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        """The command (or action) that mends it, printed on its own line."""


class UsageError(BcdBenchError):
    """Wrong names, options, configuration, or files that do not fit."""


class MissingAssetError(BcdBenchError):
    """A file that has to be fetched or given first is absent, or its hash differs."""

    exit_code = 3


class MissingDependencyError(BcdBenchError):
    """A Python package that an optional part needs is not installed."""

    exit_code = 3


class Interrupted(BcdBenchError):
    """Ctrl-C or SIGTERM: everything finished so far is on disk and the same command continues."""

    exit_code = 4
