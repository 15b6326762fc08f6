"""``celeriac dead``: messages that were set aside, and what to do with them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.cli.console import say
from celeriac.cli.letters import Choice, Kind, choice_of, chooses, find, list_letters, show_letter, tell_of
from celeriac.cli.loading import load_existing, run_with
from celeriac.cli.queues import confirm
from celeriac.cli.source import Source, takes_source
from celeriac.wire.preview import counted

DEAD = Kind("dead letter", "dead letters", "celeriac dead", lambda app: app.connections().broker.dead)


@click.group(
    "dead", short_help="List, run again or delete messages that were set aside.", invoke_without_command=True
)
@takes_source
@click.pass_context
def dead(context: click.Context, source: Source) -> None:
    """List messages that were set aside, look at one, run them again, delete them.

    Set aside is what no worker can run: an unknown task, a message that cannot be read, one that was delivered too
    often, one that its task rejected.
    """
    if context.invoked_subcommand is None:
        list_letters(DEAD, source, Choice(), 100, as_objects=False)


@dead.command("list")
@chooses
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
@takes_source
def list_command(source: Source, task: str | None, error: str | None, limit: int, as_objects: bool) -> None:
    """List messages that were set aside, the oldest first."""
    list_letters(DEAD, source, Choice(task=task, error=error), limit, as_objects=as_objects)


@dead.command("show")
@click.argument("id")
@takes_source
def show_command(source: Source, id: str) -> None:
    """Show everything that is known of the message ID, which may be its task's id."""
    show_letter(DEAD, source, id)


@dead.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@chooses
@click.option("--all", "every", is_flag=True, help="All there are.")
@takes_source
def retry_command(
    source: Source, ids: Sequence[str], task: str | None, error: str | None, every: bool
) -> None:
    """Put messages back on the queues that they came from."""
    app = load_existing(source)
    choice = choice_of(ids, task, error, every=every)

    async def retry() -> int:
        letters = await find(DEAD, app, choice)
        tell_of(letters)
        return await app.connections().broker.dead.retry([letter.dead.id for letter in letters])

    count = run_with(app, retry())
    say(f"{counted(count, 'message')} back on {'its queue' if count == 1 else 'their queues'}")


@dead.command("delete")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@chooses
@click.option("--all", "every", is_flag=True, help="All there are.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@takes_source
def delete_command(
    source: Source, ids: Sequence[str], task: str | None, error: str | None, every: bool, yes: bool
) -> None:
    """Delete messages for good."""
    app = load_existing(source)
    letters = run_with(app, find(DEAD, app, choice_of(ids, task, error, every=every)))
    tell_of(letters)
    if letters and not yes:
        confirm(f"Delete {counted(len(letters), 'message')} for good?")

    async def delete() -> int:
        return await app.connections().broker.dead.delete([letter.dead.id for letter in letters])

    say(f"{counted(run_with(app, delete()), 'message')} deleted")
