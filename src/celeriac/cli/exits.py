"""How a command ends: an exit code that says what kind of thing went wrong, and one line that says what to do.

Rules: an error that has no line here is a defect of celeriac and shows its traceback.
"""

from __future__ import annotations

from enum import IntEnum

import click

from celeriac.errors import (
    ArgumentError,
    BackendError,
    BrokerError,
    CeleriacError,
    ConfigError,
    EncodeError,
    ResultMissing,
    ResultTimeout,
)


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    INTERRUPTED = 130


EXIT_CODES = """\
\b
Exit codes:
  0    done
  1    the task failed, or what was asked for could not be done
  2    wrong usage: an option, a name, a setting
  3    the broker or the result backend cannot be reached
  4    the result was not there (in time)
  130  interrupted
"""


class CommandFailed(Exception):
    """Ends the command with one line and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def ending_of(error: BaseException) -> tuple[Exit, str] | None:
    """Return exit code and line for an error that a user can do something about, ``None`` for any other."""
    match error:
        case CommandFailed():
            return error.code, str(error)
        case click.UsageError():
            return Exit.USAGE, _usage(error)
        case click.ClickException():
            return Exit.FAILED, error.format_message()
        case click.Abort() | KeyboardInterrupt():
            return Exit.INTERRUPTED, "interrupted"
        case ConfigError() | ArgumentError() | EncodeError():
            return Exit.USAGE, str(error)
        case BrokerError() | BackendError():
            return Exit.UNREACHABLE, str(error)
        case ResultTimeout():
            return Exit.TIMEOUT, str(error)
        case ResultMissing() | CeleriacError():
            return Exit.FAILED, str(error)
    return None


def _usage(error: click.UsageError) -> str:
    text = error.format_message().replace("\n", " ")
    path = error.ctx.command_path if error.ctx is not None else "celeriac"
    return f"{text} (see: {path} -h)"
