"""The commands that ``celeriac dead`` and ``celeriac failed`` have in common: ``list``, ``show`` and ``delete``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from celeriac.cli.confirming import confirm
from celeriac.cli.console import say
from celeriac.cli.loading import load_existing
from celeriac.cli.running import run_with
from celeriac.cli.set_aside import Choice, Kind, choice_of, chooses, find, list_letters, show_letter, tell_of
from celeriac.cli.source import Source, takes_source
from celeriac.wire.preview import counted

FIRST = 100
"""How many are listed where no limit is given."""


class Helps(msgspec.Struct, frozen=True):
    """The help texts of the commands, each for one kind of message."""

    list: str
    show: str
    delete: str


def add_commands(group: click.Group, kind: Kind, helps: Helps) -> None:
    """Add the commands to a group."""
    group.command("list", help=helps.list)(_list_command(kind))
    group.command("show", help=helps.show)(_show_command(kind))
    group.command("delete", help=helps.delete)(_delete_command(kind))


def list_if_alone(context: click.Context, kind: Kind, source: Source) -> None:
    """List the messages where the group is called without a command."""
    if context.invoked_subcommand is None:
        list_letters(kind, source, Choice(), FIRST, as_objects=False)


def chooses_several(function: Any) -> Any:
    """Add the argument and the options that say which messages a command changes."""
    function = click.option("--all", "every", is_flag=True, help="All there are.")(function)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(chooses(function))


def _list_command(kind: Kind) -> Any:
    @chooses
    @click.option("-n", "--limit", type=click.IntRange(min=1), default=FIRST, show_default=True, metavar="N")
    @click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
    @takes_source
    def list_command(
        source: Source, task: str | None, error: str | None, limit: int, as_objects: bool
    ) -> None:
        list_letters(kind, source, Choice(task=task, error=error), limit, as_objects=as_objects)

    return list_command


def _show_command(kind: Kind) -> Any:
    @click.argument("id")
    @takes_source
    def show_command(source: Source, id: str) -> None:
        show_letter(kind, source, id)

    return show_command


def _delete_command(kind: Kind) -> Any:
    @chooses_several
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @takes_source
    def delete_command(
        source: Source, ids: Sequence[str], task: str | None, error: str | None, every: bool, yes: bool
    ) -> None:
        app = load_existing(source)
        letters = run_with(app, find(kind, app, choice_of(ids, task, error, every=every)))
        tell_of(letters)
        if letters and not yes:
            confirm(f"Delete {counted(len(letters), 'message')} for good?")

        async def delete() -> int:
            return await kind.of(app).delete([letter.dead.id for letter in letters])

        say(f"{counted(run_with(app, delete()), 'message')} deleted")

    return delete_command
