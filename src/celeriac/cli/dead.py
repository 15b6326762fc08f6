"""``celeriac dead``: messages that were set aside, and what to do with them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.cli.console import say
from celeriac.cli.loading import load_existing
from celeriac.cli.running import run_with
from celeriac.cli.set_aside import Kind, choice_of, find, tell_of
from celeriac.cli.set_aside_commands import Helps, add_commands, chooses_several, list_if_alone
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
    list_if_alone(context, DEAD, source)


@dead.command("retry")
@chooses_several
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


add_commands(
    dead,
    DEAD,
    Helps(
        list="List messages that were set aside, the oldest first.",
        show="Show everything that is known of the message ID, which may be its task's id.",
        delete="Delete messages for good.",
    ),
)
