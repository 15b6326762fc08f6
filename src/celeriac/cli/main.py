"""``celeriac``: the group of commands, and how each of them ends."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from traceback import format_exception
from typing import Any, NoReturn

import click

from celeriac.cli.again import Beginning, StartAgain
from celeriac.cli.celery_flags import COMMANDS, takes_environment_flags
from celeriac.cli.command_line import hide_passwords
from celeriac.cli.commands import Commands, commands
from celeriac.cli.console import say, say_lines, styled, write_anything
from celeriac.cli.exits import EXIT_CODES, Exit
from celeriac.cli.source import Source, takes_source


class CommandLine(click.Group):
    """A group that ends with one line and an exit code, whatever went wrong."""

    def main(  # type: ignore[override]  # it never returns, whatever the mode
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the command that the arguments name and end the process."""
        extra["standalone_mode"] = False
        write_anything()
        try:
            code = super().main(args, prog_name or "celeriac", **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as help_wanted:
            say_lines(help_wanted.format_message())
            sys.exit(Exit.USAGE)
        except BrokenPipeError:
            # The reader of the output has closed its end; Python must not complain when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(Exit.FAILED)
        except BaseException as error:
            ending = _ending_of(error)
            if ending is None:
                if not isinstance(error, Exception):
                    raise
                say_lines("".join(format_exception(error)).rstrip(), err=True)
                sys.exit(Exit.FAILED)
            say(styled("error:", fg="red", bold=True), f" {ending[1]}", err=True)
            sys.exit(ending[0])
        sys.exit(code if isinstance(code, int) else Exit.OK)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in COMMANDS and args[0] not in self.commands:
            raise click.UsageError(f"there is no command {args[0]} here: {COMMANDS[args[0]]}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        assert isinstance(self.commands, Commands)
        with formatter.section("Commands"):
            formatter.write_dl(list(self.commands.short_texts().items()))


def _ending_of(error: BaseException) -> tuple[Exit, str] | None:
    from celeriac.cli.endings import ending_of  # it knows the errors of everything that a command may import

    return ending_of(error)


HELP = """\
Client and worker for Celery's tasks: on Redis beside Celery, or alone on one file.

\b
  celeriac demo                              see it work; needs nothing
  celeriac -A shop worker                    run the tasks of shop.py
  celeriac -A shop call shop.add 2 3 --wait
"""


@click.group(
    "celeriac",
    cls=CommandLine,
    commands=commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=HELP,
    epilog=EXIT_CODES,
)
@click.version_option(None, "--version", package_name="celeriac", message="%(prog)s %(version)s")
@takes_environment_flags
@takes_source
def celeriac(source: Source) -> None:
    """Client and worker for Celery's tasks."""


def main() -> NoReturn:
    """Run ``celeriac`` with the arguments of this process."""
    hide_passwords()
    beginning = Beginning()
    try:
        celeriac.main()
    except StartAgain:
        beginning.start_again()
    finally:
        # The process ends: without this Python would look through all that was imported, for what nobody refers to.
        gc.freeze()
