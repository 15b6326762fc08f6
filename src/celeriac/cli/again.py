"""What signals beside those that end it do to a worker of the command line, as to Celery's worker: SIGHUP, SIGUSR1."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from celeriac.cli.exits import Exit


class StartAgain(BaseException):
    """Ends the command, for it to run again."""


class Beginning:
    """What a command began with: its directory and its environment, which options change."""

    def __init__(self) -> None:
        self._directory: str | None = None
        with suppress(FileNotFoundError):  # it was deleted: most commands work all the same
            self._directory = os.getcwd()  # noqa: PTH109 - every command starts here, most need no Path
        self._environment = dict(os.environ)

    def start_again(self) -> NoReturn:
        """Replace this program by the same command."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        try:
            if self._directory is not None:
                os.chdir(self._directory)
            command = [sys.executable, *sys.orig_argv[1:]]
            os.execve(sys.executable, command, self._environment)  # noqa: S606 - this very command
        except OSError as error:
            sys.stderr.write(f"error: the command cannot be started again: {error}\n")
            sys.exit(Exit.FAILED)


def show_stacks_on_signal() -> None:
    """Have SIGUSR1, which ends a process otherwise, write to stderr where each thread is."""
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, file=2)
