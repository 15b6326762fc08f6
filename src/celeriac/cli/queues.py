"""``celeriac queues``: what waits where, and how many workers take it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.cli.completing import complete_queues
from celeriac.cli.confirming import confirm, require_queues
from celeriac.cli.console import say, say_lines
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load_existing
from celeriac.cli.messages import Summary, summary_of
from celeriac.cli.pausing import pause, resume
from celeriac.cli.removing import remove
from celeriac.cli.running import run_with
from celeriac.cli.scheduled import scheduled
from celeriac.cli.source import Source, takes_source
from celeriac.cli.tables import show_table
from celeriac.cli.takers import DEADLINE, Takers, takers
from celeriac.client.app import App
from celeriac.wire.preview import counted


@click.group("queues", short_help="List the queues, look into one, empty one.", invoke_without_command=True)
@click.option("--json", "as_objects", is_flag=True, help="A JSON object: how many wait in each.")
@takes_source
@click.pass_context
def queues(context: click.Context, source: Source, as_objects: bool) -> None:
    """List the queues, with how many tasks wait in each and how many workers take from it; look into one; empty one.

    Workers are asked, and only those that answer remote control are counted; RabbitMQ counts all.
    """
    if context.invoked_subcommand is None:
        _list(source, as_objects=as_objects)


@queues.command("list")
@click.option("--json", "as_objects", is_flag=True, help="A JSON object: how many wait in each.")
@takes_source
def list_command(source: Source, as_objects: bool) -> None:
    """List the queues, with how many tasks wait in each and how many workers take from it."""
    _list(source, as_objects=as_objects)


@queues.command("peek")
@click.argument("queue", shell_complete=complete_queues)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
@takes_source
def peek_command(source: Source, queue: str, limit: int, as_objects: bool) -> None:
    """Show the tasks that QUEUE would hand out next, and leave them there."""
    app = load_existing(source)
    waiting = run_with(app, _peek(app, queue, limit))
    if as_objects:
        say_lines(as_json(waiting))
    elif waiting:
        show_table(
            ["id", "task", "retries", "arguments"],
            [[task.id, task.task, task.retries, task.arguments] for task in waiting],
            numbers=["retries"],
        )
    else:
        say(f"nothing waits in queue {queue}")


@queues.command("purge")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...", shell_complete=complete_queues)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@takes_source
def purge_command(source: Source, names: Sequence[str], yes: bool) -> None:
    """Delete the tasks that wait in these queues. Those that run, or have their time yet to come, are kept."""
    app = load_existing(source)
    depths = run_with(app, _depths(app, names))
    waiting = sum(depths.values())
    if not yes:
        listing = ", ".join(f"{depth} in {name}" for name, depth in depths.items())
        confirm(f"Delete {counted(waiting, 'waiting task')} ({listing})?")
    deleted = run_with(app, purge(app, names))
    say(f"{counted(deleted, 'task')} deleted")


for command in (scheduled, pause, resume, remove):
    queues.add_command(command)


def _list(source: Source, *, as_objects: bool) -> None:
    app = load_existing(source)
    if as_objects:
        say_lines(as_json(run_with(app, _depths(app))))
        return
    depths, known, paused = run_with(app, _depths_and_takers(app))
    if depths:
        show_table(
            ["queue", "waiting", "workers"],
            [
                [name, depth, "paused" if name in paused else "?" if known is None else known.count(name)]
                for name, depth in depths.items()
            ],
            numbers=["waiting", "workers"],
        )
    else:
        say("no queues yet")
    if known is not None and known.silent:
        say(f"note: {counted(known.silent, 'worker')} did not answer within {DEADLINE:g} s", err=True)


async def _depths_and_takers(app: App) -> tuple[dict[str, int], Takers | None, frozenset[str]]:
    """Return what waits in each queue, also in those that only a worker names, their takers, and which are paused."""
    depths = await _depths(app)
    known = await takers(app, list(depths))
    broker = app.connections().broker
    for name in [] if known is None else known.nodes:
        if name not in depths:
            depths[name] = await broker.depth(name)
    return dict(sorted(depths.items())), known, await app.control.paused()


async def _depths(app: App, names: Sequence[str] = ()) -> dict[str, int]:
    broker = app.connections().broker
    known = await require_queues(app, names)
    return {name: await broker.depth(name) for name in names or known}


async def _peek(app: App, queue: str, limit: int) -> list[Summary]:
    await require_queues(app, [queue])
    return [summary_of(content, app) for content in await app.connections().broker.peek(queue, limit)]


async def purge(app: App, names: Sequence[str]) -> int:
    """Delete what waits in these queues; return how many messages that were."""
    broker = app.connections().broker
    return sum([await broker.purge(name) for name in names])
