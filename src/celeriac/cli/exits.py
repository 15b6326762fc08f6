"""The exit codes of every command: each says what kind of thing went wrong."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    NO_ANSWER = 69
    INTERRUPTED = 130


EXIT_CODES = """\
\b
Exit codes:
  0    done
  1    the task failed, or what was asked for could not be done
  2    wrong usage: an option, a name, a setting
  3    the broker or the result backend cannot be reached
  4    the result was not there (in time)
  69   no worker answered (status, inspect, control)
  130  interrupted
"""


class CommandFailed(Exception):
    """Ends the command with one line and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code
