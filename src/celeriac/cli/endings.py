"""How a command ends that an error stopped: an exit code, and one line that says what to do.

Rules: an error that has no line here is a defect of celeriac and shows its traceback.
"""

from __future__ import annotations

import click

from celeriac.cli.exits import CommandFailed, Exit
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
