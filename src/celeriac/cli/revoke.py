"""``celeriac revoke``: takes back tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import click

from celeriac.cli.console import say
from celeriac.cli.loading import load_existing
from celeriac.cli.messages import summary_of
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.client.app import App
from celeriac.client.revoking import KEEP
from celeriac.servers.url_parts import scheme_of
from celeriac.servers.urls import AMQP_SCHEMES
from celeriac.wire.preview import counted

LOOK = 1000
"""Messages of a queue that are looked through for an id."""


@click.command("revoke", short_help="Take back tasks that were sent.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--root", is_flag=True, help="The ids are those of first tasks: whole workflows are meant.")
@click.option("--terminate", is_flag=True, help="Also kill the processes in which they run (-P processes).")
@takes_source
def revoke(source: Source, ids: Sequence[str], root: bool, terminate: bool) -> None:
    """See to it that the tasks with these ids do not run any more, in any worker, now or later.

    Those that wait end as REVOKED at once; coroutines that run are cancelled; other functions run to their end, unless
    they run in a process and --terminate is given.
    """
    app = load_existing(source)
    strangers, all_seen = run_with(app, _revoke(app, ids, root=root, terminate=terminate))
    until = datetime.fromtimestamp(app.clock.now() + KEEP).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    for id in strangers:
        waits = "and it waits in no queue" if all_seen else "and the queues were not looked through"
        say(
            f"note: nothing is known of {id} here: no result, {waits}; is it the right id? "
            f"One that is sent before {until} will not run",
            err=True,
        )
    say(f"{counted(len(ids), 'workflow' if root else 'task')} revoked, until {until} or longer")


async def _revoke(app: App, ids: Sequence[str], *, root: bool, terminate: bool) -> tuple[list[str], bool]:
    """Revoke them; return those of which nothing is known, and whether all that waits was seen."""
    found: tuple[list[str], bool] = ([], True) if root else await _unknown(app, ids)
    await (app.cancel(roots=ids, terminate=terminate) if root else app.cancel(ids, terminate=terminate))
    return found


async def _unknown(app: App, ids: Sequence[str]) -> tuple[list[str], bool]:
    """Return the ids without a result and without a message that was seen, and whether all messages were seen."""
    left = dict.fromkeys(ids)
    if app.backend_url != "disabled://":
        records = await app.connections().backend.load(list(left))
        left = dict.fromkeys(id for id, record in zip(list(left), records, strict=True) if record is None)
    async for id in _waiting(app):
        if id is None:
            return list(left), False
        left.pop(id, None)
    return list(left), True


async def _waiting(app: App) -> AsyncIterator[str | None]:
    """Yield the ids of what is parked and of what waits in queues, ``None`` where there is more than can be seen."""
    if scheme_of(app.broker_url) in AMQP_SCHEMES:
        yield None  # a look into a queue takes its messages out and puts them back
        return
    broker, offset = app.connections().broker, 0
    while page := await broker.schedule.list(LOOK, offset):
        offset += len(page)
        for parked in page:
            yield summary_of(parked.envelope, app).id
    for queue in await broker.queues():
        if await broker.depth(queue) > LOOK:
            yield None
            return
        for content in await broker.peek(queue, LOOK):
            yield summary_of(content, app).id
