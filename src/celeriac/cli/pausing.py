"""``celeriac queues pause`` and ``celeriac queues resume``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.cli.completing import complete_queues
from celeriac.cli.console import say
from celeriac.cli.loading import load_existing
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.wire.preview import counted


@click.command("pause")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...", shell_complete=complete_queues)
@takes_source
def pause(source: Source, names: Sequence[str]) -> None:
    """Let no worker take from these queues until they are resumed. What runs, runs on; what waits, stays.

    Workers that start later do the same. Workers of Celery get a request; those that start later take from it.
    """
    app = load_existing(source)

    async def work() -> list[list[str]]:
        return [await app.control.pause(name) for name in names]

    for name, takers in zip(names, run_with(app, work()), strict=True):
        say(f"queue {name} is paused; {counted(len(takers), 'worker')} took from it")


@click.command("resume")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...", shell_complete=complete_queues)
@takes_source
def resume(source: Source, names: Sequence[str]) -> None:
    """Let workers take from these queues again."""
    app = load_existing(source)

    async def work() -> list[bool]:
        paused = await app.control.paused()
        for name in names:
            await app.control.resume(name)
        return [name in paused for name in names]

    for name, was in zip(names, run_with(app, work()), strict=True):
        say(f"queue {name} goes on" if was else f"queue {name} was not paused")
